"""The words and the HTML page of a run."""

import html
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .page import html_list, html_picture, html_table, interval, made_by, percent, write_page


def by_setting(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of results in parts of one n_way and grouping each."""
    parts = groupby(rows, key=lambda row: (row["n_way"], row["groups"]))
    return [list(part) for _, part in parts]


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of one setting stand on."""
    row = rows[0]
    groups = {"none": "no groups known", "mixed": "groups mixed", "separate": "groups separate"}
    return (
        f"{row['n_way']}-way, queries of {len(row['per_class'])} unseen classes, "
        f"{row['episodes']} episodes for each K, {groups[row['groups']]}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The K-shot rows as a header and cells of text, for terminal and page alike."""
    header = ["K", "accuracy", "95 %", "95 % by class", "raw pixels", "95 %", "untrained"]
    cells = [
        [
            str(row["k_shot"]),
            percent(row["accuracy"]),
            interval(row["ci95"]),
            interval(row["ci95_classes"]),
            percent(row["floor"]),
            interval(row["floor_ci95"]),
            percent(row["untrained"]),
        ]
        for row in rows
    ]
    return header, cells


def gains(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """With and without the adapter, K by K, as a header and cells; no cells without one."""
    header = ["K", "without adapter", "with", "gain", "95 %", "p", "seconds to adapt"]
    cells = [
        [
            str(row["k_shot"]),
            percent(row["frozen"]),
            percent(row["accuracy"]),
            f"{100 * row['gain']:+.1f}",
            " to ".join(f"{100 * end:+.1f}" for end in row["gain_ci95"]),
            f"{row['gain_p']:.2g}" if row["gain_p"] >= 0.0001 else "<0.0001",
            f"{row['adapting_seconds']:.2g}",
        ]
        for row in rows
        if "gain" in row
    ]
    return header, cells


def facts(results: Mapping[str, Any]) -> list[str]:
    """Verification, training and speed, as lines of text."""
    lines = []
    if results.get("queries") == "together":
        lines.append(
            "queries together: these figures answer another question than one query at a time"
        )
    if results["verification"] is not None:
        v = results["verification"]
        at_margin = (
            f", {percent(v['accuracy_at_margin'])} at the margin {v['margin']:g}"
            if v["margin"] is not None
            else ""
        )
        lines.append(
            f"same or different, {v['pairs']} pairs of unseen classes: ROC AUC {v['auc']:.3f}, "
            f"{percent(v['accuracy'])} right at the threshold {v['threshold']:.3f} chosen on "
            f"other classes{at_margin}"
        )
    unknown = results.get("unknown", [])
    if unknown:
        row = min(unknown, key=lambda row: abs(row["k_shot"] - 5))
        test = row["test"]
        lines.append(
            f"known or unknown class, K = {row['k_shot']}, {test['n_way']}-way: "
            f"AUROC {test['auroc']:.3f}, {percent(test['false_accepts_at_95_recall'])} of the "
            f"unknown accepted at 95 % recall; at the threshold {row['threshold']:.3g} chosen on "
            f"other classes {percent(test['recall'])} recall, {percent(test['false_accepts'])} "
            f"accepted; ECE {percent(test['ece'])} ({percent(test['ece_uncalibrated'])} "
            "uncalibrated)"
        )
    if "training" in results:
        t = results["training"]
        lines.append(
            f"training: {t['steps']} steps (ended by {t['stopped']}), best at {t['best_step']}, "
            f"{t['images_per_second']:.0f} images/s"
        )
    s = results["speed"]
    lines.append(
        f"embedding, decoding excluded: {s['batch_images_per_second']:.0f} images/s in batches of "
        f"{s['batch']:.0f}, {s['single_images_per_second']:.0f} images/s one by one "
        f"({s['single_latency_ms']:.1f} ms)"
    )
    return lines


def unknown_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The rows of `unknown` as a header and cells of text."""
    header = ["K", "classes", "threshold", "temperature", "AUROC", "accepted at 95 % recall"]
    header += ["recall", "accepted", "ECE", "ECE uncalibrated"]
    cells = [
        [
            str(row["k_shot"]),
            part,
            f"{row['threshold']:.3g}",
            f"{row['temperature']:.3g}",
            f"{row[part]['auroc']:.3f}",
            *(
                percent(row[part][name])
                for name in (
                    "false_accepts_at_95_recall",
                    "recall",
                    "false_accepts",
                    "ece",
                    "ece_uncalibrated",
                )
            ),
        ]
        for row in rows
        for part in ("validation", "test")
    ]
    return header, cells


def page(
    folder: Path,
    title: str,
    manifest: Mapping[str, Any],
    results: Mapping[str, Any],
    config: str,
) -> None:
    """A run's tables, pictures and configuration as `report.html`."""
    tables = ""
    for rows in by_setting(results["k_shot"]):
        tables += f"<h3>{html.escape(caption(rows))}</h3>{html_table(*table(rows))}"
        adapted = gains(rows)
        if adapted[1]:
            tables += f"<h4>With and without the adapter</h4>{html_table(*adapted)}"
    unknown = ""
    if results["unknown"]:
        unknown = (
            "<h2>Unknown classes and confidence</h2>"
            f"{html_table(*unknown_table(results['unknown']))}"
            "<p>accepted: images of an unknown class taken for a known one. Threshold and "
            "temperature are chosen on the validation classes.</p>"
        )
    names = ["k_shot.png", "curves.png", "calibration.png", "episodes.png"]
    names += dict.fromkeys(f"confusion_k{row['k_shot']}.png" for row in results["k_shot"])
    drawn = "".join(html_picture(folder / name) for name in names if (folder / name).exists())
    write_page(
        folder,
        f"{title} {folder.name}",
        f"<h2>K-shot accuracy on unseen classes</h2>{tables}"
        "<p>raw pixels: the same head (class means, where it is learned) on images averaged to "
        "16x16, same episodes.</p>"
        f"{html_list(facts(results))}{unknown}{drawn}<h2>Made by</h2>{made_by(manifest)}"
        f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>",
    )

"""The words and the HTML page of a run."""

import html
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from ..core.figures import (
    AdapterGain,
    Compared,
    HeadRow,
    KShotRow,
    RunResults,
    StudyFigures,
    UnknownRow,
    collapsed,
    part_of,
)
from ..core.interfaces import Dataset
from ..core.shown import Shown
from ..core.wording import counted
from . import confusion_table, shown_page
from .advice import Advice
from .page import (
    html_list,
    html_picture,
    html_table,
    interval,
    made_by,
    p_value,
    percent,
    plain,
    write_page,
)
from .verdict import of_first_setting, telling_row, verdict

Row = TypeVar("Row", KShotRow, StudyFigures)


def by_setting(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of results in parts of one protocol, n_way and grouping each."""
    return [list(part) for _, part in groupby(rows, key=part_of)]


def caption(rows: Sequence[KShotRow | StudyFigures]) -> str:
    """What the rows of one setting stand on."""
    row = max(rows, key=lambda row: row.episodes)
    groups = {
        "none": "each image taken as its own (no groups of near copies known)",
        "mixed": "groups mixed",
        "separate": "groups separate",
    }
    if row.protocol == "leave-one-out":
        asked = sum(sum(answered.values()) for answered in row.confusion.values())
        return (
            f"leave-one-out over {asked} images of {len(row.per_class)} classes, {row.n_way}-way: "
            f"each asked once, in {row.episodes} parts, among all images of the other parts, "
            f"{row.k_shot} of its class or more, {groups.get(row.groups, row.groups)}"
        )
    once = any((of.k_shot, of.episodes) == (0, 1) for of in rows)
    classes = counted(len(row.per_class), "unseen class", "unseen classes")
    return (
        f"{row.n_way}-way, queries of {classes}, "
        f"{row.episodes} episodes for each K, {groups.get(row.groups, row.groups)}{shares(row)}"
        f"{'; K = 0: by the names alone, every image asked once' if once else ''}"
    )


def shares(row: KShotRow | StudyFigures) -> str:
    """How the queries are spread over the classes, where they were drawn unevenly."""
    if not row.dirichlet:
        return ""
    return f", queries' class shares of Dirichlet({row.dirichlet:g}), accuracy over queries"


def table(rows: Sequence[KShotRow]) -> tuple[list[str], list[list[str]]]:
    """The K-shot rows as a header and cells of text, for terminal and page alike."""
    header = ["K", "accuracy", "95 %", "95 % by class", "raw pixels", "95 %", "untrained"]
    cells = [
        [
            str(row.k_shot),
            percent(row.accuracy),
            interval(row.ci95),
            interval(row.ci95_classes),
            percent(row.floor),
            interval(row.floor_ci95),
            "" if row.untrained is None else percent(row.untrained),
        ]
        for row in rows
    ]
    if all(row.untrained is None for row in rows):
        return header[:-1], [line[:-1] for line in cells]
    return header, cells


def _gained(of: AdapterGain | HeadRow) -> list[str]:
    """What was gained over the same episodes, its interval, and p."""
    return [
        f"{100 * of.gain:+.1f}",
        _points(of.gain_ci95),
        p_value(of.gain_p),
    ]


def _points(ends: Sequence[float]) -> str:
    """An interval of differences between shares."""
    return " to ".join(f"{100 * end:+.1f}" for end in ends)


def gains(rows: Sequence[KShotRow]) -> tuple[list[str], list[list[str]]]:
    """With and without the adapter, K by K, as a header and cells; no cells without one."""
    header = ["K", "without adapter", "with", "gain", "95 %", "p", "seconds to adapt"]
    cells = [
        [
            str(row.k_shot),
            percent(adapter.frozen),
            percent(row.accuracy),
            *_gained(adapter),
            f"{adapter.adapting_seconds:.2g}",
        ]
        for row in rows
        if (adapter := row.adapter) is not None
    ]
    return header, cells


def heads_table(rows: Sequence[HeadRow]) -> tuple[list[str], list[list[str]]]:
    """Other heads on the episodes of one setting, as a header and cells of text."""
    header = ["head", "queries", "K", "accuracy", "95 %", "gain", "95 %", "p", "CPU ms an episode"]
    cells = [
        [
            row.head,
            row.queries,
            str(row.k_shot),
            percent(row.accuracy),
            interval(row.ci95),
            *_gained(row),
            f"{1000 * row.cpu_seconds:.2g}",
        ]
        for row in rows
    ]
    return header, cells


def heads_by_setting(
    results: RunResults,
) -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    """For each setting its caption and the table of other heads, K by K."""
    found = []
    for part in by_setting(results.k_shot):
        rows = [row for row in results.heads if part_of(row) == part_of(part[0])]
        if rows:
            rows = sorted(rows, key=lambda row: row.k_shot)
            found.append((caption(part), heads_table(rows)))
    return found


def facts(results: RunResults) -> list[str]:
    """Verification, training and speed, as lines of text."""
    lines = collapsed(results.spread)
    if results.queries == "together":
        balances = (
            f"{part[0].balance:.2f} where {caption(part).partition(',')[0]}{shares(part[0])}"
            for part in by_setting(results.k_shot)
        )
        lines.append(
            "queries together: these figures answer another question than one query at a time; "
            f"how even the classes of an episode's queries were (1: all alike): "
            f"{'; '.join(balances)}"
        )
    if results.verification is not None:
        v = results.verification
        at_margin = (
            f", {percent(v.accuracy_at_margin)} at the margin {v.margin:g}"
            if v.accuracy_at_margin is not None
            else ""
        )
        lines.append(
            f"same or different, {v.pairs} pairs of unseen classes: ROC AUC {v.auc:.3f} "
            "(1: all told apart, 0.5: by chance), "
            f"{percent(v.accuracy)} right at the threshold {v.threshold:.3f} chosen on "
            f"other classes{at_margin}"
        )
    if results.unknown:
        row = min(results.unknown, key=lambda row: abs(row.k_shot - 5))
        test = row.test
        lines.append(
            f"known or unknown class, K = {row.k_shot}, {test.n_way}-way: at the threshold "
            f"{row.threshold:.3g}, chosen on other classes, {percent(test.recall)} of the images "
            f"of known classes pass and, in error, {percent(test.false_accepts)} of unknown ones; "
            f"where 95 % of the known pass, {percent(test.false_accepts_at_95_recall)} of the "
            f"unknown do; AUROC {test.auroc:.3f} (1: all told apart, 0.5: by chance); how sure it "
            f"says it is differs from how often it is right by {percent(test.ece)} (ECE; "
            f"{percent(test.ece_uncalibrated)} before calibration)"
        )
    if results.training is not None:
        t = results.training
        lines.append(
            "nothing was trained"
            if t.steps == 0
            else f"training: {t.steps} steps (ended by {t.stopped}), best at {t.best_step}, "
            f"{t.images_per_second:.0f} images/s"
        )
    s = results.speed
    lines.append(
        f"embedding, decoding excluded: {s.batch_images_per_second:.0f} images/s in batches of "
        f"{s.batch:.0f}, {s.single_images_per_second:.0f} images/s one by one "
        f"({s.single_latency_ms:.1f} ms)"
    )
    return lines


def unknown_table(rows: Sequence[UnknownRow]) -> tuple[list[str], list[list[str]]]:
    """The rows of `unknown` as a header and cells of text."""
    header = ["K", "classes", "threshold", "temperature", "AUROC", "accepted at 95 % recall"]
    header += ["recall", "accepted", "ECE", "ECE uncalibrated"]
    cells = [
        [
            str(row.k_shot),
            classes,
            f"{row.threshold:.3g}",
            f"{row.temperature:.3g}",
            f"{figures.auroc:.3f}",
            percent(figures.false_accepts_at_95_recall),
            percent(figures.recall),
            percent(figures.false_accepts),
            percent(figures.ece),
            percent(figures.ece_uncalibrated),
        ]
        for row in rows
        for classes, figures in (("validation", row.validation), ("test", row.test))
    ]
    return header, cells


def comparison_table(rows: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Runs beside the first as a header and cells; way and groups where rows differ in them."""
    header = ["K", "way", "groups", "run", "accuracy", "difference"]
    header += ["95 %", "p", "95 % by class", "p by class"]
    table = [header, *map(_compared, rows)]
    if len({part_of(compared.row) for compared in rows}) == 1:
        table = [[line[0], *line[3:]] for line in table]
    return table[0], table[1:]


def _compared(compared: Compared) -> list[str]:
    row = compared.row
    way = f"{row.n_way}, Dirichlet({row.dirichlet:g})" if row.dirichlet else str(row.n_way)
    cells = [str(row.k_shot), way, row.groups, compared.run, percent(row.accuracy)]
    if compared.draws is None or compared.classes is None:
        return [*cells, "", "", "", "", ""]
    cells.append(f"{100 * compared.draws.difference:+.1f}")
    for test in (compared.draws, compared.classes):
        cells += [_points(test.ci95), p_value(test.p, test.n)]
    return cells


def draw(folder: Path, results: RunResults) -> None:
    """A run's pictures of its figures."""
    from . import pictures  # late: its import takes long, and a mistake is told at once

    trained = results.training is None or results.training.steps > 0
    pictures.k_shot(of_first_setting(results.k_shot), trained, folder / "k_shot.svg")
    if results.unknown:
        nearest = min(results.unknown, key=lambda row: abs(row.k_shot - 5))
        pictures.calibration(nearest, folder / "calibration.svg")


def page(
    folder: Path,
    title: str,
    manifest: Mapping[str, Any],
    results: RunResults,
    config: str,
    dataset: Dataset,
    shown: Shown,
    advised: Sequence[Advice],
) -> None:
    """A run's verdict, advice, tables, pictures and configuration as `report.html`."""
    by_k = {f"K = {row.k_shot}": row for row in of_first_setting(results.k_shot)}
    telling = f"K = {telling_row(results.k_shot).k_shot}"
    wrong = shown_page.mistakes(dataset, shown)
    parts = [
        _box(advised),
        f"<h2>Accuracy</h2>{_accuracy(folder, results)}",
        f"<h2>Confusion</h2>{confusion_table.section(by_k, telling)}",
        f"<h2>Worst mistakes</h2>{wrong}" if wrong else "",
        f"<h2>Map</h2>{shown_page.embedding_map(dataset, shown)}",
        f"<h2>Unknown classes</h2>{_unknown(folder, results.unknown)}" if results.unknown else "",
        _drawn(
            folder / "curves.svg", "Training", "Curves over the steps",
            "Loss on training classes; accuracy and pairs on classes held out for choosing when to "
            "stop, where there are such.",
        ),
        f"<h2>An episode</h2>{shown_page.episode(dataset, shown)}",
        f"<h2>Details</h2>{html_list(facts(results))}",
        f"<h2>Settings</h2>{_settings(config)}",
        f"<h2>Made by</h2>{made_by(manifest)}",
    ]  # fmt: skip
    write_page(
        folder, f"{title} {folder.name}", "".join(parts), verdict(results), "map.js",
    )  # fmt: skip


def _box(advised: Sequence[Advice]) -> str:
    if not advised:
        return ""
    lines = "".join(
        f"<li><b>{html.escape(each.topic.replace('-', ' ').capitalize())}</b>: "
        f"{_quoted(each.why)}. Try: {_quoted(each.how)}</li>"
        for each in advised
    )
    return (
        '<aside class="box" aria-label="What may help"><p><b>What may help</b></p>'
        f'<ul>{lines}</ul><p class="quiet">Each is a '
        "heading of the guide “Accuracy is poor: what now?” (how-to/poor-accuracy), with what it "
        "brought where it was measured.</p></aside>"
    )


def _quoted(text: str) -> str:
    """Text as HTML, what stands between backticks as code whose words are not broken."""

    def code(found: re.Match[str]) -> str:
        return "<code>{}</code>".format(re.sub(r"\S+", r"<span>\g<0></span>", found[1]))

    return re.sub(r"`([^`]*)`", code, html.escape(text))


def _drawn(path: Path, heading: str, alt: str, text: str) -> str:
    """A section of one picture, where there is one."""
    return f"<h2>{heading}</h2>{html_picture(path, alt, text)}" if path.exists() else ""


def _accuracy(folder: Path, results: RunResults) -> str:
    first, *others = by_setting(results.k_shot)
    parts = html_picture(
        folder / "k_shot.svg",
        "Accuracy against K",
        "Bars: 95 % intervals over episodes. The dotted line is guessing.",
    )
    for rows in (first, *others):
        parts += f"<h3>{html.escape(caption(rows))}</h3>{html_table(*table(rows))}"
        adapted = gains(rows)
        if adapted[1]:
            parts += f"<h4>With and without the adapter</h4>{html_table(*adapted)}"
    for text, cells in heads_by_setting(results):
        parts += f"<h3>Other heads, {html.escape(text)}</h3>{html_table(*cells)}"
    before = any(row.untrained is not None for row in results.k_shot)
    untrained = (
        " untrained: the network before training, or, where none was trained, with random weights."
    )
    return (
        f'{parts}<p class="quiet">K: support images shown of each class. 95 %: the interval over '
        "episodes, how well the mean is known for these classes; by class: what other classes "
        "would change. raw pixels: the same head (class means, where it is learned) on images "
        f"averaged to 16x16, same episodes.{untrained if before else ''}</p>"
    )


def _unknown(folder: Path, rows: Sequence[UnknownRow]) -> str:
    path, drawn = folder / "calibration.svg", ""
    if path.exists():
        drawn = html_picture(
            path,
            "Distances of known and unknown images, and reliability",
            "Left: known and unknown lie apart as far as the two heaps do. Right: on the dotted "
            "line an answer said to be 80 % sure is right in 80 of 100.",
        )
    return (
        f"{drawn}{html_table(*unknown_table(rows))}"
        '<p class="quiet">recall: images of known classes that are answered and not called '
        "unknown. accepted: images of an unknown class taken for a known one. AUROC: how often an "
        "unknown image lies farther than a known one; 0.5 is guessing, 1 never fails. ECE: how far "
        "stated confidence is from the share that is right, on average. Threshold and temperature "
        "are chosen on other classes than they are tried on.</p>"
    )


def _settings(config: str) -> str:
    """A configuration as a table, and as the file that `--config` takes."""
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_value(value)}</td></tr>"
        for name, value in _flat(tomllib.loads(config))
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="settings"><tr><th>setting</th>'
        f"<th>value</th></tr>{lines}</table></div><details><summary>As a file for --config"
        f'</summary><pre tabindex="0">{html.escape(config)}</pre></details>'
    )


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _value(value: Any) -> str:
    """A setting's value as HTML, folded where it is long."""
    listed = isinstance(value, list) and not any(isinstance(each, Mapping) for each in value)
    text = ", ".join(map(plain, value)) if listed else plain(value)
    if len(text) <= 100:
        return html.escape(text or "–")
    few = f"{len(value)} values" if isinstance(value, list) else f"{text[:40]}…"
    return f"<details><summary>{html.escape(few)}</summary>{html.escape(text)}</details>"

"""A study's tables for the terminal and its report."""

import html
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from ..core.components import Study
from ..core.figures import StudyFigures, StudyResults, part_of
from ..core.wording import counted
from . import confusion_table, pictures
from .page import (
    html_list,
    html_picture,
    html_table,
    interval,
    made_by,
    p_value,
    percent,
    write_page,
)
from .run_page import by_setting, caption
from .verdict import study_verdict

Table = tuple[list[str], list[list[str]]]


def settings(results: StudyResults) -> list[dict[str, list[StudyFigures]]]:
    """For each protocol, n_way and grouping, every row's figures by K."""
    parts = {
        name: {part_of(p[0]): p for p in by_setting(row.figures)}
        for name, row in results.rows.items()
    }
    every = dict.fromkeys(key for of in parts.values() for key in of)
    return [{name: of[key] for name, of in parts.items() if key in of} for key in every]


def title(rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    """What the figures of one setting stand on."""
    return caption(next(iter(rows.values())))


def _over_seeds(of_k: Mapping[int, StudyFigures]) -> tuple[str, dict[int, str]]:
    """The interval over seeds by K, or, as t of two figures says nothing, these themselves."""
    if any(len(of.per_draw) == 2 for of in of_k.values()):
        means = {k: [sum(draws) / len(draws) for draws in of.per_draw] for k, of in of_k.items()}
        return "   each seed", {k: ", ".join(map(percent, each)) for k, each in means.items()}
    return "   95 % over seeds", {
        k: "" if of.ci95_seeds is None else interval(of.ci95_seeds) for k, of in of_k.items()
    }


def table(rows: Mapping[str, Sequence[StudyFigures]]) -> Table:
    """Rows of a study in one setting against K: accuracy, intervals, floors, published figures."""
    shots = list(dict.fromkeys(of.k_shot for figures in rows.values() for of in figures))
    cells = []
    for name, figures in rows.items():
        of_k = {of.k_shot: of for of in figures}

        def line(label: str, values: Mapping[int, str]) -> None:
            if any(values.values()):
                cells.append([label, *(values.get(k, "") for k in shots)])

        line(
            f"{name}, {counted(len(figures[0].per_draw), 'seed')}",
            {k: percent(of.accuracy) for k, of in of_k.items()},
        )
        line(*_over_seeds(of_k))
        line("   95 % over draws", {k: interval(of.ci95_draws) for k, of in of_k.items()})
        line("   95 % over classes", {k: interval(of.ci95_classes) for k, of in of_k.items()})
        line(
            "   untrained",
            {k: "" if of.untrained is None else percent(of.untrained) for k, of in of_k.items()},
        )
        line("   raw pixels", {k: percent(of.floor) for k, of in of_k.items()})
        line(
            "   published",
            {k: "" if of.published is None else percent(of.published) for k, of in of_k.items()},
        )
    return ["row", *(f"K = {k}" for k in shots)], cells


def costs(results: StudyResults) -> Table:
    """What each row costs: means over its runs."""
    header = [
        "row", "runs", "parameters", "training images/s", "training s", "steps", "best step",
        "embedding images/s", "one image ms",
    ]  # fmt: skip
    cells = [
        [
            name,
            str(len(row.runs)),
            f"{row.cost.parameters:,}",
            f"{row.cost.training_images_per_second:.0f}",
            f"{row.cost.training_seconds:.0f}",
            f"{row.cost.steps:.0f}",
            f"{row.cost.best_step:.0f}",
            f"{row.cost.embedding_images_per_second:.0f}",
            f"{row.cost.one_image_ms:.1f}",
        ]
        for name, row in results.rows.items()
    ]
    return header, cells


def differences(results: StudyResults, names: Sequence[str], of: StudyFigures) -> Table:
    """Line minus column in percentage points, with the p-values over draws and over classes.

    Of the rows with these names, in the setting and at the K of `of`.
    """
    due = (of.k_shot, of.n_way, of.groups, of.dirichlet)
    texts: dict[tuple[str, str], str] = {}
    for pair in results.paired:
        if (pair.k_shot, pair.n_way, pair.groups, pair.dirichlet) != due:
            continue
        a, b = pair.rows
        draws, classes = (p_value(test.p, test.n) for test in (pair.draws, pair.classes))
        ps = f"p {draws} draws, {classes} classes"
        for line, column, sign in ((b, a, 1), (a, b, -1)):
            texts[line, column] = f"{100 * sign * pair.draws.difference:+.1f}; {ps}"
    return ["row", *names], [[a, *(texts.get((a, b), "") for b in names)] for a in names]


def spread(name: str, figures: Sequence[StudyFigures]) -> str:
    """One sentence on what a single draw of support images does to a figure."""
    by_k = ", ".join(f"{100 * of.draw_std:.1f} (K = {of.k_shot})" for of in figures)
    lower = ", ".join(
        f"{percent(of.lower_next)} (K = {of.k_shot} to {after.k_shot})"
        for of, after in pairwise(figures)
        if of.lower_next is not None
    )
    after = f"; one draw comes out lower at the next K in {lower}" if lower else ""
    return f"{name}: the standard deviation of a single draw is, in points, {by_k}{after}."


def _explained(rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    draws = next(iter(rows.values()))[0].episodes
    return html_list(
        [
            "accuracy: mean over seeds, draws and query classes; support and query share no image.",
            "over seeds: Student t on the runs' accuracies, what training again would change.",
            f"over draws: Student t on {draws} draws of support images (or episodes), each the "
            "mean over seeds: how well the mean is known for these classes and these weights.",
            "over classes: bootstrap over the query classes, what other classes would change.",
            "untrained, raw pixels: the floor, the same head on the same episodes; raw pixels are "
            "images averaged to 16x16.",
        ]
    )


def page(out: Path, study: Study, study_text: str, results: StudyResults) -> None:
    """`report.html`, and its pictures, from what `tabulate` gives; `study_text`: as a file."""
    main, *others = settings(results)
    missing = [f"{row}: no finished run" for row in study.rows if row not in results.rows]
    missing += [f"{name}: {why}" for name, why in results.failed.items()]
    parts = [
        f'<p class="quiet">{html.escape(study.summary)}</p>' if study.summary else "",
        html_list(missing) if missing else "",
        f"<h2>Accuracy</h2>{_accuracy(out, main, study.notes)}",
        f"<h2>Rows against each other</h2>{_against(results, main)}" if len(main) > 1 else "",
        f"<h2>Draws</h2>{_draws(out, main)}",
        "<h2>Other settings</h2>" if others else "",
        *(f"<h3>{html.escape(title(rows))}</h3>{html_table(*table(rows))}" for rows in others),
        f"<h2>Confusion</h2>{_confusion(main)}",
        _training(out, results),
        f"<h2>Cost</h2>{html_table(*costs(results))}",
        f"<h2>Settings</h2>{_study_file(study_text, results)}",
        f"<h2>Made by</h2>{made_by(results.manifest)}",
    ]
    write_page(out, f"Study {study.name}", "".join(parts), study_verdict(results, main))


def _any_published(rows: Mapping[str, Sequence[StudyFigures]]) -> bool:
    return any(of.published is not None for figures in rows.values() for of in figures)


def _accuracy(out: Path, rows: Mapping[str, Sequence[StudyFigures]], notes: Sequence[str]) -> str:
    pictures.rows_over_k(rows, out / "k_shot.svg")
    drawn = html_picture(
        out / "k_shot.svg",
        "Accuracy of every row against K",
        "Bars: 95 % intervals over draws. The dotted line is guessing.",
    )
    heading = "Beside the published figures" if _any_published(rows) else "What was asked"
    noted = f"<h3>{heading}</h3>{html_list(notes)}" if notes else ""
    return (
        f"{drawn}<h3>{html.escape(title(rows))}</h3>{html_table(*table(rows))}{noted}"
        f'<div class="quiet">{_explained(rows)}</div>'
    )


def _draws(out: Path, rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    pictures.draws(rows, out / "draws.svg")
    drawn = html_picture(
        out / "draws.svg",
        "Accuracy of every draw of support images",
        "Every dot is one draw of support images with one training seed; bars hold 95 % of them"
        f"{'; a red cross is the published figure, one draw' if _any_published(rows) else ''}.",
    )
    return drawn + html_list(spread(name, figures) for name, figures in rows.items())


def _against(results: StudyResults, rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    tables = "".join(
        f"<h3>K = {of.k_shot}</h3>{html_table(*differences(results, [*rows], of))}"
        for of in next(iter(rows.values()))
    )
    return (
        f'{tables}<p class="quiet">{html.escape(title(rows))}. Line minus column in percentage '
        "points. p over draws: paired t test of the draws' accuracies, each the mean over seeds. p "
        "over classes: paired t test of the query classes' accuracies; with few classes it is the "
        "one to trust for others. Neither is corrected for the number of pairs of rows.</p>"
    )


def _confusion(rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    """Of every row the K nearest 5, of all draws and seeds."""
    nearest = [min(figures, key=lambda of: abs(of.k_shot - 5)) for figures in rows.values()]
    named = {f"{n}, K = {of.k_shot}": of for n, of in zip(rows, nearest, strict=True)}
    return confusion_table.section(named, next(iter(named)))


def _training(out: Path, results: StudyResults) -> str:
    """The curves of the rows with validation classes, where there are any."""
    curves = {
        name: [run.records for run in row.runs]
        for name, row in results.rows.items()
        if any("pair_accuracy" in record for run in row.runs for record in run.records)
    }
    if not curves:
        return ""
    pictures.pair_curves(curves, out / "curves.svg")
    drawn = html_picture(
        out / "curves.svg",
        "Pair accuracy over the steps",
        "Same or different: pairs by one threshold on the distance, the best for the training "
        "classes' pairs.",
    )
    return f"<h2>Training</h2>{drawn}"


def _study_file(text: str, results: StudyResults) -> str:
    """The study as a file, what the command changed, and the folders of its runs."""
    changed = [layer for layer in results.changed if layer]
    folders = html_list(run.folder for row in results.rows.values() for run in row.runs)
    return (
        f'<details><summary>As a file</summary><pre tabindex="0">{html.escape(text)}</pre>'
        f"</details>{html_list(f'changed by the command: {json.dumps(c)}' for c in changed)}"
        f"<details><summary>Run folders</summary>{folders}</details>"
    )

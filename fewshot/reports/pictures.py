"""Pictures. Figures only, no pyplot: nothing global, nothing shown."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import LogLocator

from ..core.errors import OutputError
from ..core.figures import Interval, KShotRow, StudyFigures, UnknownRow
from ..core.files import replacing
from ..core.interfaces import Dataset
from ..core.seeding import generator
from .page import percent

# A name, a colour, and by K a figure with its interval.
Line = tuple[str, str, list[tuple[float, Interval]]]

_MOST = 40  # classes in one picture
_OURS, _FLOOR, _UNTRAINED, _RIGHT, _WRONG = "#1f6feb", "#8c959f", "#d4a72c", "#1a7f37", "#cf222e"


# Where one of these is installed, letters that matplotlib's own font lacks are drawn with it.
_MORE_FONTS = {
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Zen Hei", "Unifont",
    "Arial Unicode MS", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Noto Sans Thai",
    "Noto Sans Arabic", "Noto Sans Devanagari",
}  # fmt: skip


@cache
def _fonts() -> tuple[list[str], frozenset[int]]:
    """Font families, one for what the ones before it lack, and the letters that they have."""
    there = {font.name for font in fontManager.ttflist}
    families = ["DejaVu Sans", *sorted(_MORE_FONTS & there)]
    letters = [get_font(fontManager.findfont(name)).get_charmap() for name in families]
    return families, frozenset().union(*letters)


# An SVG's colours in the dark, by those it is drawn in; the others can be read on either ground.
_DARK = {
    "#000000": "#e6edf3", "#ffffff": "#0d1117", _OURS: "#4493f8", _RIGHT: "#3fb950",
    _WRONG: "#f85149", "#8c564b": "#c49c94",
}  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    """Write a picture; an SVG has no ground of its own and is light or dark as its reader's is."""
    drawn = path.suffix == ".svg"
    look: Any = {"font.sans-serif": _fonts()[0]}
    look |= {"svg.fonttype": "none", "svg.hashsalt": "fewshot"}  # letters as such, the same ids
    try:
        with replacing(path) as temporary, rc_context(look):
            metadata = {"Date": None} if drawn else None
            figure.savefig(temporary, dpi=110, transparent=drawn, metadata=metadata)
            if drawn:
                text = temporary.read_text("utf-8")
                temporary.write_text(text.replace("</style>", f"{_dark()}</style>", 1), "utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: picture cannot be written: {why}") from error


def _dark() -> str:
    rules = "text{fill:#e6edf3}"
    for light, dark in _DARK.items():
        for what in ("fill", "stroke"):
            rules += f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
    return f":root{{color-scheme:light dark}}@media (prefers-color-scheme:dark){{{rules}}}"


def _plain(name: str) -> str:
    """A class name as it is, not as a formula; letters that no font has by their numbers."""
    letters = _fonts()[1]
    drawn = (c if ord(c) in letters else f"<{ord(c):x}>" for c in name)
    return "".join(drawn).replace("$", r"\$")


def _short(name: str) -> str:
    """The end of a long name, which tells one class from the next."""
    return name if len(name) <= 12 else f"…{name[-11:]}"


def curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Training loss, validation score and pair accuracy against the step.

    Without validation classes the loss alone.
    """
    panels: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
        ({"ylabel": "loss", "ylim": (0, None)}, [("loss", "training", _OURS)]),
        ({"ylim": (0, 1)}, [("score", "accuracy, validation classes", _OURS)]),
        (
            {"ylim": (0.4, 1)},
            [
                ("train_pair_accuracy", "pair accuracy, training classes", _FLOOR),
                ("pair_accuracy", "pair accuracy, validation classes", _OURS),
                ("auc", "pair ROC AUC, validation classes", _UNTRAINED),
            ],
        ),
    ]
    measured = {name for record in records for name in record} | {"loss"}
    panels = [(look, of) for look, of in panels if measured & {name for name, _, _ in of}]
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (look, of) in zip(grid, panels, strict=True):
        for name, label, colour in of:
            points = [(r["step"], r[name]) for r in records if name in r]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label, markersize=3)
        axes.set(xlabel="step", **look)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(fontsize=8)
    _save(figure, path)


def k_shot(rows: Sequence[KShotRow], trained: bool, path: Path) -> None:
    """Accuracy against K with 95 % intervals, above the floor rows and chance."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    shots = [row.k_shot for row in rows]
    for label, colour, points in k_shot_lines(rows, trained):
        _with_intervals(axes, shots, points, colour, label)
    _over_k(axes, shots, rows[0].n_way)
    figure.legend(fontsize=8, loc="outside upper center", ncols=4)
    _save(figure, path)


def k_shot_lines(rows: Sequence[KShotRow], trained: bool) -> list[Line]:
    """What `k_shot` draws: name, colour, and by K a figure with its interval.

    Where nothing was trained and the network came with random weights, these are one line.
    """
    before = [
        (row.untrained, row.untrained_ci95)
        for row in rows
        if row.untrained is not None and row.untrained_ci95 is not None
    ]
    ours = [(row.accuracy, row.ci95) for row in rows]
    names = ("trained", "untrained backbone") if trained else ("as it came", "random weights")
    if before == ours and not trained:
        names, before = ("untrained backbone", ""), []
    lines: list[Line] = [
        (names[0], _OURS, ours),
        *([(names[1], _UNTRAINED, before)] if before else []),
        ("raw pixels", _FLOOR, [(row.floor, row.floor_ci95) for row in rows]),
    ]
    gains = [row.adapter for row in rows if row.adapter is not None]
    if gains:
        lines[0] = (f"{names[0]}, adapted", *lines[0][1:])
        without = [(gain.frozen, gain.frozen_ci95) for gain in gains]
        lines.insert(1, ("without the adapter", _RIGHT, without))
    return lines


def _with_intervals(
    axes: Axes,
    shots: Sequence[int],
    points: Sequence[tuple[float, Interval]],
    colour: str,
    label: str,
) -> None:
    """A line of figures against K, each with its interval."""
    middle = np.array([value for value, _ in points])
    low, high = np.array([ends for _, ends in points]).T
    error = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(shots, middle, error, fmt="o-", capsize=3, color=colour, label=label)


def _over_k(axes: Axes, shots: Sequence[int], n_way: int) -> None:
    """Axes of accuracy against K, with chance."""
    axes.axhline(1 / n_way, color="black", linestyle=":", label="chance")
    axes.set(
        xscale="symlog" if 0 in shots else "log", xlabel="K (support images per class)",
        ylim=(0, 1), ylabel=f"accuracy, {n_way}-way",
    )  # fmt: skip
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def rows_over_k(rows: Mapping[str, Sequence[StudyFigures]], path: Path) -> None:
    """Accuracy of a study's rows against K, 95 % intervals over draws; published figures dashed."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    of_any = next(iter(rows.values()))
    for i, (name, figures) in enumerate(rows.items()):
        shots = [of.k_shot for of in figures]
        label = _plain(name)
        points = [(of.accuracy, of.ci95_draws) for of in figures]
        _with_intervals(axes, shots, points, f"C{i}", label)
        printed = [(of.k_shot, of.published) for of in figures if of.published is not None]
        if printed:
            label = f"{label}, published"
            axes.plot(*zip(*printed, strict=True), "x--", color=f"C{i}", label=label, alpha=0.7)
    shots = [of.k_shot for of in of_any]
    floor = [of.floor for of in of_any]
    axes.plot(shots, floor, "s-", color=_FLOOR, markersize=4, label="raw pixels")
    _over_k(axes, shots, of_any[0].n_way)
    figure.legend(fontsize=8, loc="outside right upper")
    _save(figure, path)


def _panels(count: int, across: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels with one y axis."""
    down = -(-count // across)
    size = (3.9 * min(count, across), 3.1 * down)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, min(count, across), squeeze=False, sharey=True).ravel().tolist()
    for axes in grid[count:]:
        axes.axis("off")
    for axes in grid[:count]:
        axes.grid(alpha=0.25)
    return figure, grid[:count]


def draws(rows: Mapping[str, Sequence[StudyFigures]], path: Path) -> None:
    """Every single draw of support images as a dot, against K; where 95 % of them lie."""
    figure, panels = _panels(len(rows))
    rng = generator(0, "jitter")
    for axes, (name, figures) in zip(panels, rows.items(), strict=True):
        for at, of in enumerate(figures):
            values = np.ravel(of.per_draw)
            beside = at + rng.uniform(-0.25, 0.25, len(values))
            axes.plot(
                beside, values, ".", color=_OURS, alpha=0.5, markersize=4,
                rasterized=True,  # so many are large as an SVG
            )  # fmt: skip
            low, middle, high = np.percentile(values, [2.5, 50, 97.5])
            axes.errorbar(
                at, middle, [[middle - low], [high - middle]], fmt="_", color="black", capsize=5
            )
            if of.published is not None:
                axes.plot(at, of.published, "x", color=_WRONG)
        axes.set_xticks(range(len(figures)), [str(of.k_shot) for of in figures])
        axes.set(title=_plain(name), xlabel="K", ylim=(0, 1))
    panels[0].set_ylabel("accuracy of one draw")
    _save(figure, path)


def pair_curves(rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Pair accuracy against the step, on training and validation classes: a line for each run."""
    figure, panels = _panels(len(rows))
    for axes, (name, runs) in zip(panels, rows.items(), strict=True):
        for records in runs:
            for key, colour in (("train_pair_accuracy", _FLOOR), ("pair_accuracy", _OURS)):
                points = [(r["step"], r[key]) for r in records if key in r]
                if points:
                    axes.plot(*zip(*points, strict=True), ".-", color=colour, linewidth=1)
        axes.set(title=_plain(name), xlabel="step", ylim=(0.4, 1))
    panels[0].set_ylabel("pair accuracy")
    for key, colour in (("training classes", _FLOOR), ("validation classes", _OURS)):
        panels[0].plot([], [], color=colour, label=key)
    panels[0].legend(fontsize=8, loc="lower right")
    _save(figure, path)


def trials(records: Sequence[Mapping[str, Any]], keys: Sequence[str], path: Path) -> None:
    """A search's scores against each parameter: every fold, and their mean."""
    done, failed = ([r for r in records if ("score" in r) == is_done] for is_done in (True, False))
    scores = [record["score"] for record in done]
    across = min(3, len(keys))
    down = -(-len(keys) // across)
    figure = Figure(figsize=(3.4 * across + 0.6, 2.9 * down), layout="constrained")
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, key in zip(grid.flat, keys, strict=False):
        values = [record["values"][key] for record in [*done, *failed]]
        at: Any = values
        if any(isinstance(value, bool | str | list | dict) for value in values):
            labels = sorted({str(value) for value in values})
            at = [labels.index(str(value)) for value in values]
            axes.set_xticks(range(len(labels)), [_plain(x) for x in labels], fontsize=7)
            axes.set_xlim(-0.5, len(labels) - 0.5)
        elif min(values) > 0 and max(values) > 10 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        for x, record in zip(at, done, strict=False):
            folds = record["folds"]
            axes.plot([x] * len(folds), folds, ".", color=_FLOOR, alpha=0.5, markersize=4)
        best = int(np.argmax(scores))
        axes.plot(at[: len(done)], scores, "o", color=_OURS, label="mean of the folds")
        axes.plot(at[best], scores[best], "*", color=_RIGHT, markersize=14, label="best")
        if failed:
            below = axes.get_xaxis_transform()
            bottom = [0.02] * len(failed)
            axes.plot(at[len(done) :], bottom, "x", color=_WRONG, transform=below, label="failed")
        axes.set_xlabel(key)
        axes.grid(alpha=0.25)
    for axes in grid.flat[len(keys) :]:
        axes.axis("off")
    for line in grid:
        line[0].set_ylabel("accuracy, held-out classes")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    _save(figure, path)


# ---------------------------------------------------------------------------- photos


def examples(dataset: Dataset, path: Path, per_class: int = 8) -> None:
    """A data set's examples, evenly spread over its images: one row a class, `_MOST` classes.

    In one pair of axes: a pair for each photo takes seconds to draw.
    """
    total, rows = len(dataset.classes), min(_MOST, len(dataset.classes))
    left, top = 1.2, 0.4 if rows < total else 0.0
    figure = Figure(figsize=(left + per_class, top + rows))
    axes = figure.add_axes((0, 0, 1, 1))
    if rows < total:
        title = f"{rows} of {total} classes"
        axes.text((per_class - left) / 2, -0.1, title, ha="center", fontsize=9, va="bottom")
    for row, c in enumerate(np.linspace(0, total - 1, rows).astype(int).tolist()):
        of_class = np.flatnonzero(dataset.labels == c)
        few = min(per_class, len(of_class))
        middle = row + 0.5
        for column, i in enumerate(of_class[np.linspace(0, len(of_class) - 1, few).astype(int)]):
            edges = (column + 0.04, column + 0.96, middle + 0.46, middle - 0.46)
            image = dataset[int(i)].squeeze()
            axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=edges)
        name = _plain(_short(dataset.classes[c]))
        axes.text(-0.05, middle, name, ha="right", va="center", fontsize=8)
    axes.set(aspect="auto", xlim=(-left, per_class), ylim=(rows, -top))
    axes.axis("off")
    _save(figure, path)


def layers(title: str, rows: Sequence[tuple[str, str, int]], path: Path) -> None:
    """A network as a column of boxes: (layer, output shape, parameters) each, input first."""
    figure = Figure(figsize=(6.5, 0.42 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots()
    for i, (name, shape, parameters) in enumerate(rows):
        weight = f"{parameters:,} parameters" if parameters else ""
        axes.text(
            0.03, -i, name, va="center", fontsize=9,
            bbox={"boxstyle": "round,pad=0.35", "facecolor": "#ddf4ff" if parameters else "white"},
        )  # fmt: skip
        axes.text(0.5, -i, shape, va="center", ha="center", fontsize=9)
        axes.text(0.99, -i, weight, va="center", ha="right", fontsize=9)
    total = sum(parameters for _, _, parameters in rows)
    axes.set(xlim=(0, 1), ylim=(-len(rows) + 0.4, 0.6), title=f"{title}: {total:,} parameters")
    axes.axis("off")
    _save(figure, path)


def calibration(row: UnknownRow, path: Path) -> None:
    """Of test classes: distances of known and unknown, and reliability."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    test = row.test
    distances = test.distances
    for label, of_class, colour in (
        ("known class", distances.known, _OURS),
        ("unknown class", distances.unknown, _WRONG),
    ):
        counts = np.array(of_class) / test.queries
        left.stairs(counts, distances.edges, fill=True, alpha=0.45, color=colour)
        left.stairs(counts, distances.edges, color=colour, label=label)
    left.axvline(row.threshold, color="black", linestyle=":", label="threshold")
    left.set(
        xlabel="distance to the nearest class", ylabel="share of queries",
        title=f"K = {row.k_shot}, test classes: AUROC {test.auroc:.3f}",
    )  # fmt: skip
    left.legend(fontsize=8)
    right.plot([0, 1], [0, 1], color="black", linestyle=":")
    for label, bins, ece, colour in (
        ("as the scores are", test.reliability_uncalibrated, test.ece_uncalibrated, _FLOOR),
        ("calibrated", test.reliability, test.ece, _OURS),
    ):
        sure, accuracy, _ = zip(*bins, strict=True)
        label = f"{label}: ECE {percent(ece)}"
        right.plot(sure, accuracy, "o-", color=colour, label=label, markersize=3)
    right.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    right.legend(fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    _save(figure, path)

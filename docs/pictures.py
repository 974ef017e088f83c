"""The pictures of the explanations, drawn from the project's own metrics, losses and data."""

from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
from matplotlib.figure import Figure

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.engine.statistics import t_interval
from fewshot.experiments.config import resolve
from fewshot.experiments.folder import read_results
from fewshot.experiments.run import run
from fewshot.reports.pictures import calibration

FOLDER = Path(__file__).parent / "pictures"
_COLOURS = ("#1f6feb", "#d4a72c", "#1a7f37", "#cf222e")


def draw_all() -> None:
    """Draw them all into `docs/pictures`."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as place:
        folder = short_run(Path(place) / "run")
        row = min(read_results(folder).unknown, key=lambda row: abs(row.k_shot - 5))
        calibration(row, FOLDER / "calibration.png")
    for name, figure in (
        ("metrics", metrics()),
        ("losses", losses()),
        ("episode", episode()),
        ("intervals", intervals()),
    ):
        figure.savefig(FOLDER / f"{name}.png", dpi=110, bbox_inches="tight")


def metrics() -> Figure:
    """Distances from one point of the plane, and between unit vectors by their angle."""
    chosen = {
        "euclidean": fs.euclidean(), "sqeuclidean": fs.sqeuclidean(),
        "cosine": fs.cosine(), "manhattan": fs.manhattan(),
    }  # fmt: skip
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    *planes, curves = figure.subplots(1, 5)
    side = np.linspace(-2, 2, 201, dtype=np.float32)
    plane = np.stack(np.meshgrid(side, side), axis=-1)
    angle = np.linspace(0, np.pi, 100, dtype=np.float32)
    circle = mx.array(np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    point = mx.array([1.0, 0.5])
    for axes, colour, (name, metric) in zip(planes, _COLOURS, chosen.items(), strict=True):
        distances = np.array(metric.fn(mx.array(plane), point))
        lines = axes.contour(side, side, distances, np.arange(0.25, 3, 0.25), cmap="viridis_r")
        axes.clabel(lines, lines.levels[1::2], fontsize=6)
        axes.plot(1.0, 0.5, "k.")
        axes.set(title=name, aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
        curves.plot(np.degrees(angle), metric.fn(circle[:1], circle), color=colour, label=name)
    curves.set(title="unit vectors", xlabel="angle between them, °", xticks=[0, 90, 180])
    curves.legend(fontsize=6)
    return figure


def losses() -> Figure:
    """What each loss asks for."""
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    pairs, triplets, queries = figure.subplots(1, 3)
    distance = mx.linspace(0, 2, 101)
    loss = fs.contrastive(fs.ContrastiveOptions(margin=1.0))
    pairs.plot(distance, loss.fn(distance, mx.array(True)), color=_COLOURS[2], label="same class")
    pairs.plot(distance, loss.fn(distance, mx.array(False)), color=_COLOURS[3], label="different")
    pairs.set(title="contrastive, m = 1", xlabel="D", ylabel="loss", ylim=(0, 1.5))
    difference = mx.linspace(-1, 1, 101)
    loss = fs.triplet(fs.TripletOptions(margin=0.3))
    triplets.plot(difference, loss.fn(difference + 1, mx.ones(101)), color=_COLOURS[0])
    triplets.set(title="triplet, m = 0.3", xlabel="D(anchor, pos.) − D(anchor, neg.)")
    for temperature, colour in ((1.0, _COLOURS[1]), (0.0625, _COLOURS[0])):
        loss = fs.prototypical(fs.PrototypicalOptions(temperature=temperature))
        scores = mx.stack([-distance, mx.full(101, -1.0)], axis=-1)
        values = loss.fn(scores, mx.zeros(101, mx.int32))
        queries.plot(distance, values, color=colour, label=f"T = {temperature:g}")
    queries.set(
        title="prototypical, 2-way", xlabel="D to its own prototype (other: 1)", ylim=(0, 5)
    )
    for axes in (pairs, queries):
        axes.legend(fontsize=8)
    for axes in (pairs, triplets, queries):
        axes.grid(alpha=0.25)
    return figure


def episode() -> Figure:
    """A 3-way 2-shot episode of drawn signs: support left, queries right."""
    from fewshot_asl.synthetic import SyntheticOptions, synthetic

    data = synthetic(SyntheticOptions(images=20))
    chosen = fs.EpisodesOptions(n_way=3, k_shot=2, n_query=3)
    task = fs.episodes(chosen, data.labels).draw(1, 0)
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    grid = figure.subplots(3, 6)
    for label, row in enumerate(grid):
        support = task.items[task.support[task.support_labels == label]]
        queries = task.items[task.query[task.query_labels == label]]
        row[2].axis("off")
        for axes, item in zip([*row[:2], *row[3:]], [*support, *queries], strict=True):
            axes.imshow(data[int(item)])
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(data.classes[int(task.classes[label])], rotation=0, ha="right")
    grid[0, 0].set_title("support", loc="left")
    grid[0, 3].set_title("query", loc="left")
    return figure


def short_run(folder: Path, size: int = 32) -> Path:
    """A run of 200 steps on drawn signs."""
    registry, _ = build_registry()
    layer = {
        "preset": "conv4-episodic",
        "dataset": {"name": "asl-synthetic", "size": size, "images": 60},
        "backbone": {"width": 32},
        "training": {"steps": 200},
        "evaluation": {"repeats": 3, "k_shot": [5]},
    }
    return run(resolve(registry, [layer]), registry, folder)


def intervals() -> Figure:
    """How far single draws lie from the truth, and what intervals over episodes and classes say.

    A simulation: six classes whose true accuracies differ, 20 draws with noise of their own.
    """
    rng = fs.generator(0, "intervals")
    truth = 0.7 + 0.15 * rng.standard_normal((200, 6))
    per_class = truth[:, None, :] + 0.05 * rng.standard_normal((200, 20, 6))
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for i, runs in enumerate(per_class[:12]):
        draws = runs.mean(axis=1)
        classes = runs.mean(axis=0)
        axes.plot(np.full(20, i), draws, ".", color="#8c959f", markersize=3)
        for offset, values, colour in ((-0.15, draws, _COLOURS[0]), (0.15, classes, _COLOURS[1])):
            low, high = t_interval(values)
            middle, half = (low + high) / 2, (high - low) / 2
            axes.errorbar(i + offset, middle, half, color=colour, capsize=3, fmt="o", ms=3)
    axes.axhline(0.7, color="black", linestyle=":")
    axes.set(xlabel="another six classes each time", ylabel="accuracy", xticks=[])
    axes.plot([], [], "o-", color=_COLOURS[0], label="95 % over draws: these classes")
    axes.plot([], [], "o-", color=_COLOURS[1], label="95 % over classes: classes like these")
    axes.plot([], [], ".", color="#8c959f", label="one draw")
    axes.legend(fontsize=7, loc="lower right")
    return figure

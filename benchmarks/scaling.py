"""How time grows with images, classes, K, episodes and cores."""

import math
import os
import time
from statistics import median
from typing import Any

import numpy as np
from attrs import frozen

from . import network
from .episodes import clusters
from .images import smooth_images
from .settings import Settings
from .sides import Result, alternate, seconds, side
from .worker import Turn

# ------------------------------------- turns whose n is the size, not the number of iterations


def images() -> tuple[dict[str, Any], Turn]:
    """Embedding n images."""
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    some, _ = smooth_images(1, 128)

    def turn(n: int) -> dict[str, Any]:
        many = np.resize(some, (n, *some.shape[1:]))
        data = fs.from_arrays(many, np.zeros(n, np.int64))
        began = time.perf_counter()
        fs.embed(embedder, data)
        return {"each": time.perf_counter() - began}

    return {}, turn


def _evaluation(n_way: int, k_shot: int, count: int) -> dict[str, Any]:
    import fewshot as fs

    embeddings, labels = clusters(classes=max(20, n_way), per_class=k_shot + 30)
    classes = [str(c) for c in range(labels.max() + 1)]
    options = fs.EpisodesOptions(n_way=n_way, k_shot=k_shot, n_query=15)
    sampler = fs.episodes(options, labels)
    began = time.perf_counter()
    fs.evaluate(
        embeddings, sampler.blocks(0, count), fs.nearest_prototype(), fs.euclidean(), classes
    )
    return {"each": time.perf_counter() - began}


def _prepared(turn: Turn) -> tuple[dict[str, Any], Turn]:
    import fewshot as fs

    fs.prepare()
    return {}, turn


def classes() -> tuple[dict[str, Any], Turn]:
    """Evaluating 50 episodes of n classes, 5-shot."""
    return _prepared(lambda n: _evaluation(n, 5, 50))


def k_shot() -> tuple[dict[str, Any], Turn]:
    """Evaluating 50 5-way episodes with n support images of each class."""
    return _prepared(lambda n: _evaluation(5, n, 50))


def episodes() -> tuple[dict[str, Any], Turn]:
    """Evaluating n 5-way 5-shot episodes."""
    return _prepared(lambda n: _evaluation(5, 5, n))


# ---------------------------------------------------------------------------------- the row


@frozen
class Curve:
    """What grows, in which function above, and the sizes."""

    name: str
    label: str
    sizes: tuple[int, ...]


CURVES = (
    Curve("images", "images embedded", (250, 500, 1000, 2000, 4000, 8000, 16000)),
    Curve("classes", "classes, 50 episodes of K = 5", (5, 10, 20, 50, 100, 200)),
    Curve("k_shot", "K, 50 episodes of 5 classes", (1, 5, 10, 50, 100, 500, 1000)),
    Curve("episodes", "episodes, 5-way 5-shot", (100, 300, 1000, 3000, 10000)),
)


def _grown(curve: Curve, settings: Settings) -> dict[str, Any]:
    largest = max(curve.sizes[1], settings.scale * curve.sizes[-1])
    sizes = [size for size in curve.sizes if size <= largest]
    rounds = min(3, settings.rounds)
    with side(f"scaling:{curve.name}") as part:
        part.ask(sizes[0])  # sets up what is set up lazily
        times = [[part.ask(size)["each"] for size in sizes] for _ in range(rounds)]
    middle = [median(column) for column in zip(*times, strict=True)]
    return {"label": curve.label, "sizes": sizes, "seconds": middle}


def growth(sizes: list[int], times: list[float]) -> float:
    """The power of the size that time grows with, between the two largest sizes."""
    return math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])


def _by_cores(settings: Settings) -> dict[str, Any] | None:
    """Seconds of a training step on the first 1, 2, … cores; None where they can't be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    counts = sorted({*(2**i for i in range(len(cores).bit_length())), len(cores)})
    counts = [count for count in counts if count <= len(cores)]
    middle = []
    for count in counts:
        with side("step:ours", pairs=settings.pairs, cores=cores[:count]) as part:
            (replies,) = alternate([part], settings)
        middle.append(median(seconds(replies)))
    return {"label": "cores, one training step", "sizes": counts, "seconds": middle}


def measure(settings: Settings) -> Result:
    """Every curve."""
    curves = {curve.name: _grown(curve, settings) for curve in CURVES}
    by_cores = _by_cores(settings)
    powers = ", ".join(f"{n} {growth(c['sizes'], c['seconds']):.2f}" for n, c in curves.items())
    note = f"as this power of the number, where it is largest: {powers}"
    if by_cores is not None:
        curves["cores"] = by_cores
        faster = by_cores["seconds"][0] / by_cores["seconds"][-1]
        note += f"; a training step on {by_cores['sizes'][-1]} cores is {faster:.2f} x one core's"
    return Result(
        what="how time grows with the size of a task", ours="see below", note=note, figures=curves
    )

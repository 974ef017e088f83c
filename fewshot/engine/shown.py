"""What episodes look like: where their images lie, and which queries went wrong."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ..core.draws import Episode, Ints
from ..core.interfaces import Metric
from ..core.seeding import generator
from ..core.shown import Shown, WrongAnswer

_IMAGES = 240  # on a map
_CLASSES = 100
_MOST = 12  # wrong answers
_LOOKED_AT = 1000  # of the wrong answers, for the worst
_STEPS = 200


def shown(
    rows: NDArray[np.float32], tasks: Sequence[Episode], answers: Sequence[Ints], metric: Metric
) -> Shown:
    """The answers (q,) of an episode, or of each of a leave-one-out, a map and the worst mistakes.

    `rows`: embeddings (n, d) of the dataset. `metric`: what tells which mistake is worst.
    """
    items, found = mapped(tasks), wrong(rows, tasks, answers, metric)
    return Shown(tuple(tasks), tuple(answers), items, plane(rows[items]), found)


def mapped(tasks: Sequence[Episode]) -> Ints:
    """Dataset indices (m,) of the images on the map: of every class asked, support and queries.

    At most 240 images of 100 classes, evenly spread.
    """
    query = np.concatenate([task.items[task.query] for task in tasks])
    query_labels = np.concatenate([task.query_labels for task in tasks])
    support, support_labels = tasks[0].items[tasks[0].support], tasks[0].support_labels
    unasked = ~np.isin(support, query)
    labels = _spread(np.unique(query_labels), _CLASSES)
    each = max(2, _IMAGES // max(1, len(labels)))
    chosen: list[Ints] = []
    for label in labels:
        kept = _spread(support[unasked & (support_labels == label)], max(1, each // 2))
        chosen += [kept, _spread(query[query_labels == label], each - len(kept))]
    return np.unique(np.concatenate(chosen))


def _spread(values: Ints, most: int) -> Ints:
    """At most so many of some values, evenly spread."""
    few = min(most, len(values))
    return values[np.linspace(0, len(values) - 1, few).astype(int)] if few else values[:0]


def plane(rows: NDArray[np.float32], perplexity: float = 15.0) -> NDArray[np.float64]:
    """Points (n, 2) whose neighbours are the neighbours of rows (n, d), in -1 to 1.

    van der Maaten & Hinton 2008, "Visualizing Data using t-SNE", exact, begun with the first two
    principal components. Distances between far groups mean nothing.
    """
    n = len(rows)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    start = (left * sizes)[:, :2]
    start = np.pad(start, ((0, 0), (0, 2 - start.shape[1])))
    # Images that are alike must not lie on each other, where no gradient parts them.
    start = start / (start.std() or 1.0) * 1e-2 + generator(0, "map").normal(0, 1e-4, (n, 2))
    if n < 4:
        return _scaled(start)
    near = _neighbours(_squared(centred), min(perplexity, (n - 1) / 3))
    y, velocity, gains = start, np.zeros((n, 2)), np.ones((n, 2))
    for step in range(_STEPS):
        weights = 1 / (1 + _squared(y))
        np.fill_diagonal(weights, 0)
        early = 4.0 if step < 60 else 1.0  # their "early exaggeration"
        pull = (early * near - weights / weights.sum()) * weights
        gradient = 4 * (pull.sum(axis=1)[:, None] * y - pull @ y)
        gains = np.maximum(
            np.where((gradient > 0) == (velocity > 0), 0.8 * gains, gains + 0.2), 0.01
        )
        velocity = (0.5 if step < 60 else 0.8) * velocity - max(n / 4, 10.0) * gains * gradient
        y = y + velocity
        y -= y.mean(axis=0)
    return _scaled(y)


def _scaled(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """From -1 to 1 along both axes, which have no unit."""
    low, high = y.min(axis=0), y.max(axis=0)
    scaled: NDArray[np.float64] = (2 * y - low - high) / np.maximum(high - low, 1e-12)
    scaled.clip(-1, 1, out=scaled)  # of rounding
    return scaled


def _squared(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances (n, n) between rows."""
    norms = (x**2).sum(axis=1)
    squared: NDArray[np.float64] = np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)
    return squared


def _neighbours(squared: NDArray[np.float64], perplexity: float) -> NDArray[np.float64]:
    """Symmetric joint probabilities (n, n), their equation 1: every row's entropy is asked for."""
    n = len(squared)
    scaled = squared / (squared.mean() or 1.0)
    low, high = np.full((n, 1), 1e-3), np.full((n, 1), 1e3)
    np.fill_diagonal(scaled, np.inf)
    scaled -= scaled.min(axis=1, keepdims=True)  # so that the nearest counts at any beta
    p = np.zeros_like(scaled)
    for _ in range(25):
        beta = np.sqrt(low * high)
        p = np.exp(-beta * scaled)
        p /= p.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
    return (p + p.T) / (2 * n)


def wrong(
    rows: NDArray[np.float32], tasks: Sequence[Episode], answers: Sequence[Ints], metric: Metric
) -> tuple[WrongAnswer, ...]:
    """Queries that went wrong, the worst first, one of each class and answer, at most 12.

    Each beside the nearest support images. Worst: much nearer to the class answered than to its
    own, by these; without support images as they were asked.
    """
    found: list[tuple[float, WrongAnswer]] = []
    for task, given in zip(tasks, answers, strict=True):
        failed = np.flatnonzero(given != task.query_labels)
        for query in _spread(failed, _LOOKED_AT // len(tasks)).tolist():
            asked = int(task.items[task.query[query]])
            label, answer = int(task.query_labels[query]), int(given[query])
            (own, far), (taken, near) = _nearest(rows, task, asked, (label, answer), metric)
            found.append((near - far, WrongAnswer(asked, label, answer, own, taken)))
    worst: dict[tuple[int, int], WrongAnswer] = {}
    for _, each in sorted(found, key=lambda each: each[0]):
        worst.setdefault((each.label, each.answer), each)
    return tuple(worst.values())[:_MOST]


def _nearest(
    rows: NDArray[np.float32], task: Episode, asked: int, labels: Sequence[int], metric: Metric
) -> list[tuple[int | None, float]]:
    """Of each class, the support image nearest to the image `asked`, and its distance."""
    row, found = mx.array(rows[asked]), list[tuple[int | None, float]]()
    for label in labels:
        items = task.items[task.support[task.support_labels == label]]
        if not len(items):
            found.append((None, 0.0))
            continue
        distances = np.array(metric.fn(row[None], mx.array(rows[items])))
        found.append((int(items[distances.argmin()]), float(distances.min())))
    return found

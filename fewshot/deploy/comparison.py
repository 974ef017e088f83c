"""How queries compare with a support: a head's scores, and distances to classes and images."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map
from numpy.typing import NDArray

from ..compute.modules import evaluating
from ..core.interfaces import Head, Metric
from ..engine.calibration import Fitted, by_class

Floats = NDArray[np.float32]
Compared = tuple[Floats, Floats, Floats, Floats]
Compare = Callable[[Floats, bool], Compared]

# Of numbers in prototypes and support: up to here NumPy answers a query sooner than MLX is asked.
# The number of queries does not count: each gets the same answer alone or among others.
_FEW = 1 << 18


def comparison(to: Fitted, support: Floats, head: Head, metric: Metric, n_way: int) -> Compare:
    """A function of queries (q, d), and of whether distances to the support are wanted.

    It gives scores, logits and distances to the classes, (q, n_way), and to the support (s, d) of
    the fitted head: (q, s), or (q, 0). In NumPy where that is little work and the head's and the
    metric's formulas take its arrays and give the same.
    """
    every = mx.array(support)

    def in_mlx(query: Floats, neighbours: bool) -> Compared:
        asked = mx.array(query)
        rows = by_class(to, asked, head, metric, n_way)
        with evaluating(metric.fn):
            wanted = neighbours and len(support)
            each = metric.table(asked, every) if wanted else mx.zeros((len(query), 0))
        mx.eval(rows, each)
        scores, logits, distances, to_each = map(np.array, (*rows, each))
        return scores, logits, distances, to_each

    learned = head.module is not None or isinstance(metric.fn, nn.Module)
    plain = head.queries == "alone" and not head.votes and not learned
    if not plain or to.points.size + support.size > _FEW:
        return in_mlx
    state: Any = tree_map(lambda x: np.array(x) if isinstance(x, mx.array) else x, to.state)
    means: Any = np.array(to.points) if head.distances is None else support[:0]
    both: Any = np.concatenate([means, support])

    def in_numpy(query: Any, neighbours: bool) -> Compared:
        points = both if neighbours else means
        table: Any = np.zeros((len(query), 0), np.float32)
        with np.errstate(all="ignore"):  # as MLX
            scores: Any = head.scores(state, query, metric)
            if len(points):  # a query at a time: its differences stay in the cache
                table = np.stack([metric.fn(row, points) for row in query])
            to_class, to_each = table[:, : len(means)], table[:, len(means) :]
            if head.distances is not None:
                to_class = head.distances(state, query, scores)
        return scores, scores, to_class, to_each

    probe = np.roll(support[:1], 1, axis=1)
    try:
        agree = all(map(_same, in_numpy(probe, True), in_mlx(probe, True)))
    except Exception:  # as many kinds as there are functions of MLX that take no NumPy array
        return in_mlx
    return in_numpy if agree else in_mlx


def _same(found: Any, expected: Floats) -> bool:
    return (
        isinstance(found, np.ndarray)
        and (found.dtype, found.shape) == (expected.dtype, expected.shape)
        and np.allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    )

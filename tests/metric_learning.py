"""Batches that losses and miners see here and in pytorch-metric-learning."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from fewshot.compute.tables import without_own
from fewshot.core.interfaces import Metric

torch: Any = pytest.importorskip("torch")
distances: Any = pytest.importorskip("pytorch_metric_learning.distances")

Array = NDArray[Any]
Batch = tuple[Array, Array]

BATCHES = 200


def close(found: Array, due: Array, tolerance: float = 1e-5) -> bool:
    scale = max(1.0, float(np.abs(due).max(initial=0)))
    return found.shape == due.shape and bool((np.abs(found - due) <= tolerance * scale).all())


def batch(seed: int, b: int | None = None) -> Batch:
    """Embeddings (b, d) and labels (b,).

    In turn all different, with duplicates, with a zero vector, of one class, each image of its own,
    and one image alone.
    """
    rng = np.random.default_rng(seed)
    b = b or int(rng.integers(4, 13))
    x, labels = rng.normal(size=(b, int(rng.integers(2, 7)))), rng.integers(0, 3, b)
    kind = seed % 6
    if kind == 1:
        x[rng.integers(b, size=3)] = x[0]
    elif kind == 2:
        x[rng.integers(b)] = 0
    elif kind == 3:
        labels[:] = 1
    elif kind == 4:
        labels = rng.permutation(b)
    elif kind == 5 and seed % 12 == 5:
        x, labels = x[:1], labels[:1]
    return x.astype(np.float32), labels


def every() -> Iterator[Batch]:
    return (batch(seed) for seed in range(BATCHES))


class HalfSquares(distances.CosineSimilarity):
    """Cosine similarity as 1 − |x − y|² / 2 of the unit vectors: a zero vector's is 1/2, not 0."""

    def compute_mat(self, query: Any, ref: Any) -> Any:
        return 1 - ((query[:, None] - ref[None]) ** 2).sum(-1) / 2


def table(x: mx.array, metric: Metric) -> mx.array:
    return without_own(metric.table(x, x))


def labels_of_others(labels: Array) -> mx.array:
    b = len(labels)
    return without_own(mx.broadcast_to(mx.array(labels), (b, b)))

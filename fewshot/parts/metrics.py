"""Distances between embeddings: of MLX's arrays or, where a few are wanted at once, of NumPy's."""

import math
from typing import Any

import mlx.core as mx
import numpy as np

from ..core.components import Component
from ..core.interfaces import Metric
from ..core.options import NoOptions


def _of(x: Any) -> Any:
    """The module whose array this is."""
    return np if isinstance(x, np.ndarray) else mx


def _root(squares: mx.array) -> mx.array:
    """Square root with gradient 0 at 0: sqrt's own is infinite and turns weights into NaN."""
    zero, own = squares <= 0, _of(squares)
    return own.where(zero, 0.0, own.sqrt(own.where(zero, 1.0, squares)))


def unit(x: mx.array) -> mx.array:
    """Vectors at length 1; one shorter than 1e-12 counts as zero and stays so."""
    squares = (x * x).sum(axis=-1, keepdims=True)
    zero, own = squares < 1e-24, _of(x)  # below, the gradient of the root overflows
    lengths = own.where(zero, 1.0, squares)
    inverse = mx.rsqrt(lengths) if own is mx else 1 / np.sqrt(lengths)
    return own.where(zero, 0.0, x * inverse)


def _squares(x: mx.array, y: mx.array) -> mx.array:
    difference = x - y
    if isinstance(difference, np.ndarray):
        return np.einsum("...d,...d->...", difference, difference)
    return (difference * difference).sum(axis=-1)


def _squares_matrix(query: mx.array, points: mx.array) -> mx.array:
    """|q|² + |p|² - 2qp about the points' mean, which keeps the cancellation small."""
    centre = points.mean(axis=-2, keepdims=True)
    q, p = query - centre, points - centre
    lengths = _lengths(q) + _lengths(p).swapaxes(-1, -2)
    return _of(q).maximum(lengths - 2 * (q @ p.swapaxes(-1, -2)), 0)


def _lengths(x: mx.array) -> mx.array:
    """|x|² (…, n, 1) of (…, n, d), as products: on the CPU twice as fast as a sum.

    One product for every leading index, so that others beside it do not change its rounding.
    """
    if isinstance(x, np.ndarray):
        return np.einsum("...d,...d->...", x, x)[..., None]
    ones = mx.broadcast_to(mx.ones((x.shape[-1], 1)), (*x.shape[:-2], x.shape[-1], 1))
    return (x * x) @ ones


def euclidean(_: NoOptions = NoOptions()) -> Metric:
    """√Σ(x−y)² (not squared), at most 2 between unit vectors."""
    return Metric(
        fn=lambda x, y: _root(_squares(x, y)),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda _: 2.0,
        matrix=lambda q, p: _root(_squares_matrix(q, p)),
    )


def sqeuclidean(_: NoOptions = NoOptions()) -> Metric:
    """Σ(x−y)², at most 4 between unit vectors; keeps no triangle inequality."""
    return Metric(
        fn=_squares,
        laws=frozenset({"identity", "symmetry"}),
        upper=lambda _: 4.0,
        matrix=_squares_matrix,
    )


def cosine(_: NoOptions = NoOptions()) -> Metric:
    """1 − cos(x, y) in [0, 2], as half the squared distance of the unit vectors.

    That form is exactly 0 at x = y and has a finite gradient there. The distance of a zero vector
    to another is 1/2. Keeps no triangle inequality.
    """
    return Metric(
        fn=lambda x, y: _squares(unit(x), unit(y)) / 2,
        laws=frozenset({"identity", "symmetry", "scale_free", "cosine"}),
        upper=lambda _: 2.0,
        matrix=lambda q, p: _squares_matrix(unit(q), unit(p)) / 2,
    )


def manhattan(_: NoOptions = NoOptions()) -> Metric:
    """Σ|x−y|, at most 2√d between unit vectors of d numbers, as |x|₁ <= √d |x|₂."""
    return Metric(
        fn=lambda x, y: _of(x).abs(x - y).sum(axis=-1),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda d: 2 * math.sqrt(d),
    )


COMPONENTS = (
    Component("euclidean", euclidean, summary="√Σ(x−y)², not squared"),
    Component("sqeuclidean", sqeuclidean, summary="Σ(x−y)²; no triangle inequality"),
    Component("cosine", cosine, summary="1 − cos(x, y), a distance from 0 to 2"),
    Component("manhattan", manhattan, summary="Σ|x−y|"),
)

"""Distances between embeddings: of MLX's arrays or, where a few are wanted at once, of NumPy's."""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen

from ..core.components import Component
from ..core.errors import ConfigError
from ..core.interfaces import Metric
from ..core.options import NoOptions, option, positive


def module_of(x: Any) -> Any:
    """The module whose array this is."""
    return np if isinstance(x, np.ndarray) else mx


def _root(squares: mx.array) -> mx.array:
    """Square root with gradient 0 at 0: sqrt's own is infinite and turns weights into NaN."""
    zero, own = squares <= 0, module_of(squares)
    return own.where(zero, 0.0, own.sqrt(own.where(zero, 1.0, squares)))


def unit(x: mx.array) -> mx.array:
    """Vectors at length 1; one shorter than 1e-12 counts as zero and stays so."""
    squares = (x * x).sum(axis=-1, keepdims=True)
    zero, own = squares < 1e-24, module_of(x)  # below, the gradient of the root overflows
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
    lengths = squared_lengths(q) + squared_lengths(p).swapaxes(-1, -2)
    return module_of(q).maximum(lengths - 2 * (q @ p.swapaxes(-1, -2)), 0)


def squared_lengths(x: mx.array) -> mx.array:
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
        fn=lambda x, y: module_of(x).abs(x - y).sum(axis=-1),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda d: 2 * math.sqrt(d),
    )


def chebyshev(_: NoOptions = NoOptions()) -> Metric:
    """max|x−y|, at most 2 between unit vectors."""
    return Metric(
        fn=lambda x, y: module_of(x).abs(x - y).max(axis=-1),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda _: 2.0,
    )


# Numbers whose sizes sum to less count as if these summed to it: the gradient is within 1 / this.
_TINY = 1e-12


def canberra(_: NoOptions = NoOptions()) -> Metric:
    """Σ |x−y| / (|x|+|y|), at most d; 0 where both numbers are 0 (Lance & Williams 1966).

    Every number counts alike, however small: where two differ in sign, that is 1.
    """

    def fn(x: mx.array, y: mx.array) -> mx.array:
        own = module_of(x)
        sizes = own.maximum(own.abs(x) + own.abs(y), _TINY)
        return (own.abs(x - y) / sizes).sum(axis=-1)

    return Metric(fn, frozenset({"identity", "symmetry", "triangle"}), upper=float)


def braycurtis(_: NoOptions = NoOptions()) -> Metric:
    """Σ|x−y| / Σ(|x|+|y|), at most 1 (Bray & Curtis 1957, of numbers >= 0).

    For numbers of both signs it is not SciPy's, Σ|x−y| / Σ|x+y|, which has no bound: at y = −x
    it is infinite. Keeps no triangle inequality.
    """

    def fn(x: mx.array, y: mx.array) -> mx.array:
        own = module_of(x)
        sizes = own.maximum((own.abs(x) + own.abs(y)).sum(axis=-1), _TINY)
        return own.abs(x - y).sum(axis=-1) / sizes

    return Metric(fn, frozenset({"identity", "symmetry"}), upper=lambda _: 1.0)


class Mahalanobis(nn.Module):
    """√((x−y)'L'L(x−y)) of a learned `matrix` L' (d, d), the unit matrix to begin with."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.matrix = mx.eye(embedding_dim)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        """(…, d), (…, d) -> (…)."""
        difference = (x - y) @ self.matrix
        return _root((difference * difference).sum(axis=-1))


def mahalanobis(_: NoOptions = NoOptions(), *, embedding_dim: int) -> Metric:
    """√((x−y)'M(x−y)), M = L'L positive semidefinite and learned with the backbone.

    Weinberger & Saul 2009, equations 2 and 3, there squared. The unit matrix to begin with, which
    is euclidean; without a bound, as M may grow.
    """
    module = Mahalanobis(embedding_dim)
    return Metric(
        fn=module,
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda _: math.inf,
        matrix=lambda q, p: _root(_squares_matrix(q @ module.matrix, p @ module.matrix)),
    )


@frozen
class EmdOptions:
    """Options of the earth mover's distance."""

    regions: int = option(
        1,
        "regions of a map, whose vectors stand one after another in an embedding, such as 25 of "
        "conv4 on 84 pixels; 1: cosine",
        positive,
    )
    softness: float = option(0.05, "weight of the plan's entropy: less is exacter", positive)
    steps: int = option(
        50, "steps of Sinkhorn's algorithm: the less softness, the more are needed", positive
    )


def emd(options: EmdOptions = EmdOptions(), *, embedding_dim: int) -> Metric:
    """Σ cᵢⱼ tᵢⱼ: what it costs to move the regions of one map to those of another, at most 2.

    DeepEMD (Zhang et al. 2020, section 3): c is the cosine distance of two regions (eq. 3), what is
    moved from each max(0, uᵢ · mean v) (eq. 8, cross-reference), scaled to the sum 1. The plan t is
    entropic (Cuturi 2013, Sinkhorn in logarithms), so d(x, x) is not 0 and a distance a little
    above the exact one. It is taken for a constant in gradients, as is the exact plan's by the
    costs. Raises ConfigError where `embedding_dim` is not so many regions.
    """
    regions = options.regions
    if embedding_dim % regions:
        raise ConfigError(
            f"metric.regions={regions} does not divide the embedding's {embedding_dim} numbers: "
            "it is height x width of the backbone's last map, flattened"
        )
    if regions == 1:
        return cosine()

    def fn(x: mx.array, y: mx.array) -> mx.array:
        u, v = (unit(mx.array(each)).reshape(*each.shape[:-1], regions, -1) for each in (x, y))
        cost = _squares_matrix(unit(u), unit(v)) / 2
        plan = mx.stop_gradient(_plan(cost, _moved(u, v), _moved(v, u), options))
        return (cost * plan).sum(axis=(-1, -2))

    return Metric(fn, frozenset({"scale_free"}), upper=lambda _: 2.0)


def _moved(u: mx.array, v: mx.array) -> mx.array:
    """How much of each region (…, r, c) is moved (…, r), in sum 1; alike where nothing would be."""
    weights = mx.maximum((u * v.mean(axis=-2, keepdims=True)).sum(axis=-1), 1e-9)
    return weights / weights.sum(axis=-1, keepdims=True)


def _plan(cost: mx.array, rows: mx.array, columns: mx.array, options: EmdOptions) -> mx.array:
    """The entropic plan (…, r, r), its sums those of rows and columns (…, r).

    What the last step leaves amiss is put right (Altschuler et al. 2017, algorithm 2): no plan
    costs less than the exact one.
    """
    logits = -cost / options.softness
    shift = mx.zeros_like(columns)
    for _ in range(options.steps):
        at = mx.log(rows) - mx.logsumexp(logits + shift[..., None, :], axis=-1)
        shift = mx.log(columns) - mx.logsumexp(logits + at[..., None], axis=-2)
    plan = mx.exp(logits + at[..., None] + shift[..., None, :])
    plan = plan * mx.minimum(rows / mx.maximum(plan.sum(axis=-1), 1e-30), 1)[..., None]
    plan = plan * mx.minimum(columns / mx.maximum(plan.sum(axis=-2), 1e-30), 1)[..., None, :]
    more = mx.maximum(rows - plan.sum(axis=-1), 0)
    wanted = mx.maximum(columns - plan.sum(axis=-2), 0)
    total = mx.maximum(more.sum(axis=-1), 1e-30)[..., None, None]
    return plan + more[..., None] * wanted[..., None, :] / total


COMPONENTS = (
    Component("euclidean", euclidean, summary="√Σ(x−y)², not squared"),
    Component("sqeuclidean", sqeuclidean, summary="Σ(x−y)²; no triangle inequality"),
    Component("cosine", cosine, summary="1 − cos(x, y), a distance from 0 to 2"),
    Component("manhattan", manhattan, summary="Σ|x−y|"),
    Component("chebyshev", chebyshev, summary="max|x−y|"),
    Component("canberra", canberra, summary="Σ |x−y| / (|x|+|y|)"),
    Component("braycurtis", braycurtis, summary="Σ|x−y| / Σ(|x|+|y|), at most 1"),
    Component("mahalanobis", mahalanobis, summary="√((x−y)'M(x−y)), M learned"),
    Component("emd", emd, EmdOptions, "the cost of moving a map's regions to another's, entropic"),
)

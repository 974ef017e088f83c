"""Class means, and distances to them."""

import mlx.core as mx
import numpy as np
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import NoOptions, at_least, at_most, option, within
from ..metrics import module_of, sqeuclidean

# What float32 leaves of a spread of zero, as a share of the squared lengths.
_ROUNDING = 1e-11
_TINY = 1e-12  # a squared distance that counts as none


def one_hot(labels: mx.array, n_way: int) -> mx.array:
    """(…, s) -> (…, s, n_way)."""
    return (labels[..., None] == mx.arange(n_way)).astype(mx.float32)


def prototypes(support: mx.array, support_labels: mx.array, n_way: int) -> mx.array:
    """(…, s, d), (…, s) -> (…, n_way, d): the mean of each class's support."""
    if support.shape[-2] == n_way:  # one image of every class, which is its own mean
        order = mx.argsort(support_labels, axis=-1)
        return mx.take_along_axis(support, order[..., None], axis=-2)
    members = one_hot(support_labels, n_way).swapaxes(-1, -2)
    return (members @ support) / members.sum(axis=-1, keepdims=True)


def nearest_prototype(_: NoOptions = NoOptions()) -> Head:
    """Minus the distance to each class's prototype, the mean of its support.

    −d(q, c), c = Σ x / k over the k images of a class (Snell et al. 2017, eq. 1).
    """

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        return prototypes(support, support_labels, n_way)

    def scores(means: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return -metric.table(query, means)

    return Head(fit, scores, differentiable=True)


@frozen
class LdaOptions:
    """Options of linear discriminant analysis."""

    shrinkage: float = option(
        0.3, "weight of the unit matrix; 1: nearest prototype", within(at_least(0.01), at_most(1.0))
    )


def _lower_inverse(matrices: mx.array) -> mx.array:
    """(…, m, m), each LL' -> L^-1, by LAPACK: MLX's own is slow, and for the CPU only."""
    from scipy.linalg.lapack import dpotrf, dtrtri

    found = np.array(matrices, np.float64, order="C")
    for i in np.ndindex(found.shape[:-2]):
        upper = found[i].T  # in LAPACK's order, so that nothing is copied
        found[i] = dtrtri(dpotrf(upper, overwrite_a=1)[0], overwrite_c=1)[0].T
    return mx.array(found.astype(np.float32))


def lda(options: LdaOptions = LdaOptions()) -> Head:
    """Minus the squared Mahalanobis distance to each class's prototype; the metric has no say.

    −(q − c)' C⁻¹ (q − c): linear discriminant analysis (Fisher 1936) with a regularised covariance
    C = (1 − w) S + w I (Friedman 1989): S that of the support about its prototypes c, scaled to a
    mean variance of 1, shrunk towards the unit matrix, so that directions in which images of one
    class differ count less. Without spread, as with one image of each class, these are squared
    euclidean distances.

    Its own distances are shares: Mahalanobis' to the class over that to the middle of all
    prototypes, 1 where a query is no nearer to the class than to what classes have in common. That
    tells unknown queries far better than either distance (Ren et al. 2021, who subtract them).
    """

    squares = sqeuclidean().table

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        means = prototypes(support, support_labels, n_way)
        rows = support - one_hot(support_labels, n_way) @ means
        *_, n, d = rows.shape
        total, noise = (mx.square(x).sum(axis=(-1, -2), keepdims=True) for x in (rows, support))
        spread = total > _ROUNDING * noise
        weight = mx.where(spread, options.shrinkage, 1.0)
        rows = rows * mx.sqrt((1 - weight) * d / mx.where(spread, total, 1.0))
        # Of R'R (d, d) and RR' (n, n) the smaller is factored, RR' by Woodbury's identity.
        few = n < d
        gram = rows @ rows.swapaxes(-1, -2) if few else rows.swapaxes(-1, -2) @ rows
        root = _lower_inverse(gram + weight * mx.eye(min(n, d))).swapaxes(-1, -2)
        inward = rows.swapaxes(-1, -2) @ root if few else root
        # |q - first|^2 - |q - middle|^2 is linear in q: (first + middle - 2 q) . step.
        first, middle = means[..., :1, :], means.mean(axis=-2, keepdims=True)
        step = (first - middle) @ inward @ inward.swapaxes(-1, -2)
        step = (first - middle - step) / weight if few else step
        return means, means @ inward, inward, weight, first + middle, step

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        means, mapped, inward, weight, *_ = state
        inside = squares(query @ inward, mapped)
        few = inward.shape[-1] < inward.shape[-2]
        return (inside - squares(query, means)) / weight if few else -inside

    def distances(state: tuple[mx.array, ...], query: mx.array, scores: mx.array) -> mx.array:
        *_, ends, step = state
        own, nearer = module_of(query), (ends - 2 * query) @ step.swapaxes(-1, -2)
        to_middle = own.maximum(-scores[..., :1] - nearer, _TINY)
        return own.sqrt(own.maximum(-scores, 0) / to_middle)

    return Head(fit, scores, differentiable=False, distances=distances)


COMPONENTS = (
    Component(
        "nearest-prototype",
        nearest_prototype,
        summary="minus the distance to class means",
    ),
    Component(
        "lda",
        lda,
        LdaOptions,
        "minus the Mahalanobis distance to class means, by the support's covariance",
    ),
)

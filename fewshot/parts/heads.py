"""Few-shot classifiers: from a labelled support set and queries to scores."""

import mlx.core as mx
import numpy as np
from attrs import frozen

from ..core.components import Component
from ..core.interfaces import Head, Metric
from ..core.options import NoOptions, at_least, at_most, option, positive, within
from .metrics import sqeuclidean

# What float32 leaves of a spread of zero, as a share of the squared lengths.
_ROUNDING = 1e-11


def _one_hot(labels: mx.array, n_way: int) -> mx.array:
    return (labels[..., None] == mx.arange(n_way)).astype(mx.float32)


def _prototypes(support: mx.array, support_labels: mx.array, n_way: int) -> mx.array:
    if support.shape[-2] == n_way:  # one image of every class, which is its own mean
        order = mx.argsort(support_labels, axis=-1)
        return mx.take_along_axis(support, order[..., None], axis=-2)
    members = _one_hot(support_labels, n_way).swapaxes(-1, -2)
    return (members @ support) / members.sum(axis=-1, keepdims=True)


def nearest_prototype(_: NoOptions = NoOptions()) -> Head:
    """Minus the distance to each class's prototype, the mean of its support (Snell et al. 2017)."""

    def scores(
        support: mx.array, support_labels: mx.array, query: mx.array, metric: Metric, n_way: int
    ) -> mx.array:
        return -metric.table(query, _prototypes(support, support_labels, n_way))

    def condense(
        support: mx.array, support_labels: mx.array, n_way: int
    ) -> tuple[mx.array, mx.array]:
        means = _prototypes(support, support_labels, n_way)
        return means, mx.broadcast_to(mx.arange(n_way), means.shape[:-1])

    return Head(scores=scores, differentiable=True, condense=condense)


@frozen
class LdaOptions:
    """Options of linear discriminant analysis."""

    shrinkage: float = option(
        0.3, "weight of the unit matrix; 1: nearest prototype", within(at_least(0.01), at_most(1.0))
    )


def _lower_inverse(matrices: mx.array) -> mx.array:
    """(…, m, m), each LL' -> L^-1, by LAPACK: MLX's own is slow, and for the CPU only."""
    from scipy.linalg.lapack import dpotrf, dtrtri

    found = np.array(matrices, np.float64)
    for i in np.ndindex(found.shape[:-2]):
        found[i] = dtrtri(dpotrf(found[i], lower=1)[0], lower=1)[0]
    return mx.array(found.astype(np.float32))


def lda(options: LdaOptions = LdaOptions()) -> Head:
    """Minus the squared Mahalanobis distance to each class's prototype; the metric has no say.

    Linear discriminant analysis (Fisher 1936) with a regularised covariance (Friedman 1989): that
    of the support about its prototypes, scaled to a mean variance of 1 and shrunk towards the unit
    matrix, so that directions in which images of one class differ count less. Without spread, as
    with one image of each class, these are squared euclidean distances.
    """

    def scores(
        support: mx.array, support_labels: mx.array, query: mx.array, metric: Metric, n_way: int
    ) -> mx.array:
        prototypes = _prototypes(support, support_labels, n_way)
        rows = support - _one_hot(support_labels, n_way) @ prototypes
        *_, n, d = rows.shape
        total, noise = (mx.square(x).sum(axis=(-1, -2), keepdims=True) for x in (rows, support))
        spread = total > _ROUNDING * noise
        weight = mx.where(spread, options.shrinkage, 1.0)
        rows = rows * mx.sqrt((1 - weight) * d / mx.where(spread, total, 1.0))
        # Of R'R (d, d) and RR' (n, n) the smaller is factored, RR' by Woodbury's identity.
        few = n < d
        gram = rows @ rows.swapaxes(-1, -2) if few else rows.swapaxes(-1, -2) @ rows
        root = _lower_inverse(gram + weight * mx.eye(min(n, d)))

        def mapped(x: mx.array) -> mx.array:
            return (x @ rows.swapaxes(-1, -2) if few else x) @ root.swapaxes(-1, -2)

        squares = sqeuclidean().table
        inside = squares(mapped(query), mapped(prototypes))
        return (inside - squares(query, prototypes)) / weight if few else -inside

    return Head(scores=scores, differentiable=False)


@frozen
class NearestSupportOptions:
    """Options of the k-nearest head."""

    neighbours: int = option(1, "support images that vote", positive)


def nearest_support(options: NearestSupportOptions = NearestSupportOptions()) -> Head:
    """Share of votes among the k nearest support images.

    Ties go to the class with the nearer image, then to class order: each score carries that rank
    as half a vote at the most. More neighbours than support images: all vote.
    """

    def scores(
        support: mx.array, support_labels: mx.array, query: mx.array, metric: Metric, n_way: int
    ) -> mx.array:
        distances = metric.table(query, support)
        labels = mx.broadcast_to(support_labels, (*distances.shape[:-2], distances.shape[-1]))
        nearest = nearest_of_class(distances, labels, n_way)
        # A stable sort: of classes equally near, class order decides.
        order = mx.argsort(nearest, axis=-1)
        places = mx.broadcast_to(mx.arange(n_way, dtype=order.dtype), order.shape)
        rank = mx.put_along_axis(mx.zeros_like(order), order, places, axis=-1)
        k = min(options.neighbours, distances.shape[-1])
        votes = rank == 0 if k == 1 else _votes(distances, labels, n_way, k) / k
        return votes + (1 - rank / n_way) / (2 * k)

    return Head(scores=scores, differentiable=False, votes=True)


def nearest_of_class(distances: mx.array, labels: mx.array, n_way: int) -> mx.array:
    """(…, q, s), (…, s) -> (…, q, n_way): the least distance to an image of each class."""
    *lead, q, s = distances.shape
    rows = distances.reshape(-1, q, s).swapaxes(-1, -2)
    episode = mx.arange(rows.shape[0])[:, None]
    least = mx.full((rows.shape[0], n_way, q), mx.inf)
    least = least.at[episode, labels.reshape(-1, s)].minimum(rows)
    return least.swapaxes(-1, -2).reshape(*lead, q, n_way)


def _votes(distances: mx.array, labels: mx.array, n_way: int, k: int) -> mx.array:
    """(…, q, n_way): how many of the k nearest are of each class; of equally far, class order."""
    last = mx.partition(distances, k - 1, axis=-1)[..., k - 1 : k]
    of_class = _one_hot(labels, n_way)
    nearer = (distances < last).astype(mx.float32) @ of_class
    as_far = (distances == last).astype(mx.float32) @ of_class
    left = k - nearer.sum(axis=-1, keepdims=True) - (as_far.cumsum(axis=-1) - as_far)
    return nearer + mx.clip(left, 0, as_far)


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
    Component(
        "nearest-support",
        nearest_support,
        NearestSupportOptions,
        "votes of the k nearest support images",
    ),
)

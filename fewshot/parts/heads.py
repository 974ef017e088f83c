"""Few-shot classifiers: from a labelled support set and queries to scores."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen

from ..core.components import Component
from ..core.interfaces import Head, Metric
from ..core.options import NoOptions, above, at_least, at_most, option, positive, within
from .metrics import cosine, sqeuclidean

# What float32 leaves of a spread of zero, as a share of the squared lengths.
_ROUNDING = 1e-11


def _one_hot(labels: mx.array, n_way: int) -> mx.array:
    return (labels[..., None] == mx.arange(n_way)).astype(mx.float32)


def prototypes(support: mx.array, support_labels: mx.array, n_way: int) -> mx.array:
    """(…, s, d), (…, s) -> (…, n_way, d): the mean of each class's support."""
    if support.shape[-2] == n_way:  # one image of every class, which is its own mean
        order = mx.argsort(support_labels, axis=-1)
        return mx.take_along_axis(support, order[..., None], axis=-2)
    members = _one_hot(support_labels, n_way).swapaxes(-1, -2)
    return (members @ support) / members.sum(axis=-1, keepdims=True)


def nearest_prototype(_: NoOptions = NoOptions()) -> Head:
    """Minus the distance to each class's prototype, the mean of its support (Snell et al. 2017)."""

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

    squares = sqeuclidean().table

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        means = prototypes(support, support_labels, n_way)
        rows = support - _one_hot(support_labels, n_way) @ means
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
        return means, means @ inward, inward, weight

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        means, mapped, inward, weight = state
        inside = squares(query @ inward, mapped)
        few = inward.shape[-1] < inward.shape[-2]
        return (inside - squares(query, means)) / weight if few else -inside

    return Head(fit, scores, differentiable=False)


@frozen
class NearestSupportOptions:
    """Options of the k-nearest head."""

    neighbours: int = option(1, "support images that vote", positive)


def nearest_support(options: NearestSupportOptions = NearestSupportOptions()) -> Head:
    """Share of votes among the k nearest support images.

    Ties go to the class with the nearer image, then to class order: each score carries that rank
    as half a vote at the most. More neighbours than support images: all vote.
    """

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        labels = mx.broadcast_to(support_labels, support.shape[:-1])
        return support, labels, _one_hot(labels, n_way)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, labels, of_class = state
        distances, n_way = metric.table(query, support), of_class.shape[-1]
        labels = mx.broadcast_to(labels, (*distances.shape[:-2], distances.shape[-1]))
        nearest = nearest_of_class(distances, labels, n_way)
        # A stable sort: of classes equally near, class order decides.
        order = mx.argsort(nearest, axis=-1)
        places = mx.broadcast_to(mx.arange(n_way, dtype=order.dtype), order.shape)
        rank = mx.put_along_axis(mx.zeros_like(order), order, places, axis=-1)
        k = min(options.neighbours, distances.shape[-1])
        votes = rank == 0 if k == 1 else _votes(distances, of_class, k) / k
        return votes + (1 - rank / n_way) / (2 * k)

    return Head(fit, scores, differentiable=False, votes=True)


def nearest_of_class(distances: mx.array, labels: mx.array, n_way: int) -> mx.array:
    """(…, q, s), (…, s) -> (…, q, n_way): the least distance to an image of each class."""
    *lead, q, s = distances.shape
    rows = distances.reshape(-1, q, s).swapaxes(-1, -2)
    episode = mx.arange(rows.shape[0])[:, None]
    least = mx.full((rows.shape[0], n_way, q), mx.inf)
    least = least.at[episode, labels.reshape(-1, s)].minimum(rows)
    return least.swapaxes(-1, -2).reshape(*lead, q, n_way)


def _votes(distances: mx.array, of_class: mx.array, k: int) -> mx.array:
    """(…, q, s), (…, s, n_way) -> (…, q, n_way): how many of the k nearest are of each class.

    Of those equally far, class order decides.
    """
    last = mx.partition(distances, k - 1, axis=-1)[..., k - 1 : k]
    nearer = (distances < last).astype(mx.float32) @ of_class
    as_far = (distances == last).astype(mx.float32) @ of_class
    left = k - nearer.sum(axis=-1, keepdims=True) - (as_far.cumsum(axis=-1) - as_far)
    return nearer + mx.clip(left, 0, as_far)


@frozen
class BdCspnOptions:
    """Options of BD-CSPN."""

    temperature: float = option(
        0.1,
        "similarities are divided by it: less, and images near a prototype weigh more",
        above(0),
    )


def bd_cspn(options: BdCspnOptions = BdCspnOptions()) -> Head:
    """Nearest prototype, rectified by the queries (BD-CSPN, Liu, Song & Qin 2020).

    Queries are moved by the mean of the support less that of the queries (the cross-class bias).
    Each is then taken for the class whose prototype it is most similar to, by cosine;
    a class's new prototype is the mean of its support and of those queries, weighted by a softmax
    of their similarities over the temperature (the intra-class bias; here all queries
    take part). Scores: minus the distances to these. It takes as many queries of each
    class for granted, and one query alone says nothing.
    """

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        labels = mx.broadcast_to(support_labels, support.shape[:-1])
        return support, _one_hot(labels, n_way), prototypes(support, labels, n_way)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class, means = state
        moved = query + (support.mean(axis=-2, keepdims=True) - query.mean(axis=-2, keepdims=True))
        taken_for = _cosines(moved, means).argmax(axis=-1)
        members = mx.concatenate([of_class, _one_hot(taken_for, means.shape[-2])], axis=-2)
        rows = mx.concatenate([support, moved], axis=-2)
        similar = mx.where(members > 0, _cosines(rows, means) / options.temperature, -mx.inf)
        weights = mx.softmax(similar, axis=-2)
        return -metric.table(moved, weights.swapaxes(-1, -2) @ rows)

    return Head(fit, scores, differentiable=True, queries="together")


def _cosines(x: mx.array, y: mx.array) -> mx.array:
    """(…, q, d), (…, p, d) -> (…, q, p); of a vector of zeros 1/2."""
    return 1 - cosine().table(x, y)


@frozen
class RelationOptions:
    """Options of the relation head."""

    hidden: int = option(128, "units of the layer between a pair and its score", positive)


class Relation(nn.Module):
    """How much queries (…, q, d) are like prototypes (…, n_way, d): (…, q, n_way)."""

    def __init__(self, embedding_dim: int, hidden: int) -> None:
        super().__init__()
        # One linear layer of prototype and query side by side is the sum of two.
        self.prototype = nn.Linear(embedding_dim, hidden)
        self.query = nn.Linear(embedding_dim, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)

    def __call__(self, prototypes: mx.array, query: mx.array) -> mx.array:
        """Scores of every pair."""
        pairs = self.prototype(prototypes)[..., None, :, :] + self.query(query)[..., :, None, :]
        return self.score(nn.relu(pairs)).squeeze(-1)


def relation(options: RelationOptions = RelationOptions(), *, embedding_dim: int) -> Head:
    """A learned comparison of prototype and query (relation networks, Sung et al. 2018).

    Of each pair (prototype, query), side by side, a network of one hidden layer makes the score;
    the metric has no say. It compares embeddings, the original feature maps.
    """
    module = Relation(embedding_dim, options.hidden)

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        return prototypes(support, support_labels, n_way)

    def scores(means: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return module(means, query)

    return Head(fit, scores, differentiable=True, module=module)


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
    Component(
        "bd-cspn",
        bd_cspn,
        BdCspnOptions,
        "minus the distance to class means that the queries rectify; asks all queries together",
    ),
    Component(
        "relation",
        relation,
        RelationOptions,
        "a learned comparison of class mean and query, trained by an episode loss",
    ),
)

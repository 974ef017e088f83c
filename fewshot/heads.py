"""Few-shot classifiers: from a labelled support set and queries to scores."""

import mlx.core as mx
from attrs import frozen

from .interfaces import Head, Metric
from .records import NoOptions, option, positive


def _one_hot(labels: mx.array, n_way: int) -> mx.array:
    return (labels[..., None] == mx.arange(n_way)).astype(mx.float32)


def nearest_prototype(_: NoOptions = NoOptions()) -> Head:
    """Minus the distance to each class's prototype, the mean of its support (Snell et al. 2017)."""

    def prototypes(support: mx.array, support_labels: mx.array, n_way: int) -> mx.array:
        if support.shape[-2] == n_way:  # one image of every class, which is its own mean
            order = mx.argsort(support_labels, axis=-1)
            return mx.take_along_axis(support, order[..., None], axis=-2)
        members = _one_hot(support_labels, n_way).swapaxes(-1, -2)
        return (members @ support) / members.sum(axis=-1, keepdims=True)

    def scores(
        support: mx.array, support_labels: mx.array, query: mx.array, metric: Metric, n_way: int
    ) -> mx.array:
        return -metric.table(query, prototypes(support, support_labels, n_way))

    def condense(
        support: mx.array, support_labels: mx.array, n_way: int
    ) -> tuple[mx.array, mx.array]:
        means = prototypes(support, support_labels, n_way)
        return means, mx.broadcast_to(mx.arange(n_way), means.shape[:-1])

    return Head(scores=scores, differentiable=True, condense=condense)


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

    return Head(scores=scores, differentiable=False)


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

"""Few-shot classifiers: from a labelled support set and queries to scores."""

import mlx.core as mx
from attrs import frozen

from .interfaces import Head, Metric
from .records import NoOptions, option, positive


def _one_hot(labels: mx.array, n_way: int) -> mx.array:
    return (labels[..., None] == mx.arange(n_way)).astype(mx.float32)


def nearest_prototype(_: NoOptions = NoOptions()) -> Head:
    """Minus the distance to each class's prototype, the mean of its support (Snell et al. 2017)."""

    def scores(
        support: mx.array, support_labels: mx.array, query: mx.array, metric: Metric, n_way: int
    ) -> mx.array:
        members = _one_hot(support_labels, n_way).swapaxes(-1, -2)
        prototypes = (members @ support) / members.sum(axis=-1, keepdims=True)
        return -metric.table(query, prototypes)

    return Head(scores=scores, differentiable=True)


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
        # Of support images equally far, the class order decides, not the order they came in.
        in_class_order = mx.argsort(support_labels, axis=-1)
        support_labels = mx.take_along_axis(support_labels, in_class_order, axis=-1)
        support = mx.take_along_axis(support, in_class_order[..., None], axis=-2)
        distances = metric.table(query, support)
        k = min(options.neighbours, distances.shape[-1])
        labels = mx.broadcast_to(support_labels[..., None, :], distances.shape)
        of_class = labels[..., None, :] == mx.arange(n_way)[:, None]
        nearest = mx.where(of_class, distances[..., None, :], mx.inf).min(axis=-1)
        rank = mx.argsort(mx.argsort(nearest, axis=-1), axis=-1)
        if k == 1:
            votes = (rank == 0).astype(mx.float32)
        else:
            voters = mx.argsort(distances, axis=-1)[..., :k]
            votes = _one_hot(mx.take_along_axis(labels, voters, axis=-1), n_way).mean(axis=-2)
        return votes + (1 - rank / n_way) / (2 * k)

    return Head(scores=scores, differentiable=False)

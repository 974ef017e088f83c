"""Support images that are near, and their votes."""

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import above, at_least, option, positive
from ..metrics import unit
from .prototypes import one_hot

# Distances below are 0.
_NONE = 1e-12


def _kept(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, ...]:
    """All of the support, whose images are compared one by one."""
    labels = mx.broadcast_to(support_labels, support.shape[:-1])
    return support, labels, one_hot(labels, n_way)


@frozen
class NearestSupportOptions:
    """Options of the k-nearest head."""

    neighbours: int = option(1, "support images that vote", positive)
    weights: Literal["votes", "distance"] = option(
        "votes", "every vote counts the same, or by the inverse of its distance"
    )


def nearest_support(options: NearestSupportOptions = NearestSupportOptions()) -> Head:
    """Share of votes among the k nearest support images.

    Ties go to the class with the nearer image, then to class order: each score carries that rank
    as half a vote at the most. More neighbours than support images: all vote. Weighted by distance
    (Dudani 1976), scores are the shares of Σ 1/d alone; images at distance 0 outvote all others.
    """
    by_distance = options.weights == "distance"

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, labels, of_class = state
        distances, n_way = metric.table(query, support), of_class.shape[-1]
        k = min(options.neighbours, distances.shape[-1])
        if by_distance:
            found = _votes(distances, of_class, k, lambda d: 1 / mx.maximum(d, _NONE))
            return found / found.sum(axis=-1, keepdims=True)
        labels = mx.broadcast_to(labels, (*distances.shape[:-2], distances.shape[-1]))
        nearest = nearest_of_class(distances, labels, n_way)
        # A stable sort: of classes equally near, class order decides.
        order = mx.argsort(nearest, axis=-1)
        places = mx.broadcast_to(mx.arange(n_way, dtype=order.dtype), order.shape)
        rank = mx.put_along_axis(mx.zeros_like(order), order, places, axis=-1)
        votes = rank == 0 if k == 1 else _votes(distances, of_class, k, mx.ones_like) / k
        return votes + (1 - rank / n_way) / (2 * k)

    return Head(_kept, scores, differentiable=False, votes=not by_distance)


def nearest_of_class(distances: mx.array, labels: mx.array, n_way: int) -> mx.array:
    """(…, q, s), (…, s) -> (…, q, n_way): the least distance to an image of each class."""
    *lead, q, s = distances.shape
    rows = distances.reshape(-1, q, s).swapaxes(-1, -2)
    episode = mx.arange(rows.shape[0])[:, None]
    least = mx.full((rows.shape[0], n_way, q), mx.inf)
    least = least.at[episode, labels.reshape(-1, s)].minimum(rows)
    return least.swapaxes(-1, -2).reshape(*lead, q, n_way)


def _votes(
    distances: mx.array, of_class: mx.array, k: int, weight: Callable[[mx.array], mx.array]
) -> mx.array:
    """(…, q, s), (…, s, n_way) -> (…, q, n_way): the weights of the k nearest, by class.

    Of those equally far, class order decides.
    """
    last = mx.partition(distances, k - 1, axis=-1)[..., k - 1 : k]
    near = (distances < last).astype(mx.float32)
    nearer = near @ of_class
    as_far = (distances == last).astype(mx.float32) @ of_class
    left = k - nearer.sum(axis=-1, keepdims=True) - (as_far.cumsum(axis=-1) - as_far)
    return (near * weight(distances)) @ of_class + mx.clip(left, 0, as_far) * weight(last)


@frozen
class MatchingOptions:
    """Options of matching networks."""

    temperature: float = option(
        0.1, "distances are divided by it: less, and the nearest images count more", above(0)
    )


def matching(options: MatchingOptions = MatchingOptions()) -> Head:
    """Log of the attention that each class's support gets (Vinyals et al. 2016, eq. 1).

    log Σ_{i of c} a(q, xᵢ), a the softmax over all support images of minus the distance over the
    temperature; without the networks that embed an image by its support (there: full context
    embeddings). Under `cosine` these are their cosines.
    """

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, labels, of_class = state
        far = metric.table(query, support) / options.temperature
        # Each class about its nearest image, so that no sum of exponentials is 0.
        least = mx.stop_gradient(nearest_of_class(far, labels, of_class.shape[-1]))
        sums = mx.exp(least @ of_class.swapaxes(-1, -2) - far) @ of_class
        found = mx.log(sums) - least
        return found - mx.logsumexp(found, axis=-1, keepdims=True)

    return Head(_kept, scores, differentiable=True)


@frozen
class TipAdapterOptions:
    """Options of Tip-Adapter."""

    alpha: float = option(1.0, "how much images count beside names", above(0))
    beta: float = option(5.5, "how much more the nearest images count", at_least(0))
    scale: float = option(100.0, "how much the cosine to a name counts, CLIP's is 100", above(0))
    names: bool = option(True, "read the classes' names, where the backbone has text")


def tip_adapter(
    options: TipAdapterOptions = TipAdapterOptions(), *, has_text: bool = False
) -> Head:
    """Names as a prior and images as a cache, nothing trained (Zhang et al. 2022, eq. 5 and 6).

    α exp(−β (1 − q F')) L + s q W', of vectors of length 1: F the support images, L their classes,
    one-hot, and W the classes' names, which without images are zero-shot CLIP; without names the
    cache alone. The metric has no say.
    """
    names = options.names and has_text

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        rows, of_class = unit(support), one_hot(support_labels, n_way)
        first = n_way if names else 0
        return rows[..., :first, :], rows[..., first:, :], of_class[..., first:, :]

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        words, images, of_class = state
        query = unit(query)
        near = mx.exp(options.beta * (query @ images.swapaxes(-1, -2) - 1))
        found = options.alpha * near @ of_class
        return found + options.scale * query @ words.swapaxes(-1, -2) if names else found

    return Head(fit, scores, differentiable=not names, names=names)


COMPONENTS = (
    Component(
        "matching",
        matching,
        MatchingOptions,
        "the share of a softmax over all support images that each class has",
    ),
    Component(
        "nearest-support",
        nearest_support,
        NearestSupportOptions,
        "votes of the k nearest support images",
    ),
    Component(
        "tip-adapter",
        tip_adapter,
        TipAdapterOptions,
        "names of classes as a prior, where the backbone has text, and near support images",
    ),
)

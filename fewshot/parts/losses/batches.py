"""Losses of batches: every image's distances to all the others of a class-balanced batch.

An image without positives, or with nothing to be told from, has the value 0.
"""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ...compute.tables import log_sum, mean_of, with_own, without_own
from ...core.components import Component
from ...core.interfaces import Loss
from ...core.options import NoOptions, at_least, below, option, positive, within


@frozen
class SupconOptions:
    """Options of the supervised contrastive loss."""

    temperature: float = option(0.1, "cosines are divided by it before the softmax", positive)


def supcon(options: SupconOptions = SupconOptions()) -> Loss:
    """For each image, the mean over its positives p of −log softmax(cosines / T)[p].

    Khosla et al. 2020, equation 2 ("out"): the softmax is over all the other images of the batch.
    """

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        logits = -distances / options.temperature  # the 1 of 1 − D is in all of them
        every = log_sum(logits, mx.ones_like(same))
        return mean_of(every[:, None] - logits, same)

    return Loss(fn=values, layout="batch", requires=["cosine"])


@frozen
class NtXentOptions:
    """Options of NT-Xent."""

    temperature: float = option(0.1, "cosines are divided by it before the softmax", positive)


def nt_xent(options: NtXentOptions = NtXentOptions()) -> Loss:
    """For each image, the mean over its positives of −log softmax(cosines / T) among the negatives.

    Chen et al. 2020 ("SimCLR"), equation 1, where an image has one positive. With several, each is
    alone with the negatives; `supcon` has the other positives in the softmax, too.
    """
    return Loss(fn=_against_negatives(options.temperature), layout="batch", requires=["cosine"])


def n_pairs(_: NoOptions = NoOptions()) -> Loss:
    """For each image, the mean over its positives p of log(1 + Σ exp(D(x, p) − D(x, negative))).

    Sohn 2016's (N+1)-tuplet loss, −D for the inner products. The sampler's `per_class` is 2 where
    nothing else is said: a batch of pairs, whose negatives are both images of the other pairs.
    """
    return Loss(fn=_against_negatives(1.0), layout="batch")


def _against_negatives(temperature: float) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        logits = -distances / temperature
        return mean_of(nn.softplus(log_sum(logits, ~same)[:, None] - logits), same)

    return values


@frozen
class MultiSimilarityOptions:
    """Options of the multi-similarity loss."""

    alpha: float = option(2.0, "how sharply positives are weighed", positive)
    beta: float = option(50.0, "how sharply negatives are weighed", positive)
    base: float = option(0.5, "cosine that positives are to be above, and negatives below")


def multi_similarity(options: MultiSimilarityOptions = MultiSimilarityOptions()) -> Loss:
    """log(1 + Σ exp(−α(cos − λ))) / α over positives, + log(1 + Σ exp(β(cos − λ))) / β over others.

    Wang et al. 2019, eq. 15, without the mining that goes with it: the miner of that name serves
    losses of pairs.
    """
    alpha, beta = options.alpha, options.beta

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        above = 1 - distances - options.base
        pull = nn.softplus(log_sum(-alpha * above, same)) / alpha
        return pull + nn.softplus(log_sum(beta * above, ~same)) / beta

    return Loss(fn=values, layout="batch", requires=["cosine"])


@frozen
class CircleOptions:
    """Options of the circle loss."""

    margin: float = option(0.4, "positives aim at cosine 1 − margin, others at margin", at_least(0))
    scale: float = option(80.0, "cosines are multiplied by it", positive)


def circle(options: CircleOptions = CircleOptions()) -> Loss:
    """log(1 + Σ exp(s·α₋(cos − m)) · Σ exp(−s·α₊(cos − 1 + m))) over negatives and positives.

    Sun et al. 2020, equations 4 to 6: the weights α₋ = max(0, cos + m) and α₊ = max(0, 1 + m − cos)
    have no gradient.
    """
    m, scale = options.margin, options.scale

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same, cosines = others == labels[:, None], 1 - distances
        of_positives = mx.stop_gradient(mx.maximum(1 + m - cosines, 0))
        of_negatives = mx.stop_gradient(mx.maximum(cosines + m, 0))
        pull = log_sum(-scale * of_positives * (cosines - 1 + m), same)
        push = log_sum(scale * of_negatives * (cosines - m), ~same)
        return nn.softplus(pull + push)

    return Loss(fn=values, layout="batch", requires=["cosine"])


@frozen
class LiftedStructureOptions:
    """Options of the lifted structure loss."""

    margin: float = option(1.0, "distance that different classes are pushed to", positive)


def lifted_structure(options: LiftedStructureOptions = LiftedStructureOptions()) -> Loss:
    """For each image i, the mean over its positives j of max(0, D(i, j) + log Σ exp(m − D))² / 2.

    The sum is over the negatives of i and those of j: Oh Song et al. 2016, equation 4.
    """

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        nearness = log_sum(options.margin - distances, ~same)
        of_both = without_own(mx.logaddexp(nearness[:, None], nearness))
        return mean_of(mx.square(mx.maximum(distances + of_both, 0)) / 2, same)

    return Loss(fn=values, layout="batch")


@frozen
class AngularOptions:
    """Options of the angular loss."""

    angle: float = option(
        40.0, "degrees at a negative that a pair is to be seen under", within(positive, below(90))
    )


def angular(options: AngularOptions = AngularOptions()) -> Loss:
    """For each image a, the mean over its positives p of log(1 + Σ exp f), over a's negatives n.

    f = 4 tan²α (cos(a, n) + cos(p, n)) − 2 (1 + tan²α) cos(a, p): Wang et al. 2017, section 3,
    between vectors of length 1.
    """
    t = math.tan(math.radians(options.angle)) ** 2

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        cosines = with_own(1 - distances, 1.0)
        to_negatives = cosines[:, None] + cosines[None]  # [a, p, n]
        different = with_own(~same, False)[:, None]
        sums = log_sum(4 * t * to_negatives, different) - 2 * (1 + t) * cosines
        return mean_of(nn.softplus(sums), with_own(same, False))

    return Loss(fn=values, layout="batch", requires=["cosine"])


@frozen
class SmoothApOptions:
    """Options of Smooth-AP."""

    temperature: float = option(0.01, "differences of distances are divided by it", positive)


def smooth_ap(options: SmoothApOptions = SmoothApOptions()) -> Loss:
    """For each image, 1 − the average precision of the others, nearest first, as its positives.

    Ranks are 1 + Σ sigmoid((D(x, ranked) − D(x, other)) / T): Brown et al. 2020, section 3. The
    image itself is not among the ranked.
    """

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        nearer = mx.sigmoid((distances[:, :, None] - distances[:, None, :]) / options.temperature)
        ranks = nearer.sum(axis=2) + 0.5  # of itself it is half nearer
        among_positives = mx.where(same[:, None, :], nearer, 0).sum(axis=2) + 0.5
        return mean_of(1 - among_positives / ranks, same)

    return Loss(fn=values, layout="batch")


COMPONENTS = (
    Component(
        "supcon",
        supcon,
        SupconOptions,
        "batches: cross-entropy of cosines over the other images; mean over positives",
    ),
    Component(
        "nt-xent",
        nt_xent,
        NtXentOptions,
        "batches: cross-entropy of cosines, each positive against the negatives",
    ),
    Component(
        "n-pairs",
        n_pairs,
        summary="batches: log(1 + Σ exp(D₊ − D₋)) over the negatives of each positive",
        implies={"sampler": {"per_class": 2}},
    ),
    Component(
        "multi-similarity",
        multi_similarity,
        MultiSimilarityOptions,
        "batches: cosines of positives above a base, of the others below, weighed by each other",
    ),
    Component(
        "circle",
        circle,
        CircleOptions,
        "batches: cosines, each weighed by how far it is from where it should be",
    ),
    Component(
        "lifted-structure",
        lifted_structure,
        LiftedStructureOptions,
        "batches: each positive pair against the negatives of both",
    ),
    Component(
        "angular",
        angular,
        AngularOptions,
        "batches: the angle at a negative that a positive pair is seen under",
    ),
    Component("smooth-ap", smooth_ap, SmoothApOptions, "batches: 1 − average precision, smoothed"),
)

"""Losses: functions of distances or scores, whose values training averages."""

import math
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ..core.components import Component
from ..core.interfaces import Loss
from ..core.options import at_least, below, option, positive, within


@frozen
class ContrastiveOptions:
    """Options of the contrastive loss."""

    margin: float = option(1.0, "distance that different classes are pushed to", positive)
    weights: Literal["equal", "balanced"] = option(
        "equal", "balanced: half for the pairs of one class, half for the others within the margin"
    )


def contrastive(options: ContrastiveOptions = ContrastiveOptions()) -> Loss:
    """Y·D² + (1−Y)·max(0, m−D)², Y = 1 for a pair of one class.

    Hadsell, Chopra, LeCun 2006, equation 4, without its factor 1/2. The distance is squared here:
    under `sqeuclidean` the first term is the fourth power.

    Most pairs of a batch are of two classes and soon beyond the margin, where they cost nothing and
    thin out the mean. Balanced weights make that mean half the one over same pairs and half the one
    over different pairs within the margin, as Hermans et al. 2017 average over active triplets.
    They are counted over the whole batch, before a miner leaves some out.
    """
    margin = options.margin

    def values(distances: mx.array, same: mx.array) -> mx.array:
        shortfall = mx.maximum(margin - distances, 0)
        costs = mx.where(same, distances * distances, shortfall * shortfall)
        if options.weights == "equal":
            return costs
        active = ~same & (shortfall > 0)
        of_same, of_active = (len(same) / 2 / mx.maximum(n.sum(), 1) for n in (same, active))
        return costs * mx.where(same, of_same, of_active)

    return Loss(fn=values, layout="pairs", margin=margin)


@frozen
class TripletOptions:
    """Options of the triplet margin loss."""

    margin: float = option(0.3, "how much farther the negative must be", positive)


def triplet(options: TripletOptions = TripletOptions()) -> Loss:
    """max(0, D(anchor, positive) − D(anchor, negative) + m): Schroff et al. 2015, equation 1."""
    return Loss(
        fn=lambda to_positive, to_negative: mx.maximum(
            to_positive - to_negative + options.margin, 0
        ),
        layout="triplets",
        margin=options.margin,
    )


@frozen
class PrototypicalOptions:
    """Options of the prototypical cross-entropy."""

    temperature: float = option(1.0, "scores are divided by it before the softmax", positive)
    label_smoothing: float = option(
        0.0, "share spread over all classes", within(at_least(0), below(1))
    )


def prototypical(options: PrototypicalOptions = PrototypicalOptions()) -> Loss:
    """−log softmax(scores / T)[label]: Snell et al. 2017, equation 2, with a temperature T.

    Of soft targets, the mean of these over the classes, weighted by the target.
    """

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(
            scores / options.temperature, labels, label_smoothing=options.label_smoothing
        )

    return Loss(fn=values, layout="episode", soft=True)


@frozen
class ArcfaceOptions:
    """Options of ArcFace."""

    margin: float = option(
        0.5, "angle in radians added to that of the own class", within(at_least(0), below(math.pi))
    )
    scale: float = option(64.0, "cosines are multiplied by it before the softmax", positive)


def arcface(options: ArcfaceOptions = ArcfaceOptions()) -> Loss:
    """−log softmax(s · cosines)[label], where the label's is cos(θ + m): Deng et al. 2019, eq. 3.

    Scores are minus the distances 1 − cos θ to the classes' proxies (or prototypes). Where θ + m is
    beyond π and the cosine would rise again it goes on falling, as −2 − cos(θ + m) (Liu et al.
    2017's ψ), without the step that the paper's code makes there to cos θ − m sin m.
    """
    cos_m, sin_m = math.cos(options.margin), math.sin(options.margin)

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        cosines = 1 + mx.clip(scores, -2, 0)
        own = labels[..., None]
        score = mx.clip(mx.take_along_axis(scores, own, axis=-1), -2, 0)
        cos = 1 + score
        # sin² from the distance keeps its digits where cos is near 1; the root's gradient at 0 is 0
        squares = -score * (2 + score)
        flat = squares <= 0
        sin = mx.where(flat, 0.0, mx.sqrt(mx.where(flat, 1.0, squares)))
        moved = cos * cos_m - sin * sin_m
        moved = mx.where(cos >= -cos_m, moved, -2 - moved)
        is_own = mx.arange(scores.shape[-1]) == own
        logits = options.scale * mx.where(is_own, moved, cosines)
        return nn.losses.cross_entropy(logits, labels)

    return Loss(fn=values, layout="episode", requires=["cosine"], draws="labelled")


@frozen
class SupconOptions:
    """Options of the supervised contrastive loss."""

    temperature: float = option(0.1, "cosines are divided by it before the softmax", positive)


def supcon(options: SupconOptions = SupconOptions()) -> Loss:
    """Of each image, the mean over its positives p of −log softmax(cosines / T)[p].

    Khosla et al. 2020, equation 2 ("out"): the softmax is over all the other images of the batch.
    The value of an image without positives is 0.
    """

    def values(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        logits = -distances / options.temperature  # the 1 of 1 − D is in all of them
        costs = mx.logsumexp(logits, axis=1, keepdims=True) - logits
        return mx.where(same, costs, 0).sum(axis=1) / mx.maximum(same.sum(axis=1), 1)

    return Loss(fn=values, layout="batch", requires=["cosine"])


COMPONENTS = (
    Component(
        "contrastive",
        contrastive,
        ContrastiveOptions,
        "pairs: Y·D² + (1−Y)·max(0, m−D)²",
    ),
    Component("triplet", triplet, TripletOptions, "triplets: max(0, D₊ − D₋ + m)"),
    Component(
        "prototypical",
        prototypical,
        PrototypicalOptions,
        "episodes: cross-entropy of the head's scores / temperature",
    ),
    Component("cross-entropy", prototypical, PrototypicalOptions, "the same as prototypical"),
    Component(
        "arcface",
        arcface,
        ArcfaceOptions,
        "proxies or episodes: cross-entropy of cosines, a margin on the own class's angle",
    ),
    Component(
        "supcon",
        supcon,
        SupconOptions,
        "batches: cross-entropy of cosines over the other images; mean over positives",
    ),
)

"""Losses: functions of distances or scores, one value per pair, triplet or query."""

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
    """−log softmax(scores / T)[label]: Snell et al. 2017, equation 2, with a temperature T."""

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(
            scores / options.temperature, labels, label_smoothing=options.label_smoothing
        )

    return Loss(fn=values, layout="episode")


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
)

"""Losses of triplets: of an anchor's distances to a positive and to a negative."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Loss
from ...core.options import option, positive


@frozen
class TripletOptions:
    """Options of the triplet margin loss."""

    margin: float = option(0.3, "how much farther the negative must be", positive)
    form: Literal["hinge", "smooth"] = option("hinge", "smooth: log(1 + exp x) for max(0, x)")


def triplet(options: TripletOptions = TripletOptions()) -> Loss:
    """max(0, D(anchor, positive) − D(anchor, negative) + m): Schroff et al. 2015, equation 1.

    The smooth form, log(1 + exp(…)), goes on pulling beyond the margin: Hermans et al. 2017,
    section 2 ("soft margin").
    """
    smooth = options.form == "smooth"

    def values(to_positive: mx.array, to_negative: mx.array) -> mx.array:
        short = to_positive - to_negative + options.margin
        return nn.softplus(short) if smooth else mx.maximum(short, 0)

    return Loss(fn=values, layout="triplets", margin=None if smooth else options.margin)


COMPONENTS = (
    Component("triplet", triplet, TripletOptions, "triplets: max(0, D₊ − D₋ + m), or smooth"),
)

"""Losses of pairs: of a distance, and whether the two are of one class."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Loss
from ...core.options import option, positive


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
class MarginOptions:
    """Options of the margin loss."""

    alpha: float = option(0.2, "how far from the boundary pairs must be", positive)
    beta: float = option(1.2, "distance of the boundary, where it is learned at first", positive)
    learned: bool = option(True, "whether training moves the boundary")


class _Boundary(nn.Module):
    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = mx.array(beta)

    def __call__(self, distances: mx.array, same: mx.array) -> mx.array:
        beyond = distances - self.beta
        return mx.maximum(self.alpha + mx.where(same, beyond, -beyond), 0)


def margin(options: MarginOptions = MarginOptions()) -> Loss:
    """max(0, α + y·(D − β)), y = 1 for a pair of one class, else −1, with a learned boundary β.

    Wu, Manmatha, Smola & Krähenbühl 2017, section 4, with one β for all classes and images.
    """
    boundary = _Boundary(options.alpha, options.beta)
    if not options.learned:
        boundary.freeze()
    return Loss(fn=boundary, layout="pairs", margin=options.alpha + options.beta)


COMPONENTS = (
    Component(
        "contrastive", contrastive, ContrastiveOptions, "pairs: Y·D² + (1−Y)·max(0, m−D)²"
    ),
    Component("margin", margin, MarginOptions, "pairs: max(0, α ± (D − β)), β learned"),
)  # fmt: skip

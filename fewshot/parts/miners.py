"""Which pairs or triplets of a batch a loss learns from."""

import mlx.core as mx
from attrs import frozen

from ..core.components import Component
from ..core.interfaces import Miner
from ..core.options import NoOptions, option, positive


def none(_: NoOptions = NoOptions()) -> Miner:
    """All that the sampler draws."""
    return Miner(None)


def batch_hard(_: NoOptions = NoOptions()) -> Miner:
    """Of each image its farthest positive and its nearest negative: a mask of pairs.

    Hermans et al. 2017, equation 5: one triplet an image. All of several that are as far are taken,
    so that their order in the batch does not matter.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        farthest = mx.where(same, distances, -mx.inf).max(axis=1, keepdims=True)
        nearest = mx.where(same, mx.inf, distances).min(axis=1, keepdims=True)
        return mx.where(same, distances == farthest, distances == nearest)

    return Miner(mask)


@frozen
class SemiHardOptions:
    """Options of semi-hard negatives."""

    margin: float = option(0.3, "how much farther than the positive: the loss's margin", positive)


def semi_hard(options: SemiHardOptions = SemiHardOptions()) -> Miner:
    """Triplets whose negative is farther than the positive, but by less than the margin.

    Schroff et al. 2015, section 3.2: D(a, p) < D(a, n) < D(a, p) + m. All such negatives are taken.
    A positive without any is left out of the step; a batch without any triplet changes no weight.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        to_positive, to_negative = distances[:, :, None], distances[:, None, :]
        band = (to_negative > to_positive) & (to_negative < to_positive + options.margin)
        return band & same[:, :, None] & ~same[:, None, :]

    return Miner(mask)


COMPONENTS = (
    Component("none", none, summary="every pair or triplet that the sampler draws"),
    Component(
        "batch-hard", batch_hard, summary="each image's farthest positive and nearest negative"
    ),
    Component(
        "semi-hard",
        semi_hard,
        SemiHardOptions,
        "negatives farther than the positive, but within a margin",
    ),
)

"""The miner PLUGIN_NAME: all positives, and the nearest share of each image's negatives."""

import mlx.core as mx
from attrs import frozen
from fewshot import Component, Miner, above, at_most, hookimpl, option, within


@frozen
class Options:
    """Options of the miner."""

    share: float = option(
        0.25, "of each image's negatives, the nearest", within(above(0), at_most(1))
    )


def miner(options: Options) -> Miner:
    """A mask of pairs: the shape is the same whatever the numbers are, ties are all taken."""

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        ordered = mx.sort(mx.where(same, mx.inf, distances), axis=1)
        count = mx.ceil(options.share * (~same).sum(axis=1, keepdims=True)).astype(mx.int32)
        bound = mx.take_along_axis(ordered, mx.maximum(count - 1, 0), axis=1)
        return same | (distances <= bound)

    return Miner(mask)


@hookimpl
def fewshot_miners() -> list[Component]:
    return [Component("PLUGIN_NAME", miner, Options, "the nearest share of the negatives")]

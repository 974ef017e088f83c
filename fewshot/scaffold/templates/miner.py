"""The miner PLUGIN_NAME: all positives, and the nearest share of the negatives."""

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
    """A mask of pairs: its shape never changes, and of ties all are taken."""

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        ordered = mx.sort(mx.where(same, mx.inf, distances), axis=1)
        negatives = (~same).sum(axis=1, keepdims=True)
        last = mx.ceil(options.share * negatives).astype(mx.int32) - 1
        bound = mx.take_along_axis(ordered, mx.maximum(last, 0), axis=1)
        return same | (distances <= bound)

    return Miner(mask)


@hookimpl
def fewshot_miners() -> list[Component]:
    return [Component("PLUGIN_NAME", miner, Options, "the nearest share of the negatives")]

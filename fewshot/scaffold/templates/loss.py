"""The loss PLUGIN_NAME: contrastive, with a margin on both sides."""

import mlx.core as mx
from attrs import frozen
from fewshot import Component, Loss, above, at_least, hookimpl, option


@frozen
class Options:
    """Options of the loss."""

    near: float = option(
        0.2, "distance up to which a pair of one class costs nothing", at_least(0)
    )
    far: float = option(
        1.0, "distance from which a pair of two classes costs nothing", above(0)
    )


def loss(options: Options) -> Loss:
    """max(0, D − near)² for a pair of one class, max(0, far − D)² for one of two."""

    def values(distances: mx.array, same: mx.array) -> mx.array:
        excess = mx.maximum(distances - options.near, 0)
        shortfall = mx.maximum(options.far - distances, 0)
        return mx.where(same, excess * excess, shortfall * shortfall)

    return Loss(fn=values, layout="pairs", margin=options.far)


@hookimpl
def fewshot_losses() -> list[Component]:
    return [Component("PLUGIN_NAME", loss, Options, "pairs: a margin on both sides")]

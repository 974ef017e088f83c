"""The optimizer PLUGIN_NAME: every parameter's gradient, scaled to one length."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
from attrs import frozen
from fewshot import Component, at_least, below, hookimpl, option, within


@frozen
class Options:
    """Options of the optimizer."""

    momentum: float = option(
        0.9, "share of the last update kept at a step", within(at_least(0), below(1))
    )


class Normed(optimizers.Optimizer):
    """Normalised gradient descent: w − rate · v, where v is the momentum of g / |g|.

    What an update depends on is in `state`, and what it has, `init_single` makes.
    """

    def __init__(self, learning_rate: Any, momentum: float) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum

    def init_single(self, parameter: mx.array, state: dict[str, mx.array]) -> None:
        """A parameter's state, before its first update."""
        state["v"] = mx.zeros_like(parameter)

    def apply_single(
        self, gradient: mx.array, parameter: mx.array, state: dict[str, mx.array]
    ) -> mx.array:
        """The parameter after an update."""
        # Of a tiny or a large gradient the squares are beyond float32.
        scaled = gradient / mx.maximum(mx.abs(gradient).max(), 1e-30)
        unit = scaled / mx.maximum(mx.sqrt(mx.square(scaled).sum()), 1e-30)
        state["v"] = self.momentum * state["v"] + unit
        return parameter - self.learning_rate.astype(gradient.dtype) * state["v"]


def optimizer(options: Options, learning_rate: Any) -> Normed:
    """A new one; `learning_rate` is a number or a function of the step."""
    return Normed(learning_rate, options.momentum)


@hookimpl
def fewshot_optimizers() -> list[Component]:
    return [Component("PLUGIN_NAME", optimizer, Options, "gradients of one length")]

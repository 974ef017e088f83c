"""The schedule PLUGIN_NAME: half a cosine, repeated."""

import math
from collections.abc import Callable

import mlx.core as mx
from attrs import frozen
from fewshot import Component, at_least, hookimpl, option


@frozen
class Options:
    """Options of the schedule."""

    cycles: int = option(3, "how often it falls from 1 to 0", at_least(1))


def schedule(options: Options, steps: int) -> Callable[[mx.array], mx.array]:
    """Warm restarts (Loshchilov & Hutter 2017, equation 5); 0 after the last step."""
    length = steps / options.cycles

    def factor(step: mx.array) -> mx.array:
        cycle = step / length
        within = mx.where(step < steps, cycle - mx.floor(cycle), 1.0)
        return 0.5 * (1 + mx.cos(math.pi * within))

    return factor


@hookimpl
def fewshot_schedules() -> list[Component]:
    return [Component("PLUGIN_NAME", schedule, Options, "half a cosine, repeated")]

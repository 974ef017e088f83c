"""Schedules with a fault, and odd ones without."""

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np

from planted import Collection

CASES = Collection("schedule")


@CASES.breaks("made")
def a_number(_, steps):
    return 1 / steps


@CASES.breaks("shape")
def python_numbers(_, steps):
    return lambda step: 1.0


@CASES.breaks("shape")
def one_for_all_steps(_, steps):
    return lambda step: mx.exp(-(step.max() / steps))


@CASES.breaks("shape")
def whole_numbers(_, steps):
    return lambda step: step < steps


@CASES.breaks("finite")
def infinite_at_first(_, steps):
    return lambda step: 1 / step


@CASES.breaks("finite")
def below_zero_after_the_end(_, steps):
    return lambda step: 1 - step / steps


@CASES.breaks("finite")
def a_whole_period(_, steps):
    return lambda step: mx.cos(np.pi * mx.minimum(step, steps) / steps)


@CASES.breaks("finite")
def divides_by_all_but_one(_, steps):
    return lambda step: mx.maximum(0, 1 - step / (steps - 1)) if steps > 1 else mx.inf * (step + 1)


@CASES.breaks("trains")
def never(_, steps):
    return lambda step: 0 * step.astype(mx.float32)


@CASES.breaks("asked twice")
def counts_its_calls(_, steps):
    calls = []

    def factor(step):
        calls.append(step)
        return mx.ones(step.shape) / len(calls)

    return factor


@CASES.breaks("traced")
def looks_at_the_step(_, steps):
    def factor(step):
        return mx.ones(step.shape) if (step < steps / 2).all() else 0.1 * mx.ones(step.shape)

    return factor


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def a_rise_of_its_own(_, steps):
    return lambda step: mx.minimum(1.0, step / max(1, steps // 10))


@CASES.sound
def more_than_one(_, steps):
    return lambda step: 3 * mx.exp(-4 * ((step / steps) - 0.3) ** 2)


@CASES.sound
def of_mlx(_, steps):
    return optimizers.step_decay(1.0, 0.5, max(1, steps // 4))

"""The learning rate over a training, as a factor of `training.learning_rate`.

Every factory takes (options, steps) and returns a `Schedule`; from the last of the steps on, its
factor stays.
"""

import math

import mlx.core as mx
from attrs import frozen, validators

from ..core.components import Component
from ..core.interfaces import Schedule
from ..core.options import NoOptions, above, at_most, option, share, within


@frozen
class DecayOptions:
    """Options of a decay to an end that may be 0."""

    end: float = option(0.0, "factor at the last step", share)


@frozen
class ExponentialOptions:
    """Options of a decay by the same factor at every step."""

    end: float = option(0.01, "factor at the last step", within(above(0), at_most(1)))


@frozen
class StepOptions:
    """Options of a decay at a few steps."""

    factor: float = option(0.1, "what the rate is multiplied by", within(above(0), at_most(1)))
    at: tuple[float, ...] = option(
        (0.5, 0.75), "after these shares of the steps", validators.deep_iterable(share)
    )


def constant(_: NoOptions, steps: int) -> Schedule:
    """1."""
    return lambda step: mx.ones(step.shape)


def cosine(options: DecayOptions, steps: int) -> Schedule:
    """Half a cosine from 1 to `end` (Loshchilov & Hutter 2017, equation 5, without restarts)."""

    def factor(step: mx.array) -> mx.array:
        decay = 0.5 * (1.0 + mx.cos((math.pi / steps) * mx.minimum(step, steps)))
        return options.end + (1 - options.end) * decay

    return factor


def linear(options: DecayOptions, steps: int) -> Schedule:
    """A straight line from 1 to `end`."""
    return lambda step: 1 - (1 - options.end) * (mx.minimum(step, steps) / steps)


def exponential(options: ExponentialOptions, steps: int) -> Schedule:
    """From 1 to `end`, by the same factor at every step."""
    return lambda step: options.end ** (mx.minimum(step, steps) / steps)


def step(options: StepOptions, steps: int) -> Schedule:
    """Multiplied by `factor` at each share `at` of the steps (He et al. 2016, section 3.4)."""

    def factor(step: mx.array) -> mx.array:
        passed = [(step >= part * steps).astype(mx.float32) for part in options.at]
        return options.factor ** sum(passed, mx.zeros(step.shape))

    return factor


COMPONENTS = (
    Component("constant", constant, summary="the learning rate as it is"),
    Component("cosine", cosine, DecayOptions, "half a cosine, to 0 at the last step"),
    Component("linear", linear, DecayOptions, "a straight line, to 0 at the last step"),
    Component("exponential", exponential, ExponentialOptions, "by the same factor at every step"),
    Component("step", step, StepOptions, "a tenth after half of the steps, and again later"),
)

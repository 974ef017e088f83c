"""The laws of a schedule."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import frozen
from hypothesis import strategies as st

from ..compute.compiling import compiling
from ..core.interfaces import Schedule
from ..core.options import NoOptions
from .laws import Kind, fail, first, law, laws_of
from .strategies import Array

_LENGTHS = st.integers(1, 60) | st.sampled_from([300, 1400])


def check_schedule(factory: Callable[[Any, int], Schedule], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options, steps)` breaks a law of a schedule."""
    KIND.check(factory, options)


@frozen
class Tried:
    """`make(steps)`: the schedule of a training of so many steps."""

    make: Callable[[int], Any]

    def factors(self, steps: int, at: Any) -> Array:
        """The factors at some of its steps."""
        return np.array(self.make(steps)(mx.array(at, mx.uint64)))


def _tried(factory: Callable[[Any, int], Any], options: Any) -> Tried:
    factory(options, 10)  # an error of its own is told once
    return Tried(lambda steps: factory(options, steps))


@law()
def made(tried: Tried) -> None:
    """The factory makes a function of the step."""
    schedule = tried.make(10)
    if not callable(schedule):
        fail(f"the factory returned {schedule!r}, which cannot be called")


@law(steps=_LENGTHS)
def shape(tried: Tried, steps: int) -> None:
    """Steps (…) -> factors (…), an array of float32; of many steps, each its own."""
    schedule = tried.make(steps)
    at = mx.arange(4, dtype=mx.uint64) * max(1, steps // 3)
    together = schedule(at)
    alone = [schedule(step) for step in at]
    for given, found in ((at, together), (at[0], alone[0])):
        if not isinstance(found, mx.array):
            fail(f"{found!r} is no array")
        if (found.shape, found.dtype) != (given.shape, mx.float32):
            fail(f"{given.shape} -> {found.dtype} {found.shape}, of {steps} steps")
    if not np.allclose(np.array(together), np.array(mx.stack(alone)), atol=1e-5):
        fail(f"steps {at.tolist()} of {steps} have other factors together than alone")


@law(steps=_LENGTHS)
def finite(tried: Tried, steps: int) -> None:
    """Finite and >= 0 at every step, and at those beyond the last."""
    at = np.append(np.arange(steps + 3), [2 * steps, 10**6])
    found = tried.factors(steps, at)
    wrong = first(~np.isfinite(found) | (found < 0))
    if wrong is not None:
        fail(f"it is {found[wrong]} at step {at[wrong]} of {steps}")


@law()
def trains(tried: Tried) -> None:
    """It is not 0 at all steps."""
    for steps in (10, 300):
        if not tried.factors(steps, np.arange(steps)).any():
            fail(f"it is 0 at every one of {steps} steps")


@law(steps=_LENGTHS, step=st.integers(0, 60), other=st.integers(0, 60))
def asked_twice(tried: Tried, steps: int, step: int, other: int) -> None:
    """A step has the same factor, whatever step was asked for before."""
    schedule = tried.make(steps)
    once = schedule(mx.array(step, mx.uint64)).item()
    mx.eval(schedule(mx.array(other, mx.uint64)))
    again = schedule(mx.array(step, mx.uint64)).item()
    if again != once:
        fail(f"step {step} of {steps} has {once}, and {again} after step {other}")


@law()
def traced(tried: Tried) -> None:
    """It can be compiled: no `if`, `.item()` or NumPy on the step."""
    try:
        with compiling():
            mx.compile(tried.make(10))(mx.array(3, mx.uint64))
    except Exception as error:
        fail(f"traced, it raises {type(error).__name__}: {' '.join(str(error).split())}")


KIND = Kind("schedule", _tried, laws_of(globals()))

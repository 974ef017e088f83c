"""MLX's own compilation (`mx.compile`): left on for a GPU, off on the CPU.

There MLX has g++ build a library for every function into a folder that all users of the machine
share, under a name that any of them can foresee, and loads what it finds. It takes half a second
and more a function, ends the process where the compiler or the folder is not to its liking, aborts
it at its end where a thread other than the first has used such a function, and gains 5 %. Many
functions of `mlx.nn`, such as `relu`, are compiled.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx


def on_cpu() -> bool:
    """Whether MLX works on the CPU by default."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def switch_off() -> None:
    """From now on a compiled function is the function itself, where MLX works on the CPU."""
    if on_cpu():
        mx.disable_compile()


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, `mx.compile` is what it is on a GPU: what is only traced, builds nothing yet."""
    mx.enable_compile()
    try:
        yield
    finally:
        switch_off()


def compiles() -> bool:
    """Whether MLX compiles here: a compiled function is then traced once, not called twice."""
    calls = []

    def counted(x: mx.array) -> mx.array:
        calls.append(x)
        return x + 1

    compiled = mx.compile(counted)
    compiled(mx.array(0.0))
    compiled(mx.array(0.0))
    return len(calls) == 1

"""The global generators of MLX, NumPy and Python, keyed for a while."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from ..core.seeding import mlx_seed


@contextmanager
def keyed(seed: int, purpose: str) -> Iterator[None]:
    """The global generators of MLX, NumPy and Python keyed inside; afterwards they go on as before.

    For parts that others wrote and that draw from these: the same whatever was drawn before.
    """
    high, low = mx.random.state[0].tolist()  # type: ignore[index]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    key = mlx_seed(seed, purpose)
    mx.random.seed(key)
    random.seed(key)
    np.random.seed(key % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

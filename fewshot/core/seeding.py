"""Random numbers keyed by what they are for: no global state, any order, any process."""

import zlib

import numpy as np


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A generator that depends on (seed, purpose, index) and on nothing else."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), index])


def mlx_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 64-bit seed for `mx.random.seed`, keyed the same way."""
    return int(generator(seed, purpose, index).integers(2**63))

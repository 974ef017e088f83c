"""A batch against itself, as a loss of batches and a miner see it."""

import numpy as np

from ..core.draws import Ints
from .strategies import Array


def against_others(table: Array, labels: Ints) -> tuple[Array, Ints, Ints]:
    """Of a table (b, b) and labels (b,): distances (b, b - 1), labels, and the others' labels."""
    b = len(labels)
    others = ~np.eye(b, dtype=bool)
    of_others = np.broadcast_to(labels, (b, b))[others].reshape(b, b - 1)
    return table[others].reshape(b, b - 1), labels, of_others


def whole(mask: Array) -> Array:
    """A miner's mask (b, b - 1) or (b, b - 1, b - 1) by places in the batch: (b, b), (b, b, b)."""
    b = len(mask)
    found = np.zeros((b,) * mask.ndim, bool)
    for i, row in enumerate(mask):
        places = np.delete(np.arange(b), i)
        found[i][np.ix_(*[places] * row.ndim)] = row
    return found

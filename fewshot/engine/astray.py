"""Images that may lie in a wrong folder: their neighbours are all of one other class."""

import numpy as np
from numpy.typing import NDArray

from ..core.draws import Ints

_NEIGHBOURS = 3
_LOOKED_AT = 2000  # of many images, evenly spread: a table of distances grows with their square
_FEW = 3, 1 / 20  # so many, or this share of the images: where more are, classes look alike


def astray(
    rows: NDArray[np.float32], labels: Ints, groups: Ints | None = None
) -> list[tuple[int, int]]:
    """Indices of rows (n, d) whose three nearest are all of one other class, and that class.

    The worst first: those much nearer to these than to any of their own. Rows of a class alone, or
    of a single group, are passed over, as are neighbours of a row's own group. None where there
    are more than a few: the embedding then does not tell the classes apart. Distances are
    Euclidean, NaN rows are left out. Wilson 1972, "Asymptotic properties of nearest neighbor rules
    using edited data", drops such images from a training set.
    """
    items = np.flatnonzero(~np.isnan(rows).any(axis=1))
    if len(items) > _LOOKED_AT:
        items = items[np.linspace(0, len(items) - 1, _LOOKED_AT).astype(int)]
    if len(items) <= _NEIGHBOURS:
        return []
    x, of = rows[items], labels[items]
    norms = (x**2).sum(axis=1)
    squared = norms[:, None] + norms - 2 * x @ x.T
    same = np.eye(len(items), dtype=bool)
    if groups is not None:
        same = groups[items][:, None] == groups[items]
    squared[same] = np.inf
    near = np.argpartition(squared, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
    far = np.take_along_axis(squared, near, axis=1).max(axis=1)
    own = np.where(of[:, None] == of, squared, np.inf).min(axis=1)
    theirs = of[near]
    found = (theirs == theirs[:, :1]).all(axis=1) & (theirs[:, 0] != of)
    found &= np.isfinite(far) & np.isfinite(own)
    few, share = _FEW
    if found.sum() > max(few, share * len(items)):
        return []
    worst = sorted(np.flatnonzero(found), key=lambda i: far[i] - own[i])
    return [(int(items[i]), int(theirs[i, 0])) for i in worst]

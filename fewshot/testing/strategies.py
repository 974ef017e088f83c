"""What laws are tried on: strategies that reach the corners, and fixed sets of labels."""

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ..draws import Ints

Array = NDArray[Any]
Floats = NDArray[np.float32]

seeds = st.integers(0, 2**32 - 1)
indices = st.integers(0, 10**6)

# Plain numbers first, as those of the smallest example; all are multiples of 1/512 up to 8, so that
# differences are exact in float32 and no square underflows.
grid = st.sampled_from(
    [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -0.5, -8.0, 8.0]
    + [n / 512 for n in (1, -1, 700, -731, 1023, -1500, 2222, -2897, 3333, -4001)]
)


@st.composite
def points(
    draw: st.DrawFn, n: int | st.SearchStrategy[int], d: int | None = None, elements: Any = grid
) -> Floats:
    """n points of d numbers, (n, d); some coincide and some are zero.

    Few are different and their numbers are drawn first: the smallest example is soon found.
    """
    rows = n if isinstance(n, int) else draw(n)
    width = max(d or 0, 4)
    point = st.lists(elements, min_size=width, max_size=width)
    different = [[0.0] * width, *draw(st.lists(point, min_size=1, max_size=min(rows, 4)))]
    of = draw(st.lists(st.integers(0, len(different) - 1), min_size=rows, max_size=rows))
    columns = draw(st.integers(1, width)) if d is None else d
    return np.array(different, np.float32)[of, :columns]


# ------------------------------------------------------------------------- for losses

# Distances are never negative; 0 and usual margins are likely.
lengths = st.one_of(st.sampled_from([0.0, 0.3, 1.0]), st.floats(0, 8, width=32))


@st.composite
def distances(draw: st.DrawFn, rows: int = 1) -> Floats:
    """(rows, n) distances, n from 1 to 12."""
    n = draw(st.integers(1, 12))
    return draw(arrays(np.float32, (rows, n), elements=lengths))


@st.composite
def compared_pairs(draw: st.DrawFn) -> tuple[Floats, NDArray[np.bool_]]:
    """Distances (p,) of pairs and whether each is of one class; all may be of one kind."""
    d = draw(distances())[0]
    return d, draw(arrays(np.bool_, len(d)))


@st.composite
def scored_queries(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Scores (…, q, n_way) and labels (…, q), with no, one or two leading axes."""
    lead = draw(st.sampled_from([(), (2,), (2, 3)]))
    q, n_way = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    values = arrays(np.float32, (*lead, q, n_way), elements=st.floats(-50, 0, width=32))
    labels = arrays(np.int64, (*lead, q), elements=st.integers(0, n_way - 1))
    return draw(values), draw(labels)


# -------------------------------------------------------------------------- for heads


@st.composite
def tasks(draw: st.DrawFn, ties: bool = True) -> tuple[Floats, Ints, Floats, int]:
    """Support (s, d), labels (s,), queries (q, d), n_way: on a grid with ties, or without any.

    From one support image a class on, in any order and of unequal counts; from one query on.
    """
    n_way, q = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    d = draw(st.integers(1 if ties else 2, 4))
    more = draw(st.lists(st.integers(0, n_way - 1), max_size=8))
    labels = np.array(draw(st.permutations([*range(n_way), *more])))
    shape = (len(labels) + q, d)
    if ties:
        rows: Array = draw(arrays(np.int64, shape, elements=st.integers(-3, 3)))
    else:
        rows = np.random.default_rng(draw(seeds)).normal(size=shape)
    rows = rows.astype(np.float32)
    support, query = rows[: len(labels)], rows[len(labels) :]
    if not ties:
        for name in ("euclidean", "cosine"):
            assume(np.diff(np.sort(cdist(query, support, name)), axis=1).min() > 1e-5)
    return support, labels, query, n_way


# ----------------------------------------------------------------------- for adapters


@st.composite
def supports(draw: st.DrawFn) -> tuple[NDArray[np.uint8], Ints]:
    """Images (s, 8, 8, 1) and labels, at least one a class; noise, or all equal."""
    n_way = draw(st.integers(2, 4))
    more = draw(st.lists(st.integers(0, n_way - 1), max_size=4))
    labels = np.array(draw(st.permutations([*range(n_way), *more])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    images = rng.integers(256, size=(len(labels), 8, 8, 1)).astype(np.uint8)
    if draw(st.booleans()):
        images[:] = draw(st.sampled_from([0, 77, 255]))
    return images, labels


# --------------------------------------------------------------------- for transforms


@st.composite
def batches(draw: st.DrawFn, channels: Any = (1, 2, 3, 4)) -> Floats:
    """A few images of any size, noise or black and white, in [0, 1]."""
    shape = (*(draw(st.integers(1, n)) for n in (4, 9, 9)), draw(st.sampled_from(channels)))
    images = np.random.default_rng(draw(seeds)).random(shape, np.float32)
    return images if draw(st.booleans()) else np.round(images)


# ----------------------------------------------------------------------- for samplers


def plenty(classes: int = 16, per_class: int = 60, group: int = 2) -> tuple[Ints, Ints]:
    """Labels and groups that any sampler's default options can draw from, in no order."""
    labels = np.repeat(np.arange(classes), per_class)
    groups = np.arange(len(labels)) // group
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], groups[order]


@st.composite
def labelled(draw: st.DrawFn, classes: int = 5, images: int = 12) -> tuple[Ints, Ints]:
    """Labels (some -1, ids with gaps) and groups within a class, of any sizes, shuffled."""
    labels: list[int] = [-1] * draw(st.integers(0, 3))
    groups: list[int] = list(range(len(labels)))
    for c in range(draw(st.integers(1, classes))):
        for size in draw(st.lists(st.integers(1, 4), min_size=1, max_size=images // 2)):
            labels += [3 * c] * size
            groups += [max(groups, default=0) + 1] * size
    order = np.array(draw(st.permutations(range(len(labels)))))
    return np.array(labels)[order], np.array(groups)[order]

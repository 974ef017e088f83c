"""What laws are tried on: strategies that reach the corners, and fixed sets of labels."""

import itertools
from functools import cache
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ..core.draws import Ints

Array = NDArray[Any]
Floats = NDArray[np.float32]

# Hypothesis often sets things of one kind equal that are drawn one by one, and often to the
# plainest, which no law can be broken by. So an example is drawn at once: its shape by its place in
# a list, and its numbers by one seed. Both are smaller for a plainer example.
seeds = st.integers(0, 2**32 - 1)
indices = st.integers(0, 10**6)


def _shapes(*axes: range) -> st.SearchStrategy[tuple[int, ...]]:
    """One number of every range, all as likely, small shapes first."""
    return st.sampled_from(sorted(itertools.product(*axes), key=lambda shape: (sum(shape), shape)))


def _picked(seed: int, table: Array, shape: Any) -> Array:
    """Random rows of a table whose plain ones are first; a small seed picks among the first few."""
    rng = np.random.default_rng(seed)
    return table[rng.integers(min(seed + 2, len(table)), size=shape)]


# Numbers of points, the plain ones first; all are multiples of 1/512 up to 8, so that differences
# are exact in float32 and no square underflows.
_GRID = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -0.5, -8.0, 8.0]
_GRID += [n / 512 for n in (1, -1, 700, -731, 1023, -1500, 2222, -2897, 3333, -4001)]


def shuffled(n: int, seed: int) -> Ints:
    """An order of n things, another one than theirs where there is another."""
    order = np.random.default_rng(seed).permutation(n)
    return np.roll(order, 1) if np.array_equal(order, np.arange(n)) else order


@cache
def _on_the_grid(d: int) -> Floats:
    """Points of d numbers: on an axis, and then anywhere."""
    axis = np.outer(_GRID, np.eye(1, d))
    anywhere = np.random.default_rng(d).choice(_GRID, (0 if d == 1 else 236, d))
    return np.concatenate([axis, anywhere]).astype(np.float32)


@st.composite
def points(draw: st.DrawFn, n: int, d: int | None = None) -> Floats:
    """n points of d numbers, (n, d): most are different, or they are copies of two and zero."""
    table = _on_the_grid(draw(st.sampled_from([1, 2, 3, 4, 2, 3, 4])) if d is None else d)
    seed = draw(seeds)
    found = _picked(seed, table, n)
    if seed % 3 == 2:
        found = _picked(seed, np.concatenate([table[:1], found[:2]]), n)
    return found


def lattices() -> list[Floats]:
    """Sets of points (n, d) whose triples are all to be tried, plain ones first.

    The square and the cube with all midpoints, at three scales, and points in 8 dimensions.
    """
    sides: list[tuple[int, list[float]]] = [(2, [0, 1, -1, 0.5, -0.5]), (3, [0, 1, 0.5])]
    found = [
        scale * np.array(list(itertools.product(side, repeat=d)))[:, ::-1]
        for scale in (1, 1 / 64, 64)
        for d, side in sides
    ]
    found.append(np.random.default_rng(0).normal(size=(30, 8)))
    return [each.astype(np.float32) for each in found]


# ------------------------------------------------------------------------- for losses


@cache
def _lengths() -> Floats:
    """Distances: often 0 and usual margins."""
    spread = np.random.default_rng(0).exponential(1.0, 16)
    return np.array([0, 1, 0.3, 0.5, 2, 1e-20, 0, 1, 0.3, 0, 8, *spread], np.float32)


@st.composite
def distances(draw: st.DrawFn, rows: int = 1) -> Floats:
    """(rows, n) distances, never negative, n from 1 to 12."""
    return _picked(draw(seeds), _lengths(), (rows, *draw(_shapes(range(1, 13)))))


@st.composite
def compared_pairs(draw: st.DrawFn) -> tuple[Floats, NDArray[np.bool_]]:
    """Distances (p,) of pairs and whether each is of one class; a few times all are, or none."""
    d = draw(distances())[0]
    share = draw(st.sampled_from([0.5, 0.5, 0.5, 0.5, 0.0, 1.0]))
    return d, np.random.default_rng(draw(seeds)).random(len(d)) < share


@st.composite
def compared_batches(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Distances (b, b) of a batch's images, 0 to themselves, and labels (b,); b from 4 to 9.

    A few times all images are of one class, or each of its own.
    """
    (b,) = draw(_shapes(range(4, 10)))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    table = np.triu(_picked(seed, _lengths(), (b, b)), 1)
    kinds = draw(st.sampled_from([2, 3, 2, 3, 2, 3, 1, b]))
    labels = rng.permutation(np.arange(b) % kinds) + rng.integers(3)
    return table + table.T, labels


@st.composite
def scored_queries(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Scores (…, q, n_way), some equal, and labels (…, q), with no, one or two leading axes."""
    lead = draw(st.sampled_from([(), (2,), (2, 3)]))
    q, n_way = draw(_shapes(range(1, 5), range(2, 6)))
    seed = draw(seeds)
    table = np.array([0, -1, -0.5, -50, *-50 * np.random.default_rng(0).random(60)], np.float32)
    scores = _picked(seed, table, (*lead, q, n_way))
    ties = np.random.default_rng(seed).random((*lead, q)) < (0.5 if seed % 2 else 0)
    scores[ties] = scores[ties][:, :1]
    return scores, _picked(seed, np.arange(n_way), (*lead, q))


# -------------------------------------------------------------------------- for heads


@st.composite
def tasks(draw: st.DrawFn, ties: bool = True) -> tuple[Floats, Ints, Floats, int]:
    """Support (s, d), labels (s,), queries (q, d), n_way: on a grid with ties, or without any.

    From one support image a class on, in any order and of unequal counts; from one query on.
    """
    n_way, q, d, more = draw(
        _shapes(range(2, 6), range(1, 7), range(1 if ties else 2, 5), range(9))
    )
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    labels = rng.permutation([*range(n_way), *rng.integers(n_way, size=more)])
    shape = (len(labels) + q, d)
    rows: Array = rng.normal(size=shape)
    if ties:
        rows = _picked(seed, np.array([0, 1, -1, 2, -2, 3, -3]), shape)
    rows = rows.astype(np.float32)
    support, query = rows[: len(labels)], rows[len(labels) :]
    if not ties:
        for name in ("euclidean", "cosine"):
            assume(np.diff(np.sort(cdist(query, support, name)), axis=1).min() > 1e-5)
    return support, labels, query, n_way


# ----------------------------------------------------------------------- for adapters


@st.composite
def supports(draw: st.DrawFn, one_colour: bool = True) -> tuple[NDArray[np.uint8], Ints]:
    """Images (s, 8, 8, 1) and labels, at least one a class; noise, or (`one_colour`) all equal."""
    n_way, more = draw(_shapes(range(2, 5), range(5)))
    rng = np.random.default_rng(draw(seeds))
    labels = rng.permutation([*range(n_way), *rng.integers(n_way, size=more)])
    images = rng.integers(256, size=(len(labels), 8, 8, 1)).astype(np.uint8)
    if one_colour and draw(st.booleans()):
        images[:] = draw(st.sampled_from([0, 77, 255]))
    return images, labels


# --------------------------------------------------------------------- for transforms


@st.composite
def batches(draw: st.DrawFn, channels: Any = (1, 2, 3, 4)) -> Floats:
    """A few images of any size, noise or black and white, in [0, 1]."""
    shape = (
        *draw(_shapes(range(1, 5), range(1, 10), range(1, 10))),
        draw(st.sampled_from(channels)),
    )
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
def around(draw: st.DrawFn, classes: int, images: int) -> tuple[Ints, Ints]:
    """As `labelled`, but about so many classes of so many images, or up to five times as many.

    Few times there are fewer images, or one class has but one.
    """
    n = max(1, classes + draw(st.sampled_from([0, 1, 2, 3, 1, 2, 3, -1])))
    least = int(images * draw(st.sampled_from([1, 2, 4, 4, 4, 4, 4, 0.5])))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    sizes = rng.integers(least, least + images + 1, n)
    if seed % 7 == 6:
        sizes[0] = 1
    labels = np.repeat(3 * np.arange(n), sizes)
    # At a class, and at every third image or so, begins another group.
    begins = (np.diff(labels, prepend=-1) > 0) | (rng.random(len(labels)) < 0.3)
    labels = np.concatenate([labels, [-1, -1, -1]])
    groups = np.concatenate([np.cumsum(begins), [-1, -2, -3]])
    order = rng.permutation(len(labels))
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

"""Draws of pairs, triplets, episodes and labelled images: NumPy only, pure in (seed, index).

Every factory takes (options, labels (n,), groups (n,) or None) and returns a `Sampler`; dataset
indices in a draw are positions in `labels`; entries labelled -1 are never drawn.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..core.components import Component
from ..core.draws import Episode, EpisodeBlock, Grouping, Ints, Labelled, Pairs, Triplets, in_blocks
from ..core.errors import ClassTooSmallError, DataError
from ..core.interfaces import Sampler
from ..core.options import at_least, option, positive, share
from ..core.seeding import generator

Places = NDArray[np.int32] | Ints  # positions in a table

_GROUPS_HELP = (
    "separate: images drawn as alike, or as support and query, share no group, where the dataset "
    "has groups"
)


def _pools(labels: Ints) -> dict[int, Ints]:
    """Image indices by class id."""
    return {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0}


def _used(groups: Ints | None, option: Grouping) -> Ints | None:
    """Groups as 0..n-1, where they are to be kept apart."""
    if groups is None or option == "mixed":
        return None
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _require(pools: dict[int, Ints], groups: Ints | None, count: int, why: str) -> None:
    """Raise DataError where a class has fewer than `count` images (or groups of images)."""
    unit = "images" if groups is None else "groups of images"
    for class_id, pool in pools.items():
        have = len(pool) if groups is None else len(np.unique(groups[pool]))
        if have < count:
            way_out = "" if groups is None else "; or let groups mix (groups = mixed)"
            raise ClassTooSmallError(
                class_id,
                f"has {have} {unit}, {why} needs {count}: add images, ask for fewer, or leave the "
                f"class out{way_out}",
            )


def _require_classes(pools: dict[int, Ints], count: int, why: str) -> None:
    if len(pools) < count:
        raise DataError(f"{why} needs {count} classes, there are {len(pools)}")


def _apart(rng: np.random.Generator, pool: Ints, groups: Ints | None, count: int) -> Ints:
    """`count` images of a pool, no two of one group where there are groups."""
    order = rng.permutation(pool)
    if groups is not None:
        _, first = np.unique(groups[order], return_index=True)
        order = order[np.sort(first)]
    return order[:count]


def _check_deal(pools: dict[int, Ints], groups: Ints | None, k_shot: int, n_query: int) -> None:
    """Raise DataError where some deal could leave a class short of support or queries."""
    for class_id, pool in pools.items():
        on_support_side, note = k_shot, "images"
        if groups is not None and len(pool):
            # The worst deal: the larger half, or almost k_shot images and then the largest group.
            sizes = np.sort(np.unique(groups[pool], return_counts=True)[1])[::-1]
            step = int(np.gcd.reduce(sizes))
            almost = (k_shot - 1) // step * step
            worst = max(sizes[: len(sizes) // 2].sum(), almost + sizes[0])
            on_support_side = min(worst, len(pool))
            note = f"images in {len(sizes)} groups, kept apart (--groups mixed would not)"
        if len(pool) < k_shot or len(pool) - on_support_side < n_query:
            raise ClassTooSmallError(
                class_id,
                f"has {len(pool)} {note}: not enough for {k_shot} support (k_shot) and at least "
                f"{n_query} query; ask for fewer (--k-shot), add images, or leave the class out",
            )


# ------------------------------------------------------------------------------- pairs


@frozen
class PairsOptions:
    """Options of random pairs."""

    pairs: int = option(32, "pairs in a draw", positive)
    same_share: float = option(0.5, "share of pairs of one class", share)
    groups: Grouping = option("separate", _GROUPS_HELP)


def pairs(options: PairsOptions, labels: Ints, groups: Ints | None = None) -> Sampler[Pairs]:
    """Random pairs: round(pairs · same_share) of one class, the others of two."""
    pools = _pools(labels)
    groups = _used(groups, options.groups)
    n_same = round(options.pairs * options.same_share)
    if n_same:
        _require(pools, groups, 2, "a pair of one class")
    _require_classes(pools, 2 if n_same < options.pairs else 1, "the sampler 'pairs'")
    classes = np.array(list(pools))

    def draw(seed: int, index: int) -> Pairs:
        rng = generator(seed, "pairs", index)
        chosen: list[Ints] = []
        for i in range(options.pairs):
            if i < n_same:
                chosen.append(_apart(rng, pools[rng.choice(classes)], groups, 2))
            else:
                two = rng.choice(classes, 2, replace=False)
                chosen.append(np.array([rng.choice(pools[c]) for c in two]))
        items = np.stack(chosen, axis=1).ravel()
        positions = np.arange(options.pairs)
        return Pairs(items, positions, positions + options.pairs, positions < n_same)

    return Sampler(draw=draw, layout="pairs")


@frozen
class AllPairsOptions:
    """Options of all pairs of a class-balanced batch."""

    classes: int = option(14, "classes in a batch, at the most", at_least(2))
    per_class: int = option(5, "images of each", at_least(2))
    groups: Grouping = option("separate", _GROUPS_HELP)


def _balanced(
    rng: np.random.Generator,
    pools: dict[int, Ints],
    groups: Ints | None,
    classes: int,
    per_class: int,
) -> Ints:
    chosen = rng.choice(np.array(list(pools)), min(classes, len(pools)), replace=False)
    return np.concatenate([_apart(rng, pools[c], groups, per_class) for c in chosen])


def all_pairs(options: AllPairsOptions, labels: Ints, groups: Ints | None = None) -> Sampler[Pairs]:
    """All pairs of a batch of `classes` x `per_class` images (Hermans et al. 2017's PK batch)."""
    pools = _pools(labels)
    groups = _used(groups, options.groups)
    _require_classes(pools, 2, "the sampler 'all-pairs'")
    _require(pools, groups, options.per_class, "per_class")

    def draw(seed: int, index: int) -> Pairs:
        rng = generator(seed, "all-pairs", index)
        items = _balanced(rng, pools, groups, options.classes, options.per_class)
        left, right = np.triu_indices(len(items), k=1)
        return Pairs(items, left, right, labels[items[left]] == labels[items[right]])

    return Sampler(draw=draw, layout="pairs")


# ---------------------------------------------------------------------- labelled images


@frozen
class BalancedOptions:
    """Options of a class-balanced batch."""

    classes: int = option(14, "classes in a batch, at the most", at_least(2))
    per_class: int = option(5, "images of each", at_least(2))
    groups: Grouping = option("separate", _GROUPS_HELP)


def balanced(
    options: BalancedOptions, labels: Ints, groups: Ints | None = None
) -> Sampler[Labelled]:
    """A batch of `classes` x `per_class` images, each to be compared with all the others.

    For losses of batches, and for miners (Hermans et al. 2017's PK batch).
    """
    pools = _pools(labels)
    groups = _used(groups, options.groups)
    _require_classes(pools, 2, "the sampler 'balanced'")
    _require(pools, groups, options.per_class, "per_class")
    return _labelled(options, labels, pools, groups, "balanced")


def _labelled(
    options: "BalancedOptions | ProxiesOptions",
    labels: Ints,
    pools: dict[int, Ints],
    groups: Ints | None,
    name: str,
    centres: int = 1,
) -> Sampler[Labelled]:
    ids = np.array(list(pools))

    def draw(seed: int, index: int) -> Labelled:
        rng = generator(seed, name, index)
        items = _balanced(rng, pools, groups, options.classes, options.per_class)
        return Labelled(items, np.searchsorted(ids, labels[items]), tuple(pools))

    return Sampler(draw=draw, layout="labelled", centres=centres)


@frozen
class ProxiesOptions:
    """Options of labelled images."""

    classes: int = option(14, "classes in a batch, at the most", positive)
    per_class: int = option(5, "images of each", positive)
    centres: int = option(1, "proxies of each class, of which the nearest counts", positive)


def proxies(options: ProxiesOptions, labels: Ints, groups: Ints | None = None) -> Sampler[Labelled]:
    """A batch of `classes` x `per_class` images, each to be told by its class's learned proxies.

    Several `centres` leave room for a class of several looks (Deng et al. 2020). Images are not
    compared with each other, so their groups do not matter.
    """
    pools = _pools(labels)
    _require_classes(pools, 2, "the sampler 'proxies'")
    _require(pools, None, options.per_class, "per_class")
    return _labelled(options, labels, pools, None, "proxies", options.centres)


# ---------------------------------------------------------------------------- triplets


@frozen
class TripletsOptions:
    """Options of triplets."""

    classes: int = option(10, "classes in a batch, at the most", at_least(2))
    per_class: int = option(6, "images of each", at_least(2))
    triplets: int = option(1024, "triplets drawn among the batch's images", positive)
    groups: Grouping = option("separate", _GROUPS_HELP)


def triplets(
    options: TripletsOptions, labels: Ints, groups: Ints | None = None
) -> Sampler[Triplets]:
    """Random triplets among the images of a class-balanced batch."""
    pools = _pools(labels)
    groups = _used(groups, options.groups)
    _require_classes(pools, 2, "the sampler 'triplets'")
    _require(pools, groups, options.per_class, "per_class")

    def draw(seed: int, index: int) -> Triplets:
        rng = generator(seed, "triplets", index)
        items = _balanced(rng, pools, groups, options.classes, options.per_class)
        t, per_class = options.triplets, options.per_class
        n_classes = len(items) // per_class
        own = rng.integers(n_classes, size=t)
        other = (own + rng.integers(1, n_classes, size=t)) % n_classes
        anchor = rng.integers(per_class, size=t)
        positive = (anchor + rng.integers(1, per_class, size=t)) % per_class
        negative = rng.integers(per_class, size=t)
        return Triplets(
            items,
            own * per_class + anchor,
            own * per_class + positive,
            other * per_class + negative,
        )

    return Sampler(draw=draw, layout="triplets")


# ---------------------------------------------------------------------------- episodes

# Episodes are drawn a block at a time, keyed by (seed, index // block), in tables with an entry for
# every image of every class of every episode: at most this many entries and this many episodes.
_ENTRIES, _EPISODES = 1 << 20, 256


def _shuffle(rng: np.random.Generator, table: Places, sizes: Ints, count: int) -> None:
    """Draw without replacement in every column of a table (n, r), in place.

    The first `count` rows become a draw, in random order, from a column's first `sizes` (r,)
    entries; the others of these come after. The first steps of a Fisher-Yates shuffle (Knuth,
    Algorithm P); a column smaller than `count` comes out wrong, but stays a permutation.
    """
    columns = len(sizes)
    step = np.arange(count)[:, None]
    left = np.maximum(sizes - step, 1)
    other = step + (rng.random((count, columns)) * left).astype(np.int64)
    other = np.minimum(other, len(table) - 1) * columns + np.arange(columns)
    flat = table.reshape(-1)
    for i in range(min(count, len(table))):
        chosen = flat.take(other[i])
        flat[other[i]] = table[i]
        table[i] = chosen


def _first(mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Where (…, n) is true: positions (n, …) flattened, the true ones first, and how many (…)."""
    order = np.argsort(~mask, axis=-1, kind="stable").reshape(-1, mask.shape[-1])
    return np.ascontiguousarray(order.T), mask.sum(axis=-1).ravel()


def _padded(rows: Sequence[Ints]) -> Ints:
    """Vectors of any lengths as rows of one table, padded with 0."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


@frozen(eq=False)
class _Pools:
    """Images, and groups of images, of c classes as padded tables."""

    ids: Ints  # (c,)
    images: Ints  # (c, n)
    sizes: Ints  # (c,)
    groups: Ints | None  # (c, n), of each image
    dealt: Ints  # (c, g): the groups of each class
    dealt_sizes: Ints  # (c, g): images in each, 0 for padding
    place: Ints  # (c, n): where in `dealt` each image's group is

    @classmethod
    def of(cls, pools: dict[int, Ints], groups: Ints | None) -> "_Pools":
        members = list(pools.values())
        of = [] if groups is None else [groups[pool] for pool in members]
        found = [np.unique(row, return_inverse=True, return_counts=True) for row in of]
        return cls(
            ids=np.array(list(pools), np.int64),
            images=_padded(members),
            sizes=np.array([len(pool) for pool in members], np.int64),
            groups=None if groups is None else _padded(of),
            dealt=_padded([f[0] for f in found]),
            dealt_sizes=_padded([f[2] for f in found]),
            place=_padded([f[1] for f in found]),
        )

    def block(self, n_way: int, at_most: int) -> int:
        """How many episodes to draw together."""
        groups = 0 if self.groups is None else int(self.groups.max(initial=0))
        return max(1, min(at_most, _ENTRIES // (n_way * self.images.shape[1] + groups + 1)))

    def deal(
        self, rng: np.random.Generator, classes: Ints, k_shot: int
    ) -> tuple[Places, Places, Ints]:
        """Support and possible queries of the classes (e, w), positions in `ids`, of e episodes.

        Returns positions in the classes' images, one column (of e · w) for every class of every
        episode: support (k_shot, e · w), possible queries (n', e · w) and how many these are.

        With groups, the first half of a class's groups by a random rank (more where k_shot needs
        them) are dealt to the support and the queries are the images of the others, so that none is
        a near copy of a support image. One rank serves all classes of an episode: a signer who
        signs every class is on one side. No query is of a group that is in any class's support.
        """
        sizes = self.sizes[classes].ravel()
        if self.groups is None:
            places = np.arange(self.images.shape[1], dtype=np.int32)  # half as much to move
            every = np.repeat(places[:, None], len(sizes), axis=1)
            _shuffle(rng, every, sizes, k_shot)
            return every[:k_shot], every[k_shot:], sizes - k_shot
        e, w = classes.shape
        episode = np.arange(e)[:, None, None]
        count = int(self.groups.max()) + 1
        rank = rng.permuted(np.tile(np.arange(count), (e, 1)), axis=1)
        in_group = self.dealt_sizes[classes]
        order = np.argsort(
            np.where(in_group > 0, rank[episode, self.dealt[classes]], count), axis=-1
        )
        so_far = np.take_along_axis(in_group, order, axis=-1).cumsum(axis=-1)
        half = (in_group > 0).sum(axis=-1) // 2
        chosen = np.maximum((so_far < k_shot).sum(axis=-1) + 1, half)
        side = np.zeros(in_group.shape, bool)
        np.put_along_axis(side, order, np.arange(in_group.shape[-1]) < chosen[..., None], axis=-1)
        ours = np.take_along_axis(side, self.place[classes], axis=-1)
        real = np.arange(self.images.shape[1]) < self.sizes[classes][..., None]
        table, on_support_side = _first(ours & real)
        _shuffle(rng, table, on_support_side, k_shot)
        support = table[:k_shot]
        taken = np.zeros((e, count), bool)
        of_support = self.groups[classes.ravel(), support].reshape(-1, e, w)
        taken[episode[:, :, 0], of_support] = True
        rest, n_rest = _first(real & ~ours & ~taken[episode, self.groups[classes]])
        return support, rest, n_rest


def _short(class_id: int, have: int, n_query: int) -> ClassTooSmallError:
    """Groups that span classes leave a class short of queries."""
    return ClassTooSmallError(
        class_id,
        f"has {have} images apart from the groups of the support, {n_query} queries are "
        "needed; ask for fewer, or let groups mix (groups = mixed)",
    )


@frozen
class EpisodesOptions:
    """Options of N-way K-shot episodes."""

    n_way: int = option(5, "classes in an episode", at_least(2))
    k_shot: int = option(5, "support images per class", positive)
    n_query: int = option(15, "query images per class", positive)
    groups: Grouping = option("separate", _GROUPS_HELP)


def episodes(
    options: EpisodesOptions, labels: Ints, groups: Ints | None = None
) -> Sampler[Episode]:
    """N-way K-shot episodes (Vinyals et al. 2016): support and query share no image, nor group."""
    by_class = _pools(labels)
    groups = _used(groups, options.groups)
    _require_classes(by_class, options.n_way, f"n_way {options.n_way}")
    _check_deal(by_class, groups, options.k_shot, options.n_query)
    pools = _Pools.of(by_class, groups)
    n_way, k_shot, n_query = options.n_way, options.k_shot, options.n_query
    size = pools.block(n_way, _EPISODES)
    support_labels, query_labels = (np.repeat(np.arange(n_way), k) for k in (k_shot, n_query))

    @lru_cache(maxsize=1)
    def dealt(seed: int, number: int) -> tuple[Ints, Ints, Ints, Ints]:
        """Support (e, s), query (e, q), possible queries (e, n_way) and classes (e, n_way)."""
        rng = generator(seed, "episodes", number)
        every = np.repeat(np.arange(len(pools.ids))[:, None], size, axis=1)
        _shuffle(rng, every, np.full(size, len(pools.ids)), n_way)
        classes = np.ascontiguousarray(every[:n_way].T)
        support, rest, n_rest = pools.deal(rng, classes, k_shot)
        _shuffle(rng, rest, n_rest, n_query)
        chosen = [
            pools.images[classes.ravel(), rows].reshape(-1, size, n_way).transpose(1, 2, 0)
            for rows in (support, rest[:n_query])
        ]
        s, q = (rows.reshape(size, -1) for rows in chosen)
        return s, q, n_rest.reshape(size, n_way), pools.ids[classes]

    def part(seed: int, number: int, episodes: slice) -> tuple[Ints, Ints, Ints]:
        support, query, n_rest, classes = (rows[episodes] for rows in dealt(seed, number))
        for e, w in np.argwhere(n_rest < n_query):
            raise _short(int(classes[e, w]), int(n_rest[e, w]), n_query)
        return support, query, classes

    def draw(seed: int, index: int) -> Episode:
        number, at = divmod(index, size)
        support, query, classes = (rows[0] for rows in part(seed, number, slice(at, at + 1)))
        return Episode.joined(support, support_labels, query, query_labels, classes.tolist())

    def blocks(seed: int, count: int) -> Iterator[EpisodeBlock]:
        for start in range(0, count, size):
            support, query, classes = part(seed, start // size, slice(0, count - start))
            yield EpisodeBlock(support, support_labels, query, query_labels, classes)

    return Sampler(draw=draw, layout="episode", blocks=blocks)


def all_way(
    labels: Ints, groups: Ints | None, query_classes: Sequence[int], k_shot: int
) -> Sampler[Episode]:
    """Support of k_shot images of every class, queries all others of some classes.

    The reference experiment's test: new classes must be told from each other and from the known.
    """
    by_class = _pools(labels)
    groups = _used(groups, "separate")
    asked = {c: by_class.get(c, np.empty(0, np.int64)) for c in query_classes}
    _check_deal(asked, groups, k_shot, 1)
    _check_deal({c: p for c, p in by_class.items() if c not in asked}, groups, k_shot, 0)
    pools = _Pools.of(by_class, groups)
    n_way = len(pools.ids)
    size = pools.block(n_way, 16)
    asked_labels = np.searchsorted(pools.ids, list(asked))
    support_labels = np.repeat(np.arange(n_way), k_shot)

    @lru_cache(maxsize=1)
    def dealt(seed: int, number: int) -> tuple[Ints, Ints, Ints]:
        """Support (e, s), possible queries (e, asked, n), and how many these are (e, asked)."""
        rng = generator(seed, "all-way", number)
        classes = np.tile(np.arange(n_way), (size, 1))
        support, rest, n_rest = pools.deal(rng, classes, k_shot)
        rest = rest.reshape(len(rest), size, n_way)[..., asked_labels]
        return (
            pools.images[classes.ravel(), support].T.reshape(size, -1),
            pools.images[asked_labels, rest].transpose(1, 2, 0),
            n_rest.reshape(size, n_way)[:, asked_labels],
        )

    def draw(seed: int, index: int) -> Episode:
        number, at = divmod(index, size)
        support, rest, n_rest = (rows[at] for rows in dealt(seed, number))
        for c, have in zip(asked, n_rest, strict=True):
            if not have:
                raise _short(c, 0, 1)
        queries = [row[:have] for row, have in zip(rest, n_rest, strict=True)]
        query_labels = np.repeat(asked_labels, n_rest)
        classes = pools.ids.tolist()
        return Episode.joined(
            support, support_labels, np.concatenate(queries), query_labels, classes
        )

    def blocks(seed: int, count: int) -> Iterator[EpisodeBlock]:
        # With groups, episodes differ in their number of queries.
        return in_blocks((draw(seed, i) for i in range(count)), at_most=size)

    return Sampler(draw=draw, layout="episode", blocks=blocks)


COMPONENTS = (
    Component("pairs", pairs, PairsOptions, "random pairs"),
    Component(
        "all-pairs",
        all_pairs,
        AllPairsOptions,
        "all pairs of a class-balanced batch",
    ),
    Component(
        "triplets",
        triplets,
        TripletsOptions,
        "random triplets of a class-balanced batch",
    ),
    Component("episodes", episodes, EpisodesOptions, "N-way K-shot episodes"),
    Component(
        "balanced",
        balanced,
        BalancedOptions,
        "a class-balanced batch, every image compared with the others",
    ),
    Component(
        "proxies",
        proxies,
        ProxiesOptions,
        "a class-balanced batch, compared with learned vectors of every class",
    ),
)

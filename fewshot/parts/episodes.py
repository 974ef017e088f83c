"""Episodes: NumPy only, pure in (seed, index), many at a time."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..core.draws import (
    Episode,
    EpisodeBlock,
    Grouping,
    Ints,
    Parents,
    Roles,
    Within,
    in_blocks,
)
from ..core.errors import ClassTooSmallError
from ..core.interfaces import Sampler
from ..core.options import at_least, option, positive
from ..core.seeding import generator
from .pools import (
    GROUPS_HELP,
    WITHIN_HELP,
    Masks,
    Places,
    families,
    groups_used,
    pools_of,
    require_classes,
    sides,
)

# Episodes are drawn a block at a time, keyed by (seed, index // block), in tables with an entry for
# every image of every class of every episode: at most this many entries and this many episodes.
_ENTRIES, _EPISODES = 1 << 20, 256


@frozen(eq=False)
class _Pools:
    """Images, and groups of images, of c classes as padded tables."""

    ids: Ints  # (c,)
    images: Ints  # (c, n)
    sizes: Ints  # (c,)
    groups: Ints | None  # (c, n), of each image
    dealt: Ints  # (c, g): the groups of each class
    dealt_sizes: Ints  # (c, g): images in each that may be support, 0 for padding
    place: Ints  # (c, n): where in `dealt` each image's group is
    may: tuple[Masks, Masks] | None  # (c, n): whether an image may be support, and query

    @classmethod
    def of(cls, pools: dict[int, Ints], groups: Ints | None, role: Roles | None = None) -> "_Pools":
        members = list(pools.values())
        of = [] if groups is None else [groups[pool] for pool in members]
        found = [np.unique(row, return_inverse=True) for row in of]
        may_support, may_query = sides(role, max((pool.max() for pool in members), default=0) + 1)

        def where(mask: Masks) -> Masks:
            return _padded([mask[pool].astype(np.int64) for pool in members]) > 0

        return cls(
            ids=np.array(list(pools), np.int64),
            images=_padded(members),
            sizes=np.array([len(pool) for pool in members], np.int64),
            groups=None if groups is None else _padded(of),
            dealt=_padded([f[0] for f in found]),
            dealt_sizes=_padded(
                [
                    np.bincount(place[may_support[pool]], minlength=len(names))
                    for (names, place), pool in zip(found, members, strict=False)
                ]
            ),
            place=_padded([f[1] for f in found]),
            may=None if role is None else (where(may_support), where(may_query)),
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
        With roles, groups without an image that may be support are none to deal.
        """
        sizes = self.sizes[classes].ravel()
        if self.groups is None and self.may is None:
            places = np.arange(self.images.shape[1], dtype=np.int32)  # half as much to move
            every = np.repeat(places[:, None], len(sizes), axis=1)
            _shuffle(rng, every, sizes, k_shot)
            return every[:k_shot], every[k_shot:], sizes - k_shot
        e, w = classes.shape
        real = np.arange(self.images.shape[1]) < self.sizes[classes][..., None]
        may_support, may_query = (
            (real, real) if self.may is None else (real & mask[classes] for mask in self.may)
        )
        if self.groups is None:
            table, n_support = _first(may_support)
            _shuffle(rng, table, n_support, k_shot)
            support = table[:k_shot]
            drawn = np.zeros((e * w, self.images.shape[1]), bool)
            np.put_along_axis(drawn, support.T, True, axis=1)
            rest, n_rest = _first(may_query & ~drawn.reshape(real.shape))
            return support, rest, n_rest
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
        table, on_support_side = _first(ours & may_support)
        _shuffle(rng, table, on_support_side, k_shot)
        support = table[:k_shot]
        taken = np.zeros((e, count), bool)
        of_support = self.groups[classes.ravel(), support].reshape(-1, e, w)
        taken[episode[:, :, 0], of_support] = True
        rest, n_rest = _first(may_query & ~ours & ~taken[episode, self.groups[classes]])
        return support, rest, n_rest


@frozen
class EpisodesOptions:
    """Options of N-way K-shot episodes."""

    n_way: int = option(5, "classes in an episode", at_least(2))
    k_shot: int = option(5, "support images per class", positive)
    n_query: int = option(15, "query images per class", positive)
    groups: Grouping = option("separate", GROUPS_HELP)
    within: Within = option("any", WITHIN_HELP)
    dirichlet: float = option(
        0.0,
        "above 0: n_query is the mean, and the classes' shares of the queries are drawn from a "
        "Dirichlet distribution of this concentration (2: Veilleux et al. 2021); 0: all the same",
        at_least(0.0),
    )


def _check_deal(
    pools: dict[int, Ints], groups: Ints | None, role: Roles | None, k_shot: int, n_query: int
) -> None:
    """Raise DataError where some deal could leave a class short of support or queries.

    With roles and groups, only where every deal would: the others are found as they are drawn.
    """
    for class_id, pool in pools.items():
        if role is not None:
            may_support, may_query = sides(role[pool], len(pool))
            s, q, both = (int(n.sum()) for n in (may_support, may_query, may_support & may_query))
            if s < k_shot or q - (min(k_shot, both) if groups is None else 0) < n_query:
                raise ClassTooSmallError(
                    class_id,
                    f"has {s} images that may be support and {q} that may be queries ({both} of "
                    f"them either): not enough for {k_shot} support (k_shot) and at least "
                    f"{n_query} query; ask for fewer (--k-shot), or add images of the role",
                )
            continue
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
                f"{n_query} query; ask for fewer (--k-shot), add images, or leave "
                "the class out (--set split.too_small=leave-out)",
            )


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


def _uneven(rng: np.random.Generator, have: Ints, n_query: int, concentration: float) -> Ints:
    """Queries of each class (e, w), w · n_query in an episode, their shares of a Dirichlet.

    None has more than the images that may be asked, `have` (e, w): what is over falls to the first
    classes that have some left. Where a class has fewer than n_query, all have n_query, which
    is refused later.
    """
    e, w = have.shape
    shares = rng.dirichlet(np.full(w, concentration), e)
    ends = np.rint(shares.cumsum(axis=1) * w * n_query).astype(np.int64)
    found = np.minimum(np.diff(ends, axis=1, prepend=0), have)
    left = have - found
    over = w * n_query - found.sum(axis=1, keepdims=True)
    found += np.clip(over - (left.cumsum(axis=1) - left), 0, left)
    return np.where((have < n_query).any(axis=1, keepdims=True), n_query, found)


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


def _short(class_id: int, have: int, n_query: int) -> ClassTooSmallError:
    """Groups that span classes leave a class short of queries."""
    return ClassTooSmallError(
        class_id,
        f"has {have} images apart from the groups of the support, {n_query} queries are "
        "needed; ask for fewer, or let groups mix (groups = mixed)",
    )


def episodes(
    options: EpisodesOptions,
    labels: Ints,
    groups: Ints | None = None,
    role: Roles | None = None,
    parents: Parents | None = None,
) -> Sampler[Episode]:
    """N-way K-shot episodes (Vinyals et al. 2016): support and query share no image, nor group.

    `role`: of each image, "support", "query" or "both", where it cannot be either. `parents`: of
    each class id, what it belongs to; where classes are of one parent, every parent of at least
    `n_way` is as likely.
    """
    by_class = pools_of(labels)
    groups = groups_used(groups, options.groups)
    fewer = f": --set sampler.n_way={len(by_class)} in training, --n-way {len(by_class)} in a test"
    require_classes(by_class, options.n_way, f"n_way {options.n_way}", fewer)
    _check_deal(by_class, groups, role, options.k_shot, options.n_query)
    pools = _Pools.of(by_class, groups, role)
    together = families(list(by_class), parents, options.within, options.n_way)
    table, sizes = _padded(together).T, np.array([len(family) for family in together])
    n_way, k_shot, n_query = options.n_way, options.k_shot, options.n_query
    size = pools.block(n_way, _EPISODES)
    support_labels, evenly = (np.repeat(np.arange(n_way), k) for k in (k_shot, n_query))

    @lru_cache(maxsize=1)
    def dealt(seed: int, number: int) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Support (e, s), query (e, q) and its labels, possible queries and classes (e, n_way)."""
        rng = generator(seed, "episodes", number)
        family = rng.integers(len(sizes), size=size) if len(sizes) > 1 else np.zeros(size, np.int64)
        every = np.ascontiguousarray(table[:, family])
        _shuffle(rng, every, sizes[family], n_way)
        classes = np.ascontiguousarray(every[:n_way].T)
        support, rest, n_rest = pools.deal(rng, classes, k_shot)
        have = n_rest.reshape(size, n_way)
        labels = np.broadcast_to(evenly, (size, n_way * n_query))
        at_most = n_query
        if options.dirichlet:
            of_class = _uneven(rng, have, n_query, options.dirichlet)
            labels = np.repeat(np.tile(np.arange(n_way), size), of_class.ravel()).reshape(size, -1)
            at_most = int(of_class.max())
        _shuffle(rng, rest, n_rest, at_most)
        s, q = (
            pools.images[classes.ravel(), rows].reshape(-1, size, n_way).transpose(1, 2, 0)
            for rows in (support, rest[:at_most])
        )
        # Of uneven queries the first of each class.
        asked = q[np.arange(q.shape[-1]) < of_class[..., None]] if options.dirichlet else q
        ids = pools.ids[classes]
        return s.reshape(size, -1), asked.reshape(size, -1), labels, have, ids

    def part(seed: int, number: int, episodes: slice) -> tuple[Ints, Ints, Ints, Ints]:
        support, query, labels, n_rest, classes = (rows[episodes] for rows in dealt(seed, number))
        for e, w in np.argwhere(n_rest < n_query):
            raise _short(int(classes[e, w]), int(n_rest[e, w]), n_query)
        return support, query, labels, classes

    def draw(seed: int, index: int) -> Episode:
        number, at = divmod(index, size)
        s, q, query_labels, c = (rows[0] for rows in part(seed, number, slice(at, at + 1)))
        return Episode.joined(s, support_labels, q, query_labels, c.tolist())

    def blocks(seed: int, count: int) -> Iterator[EpisodeBlock]:
        for start in range(0, count, size):
            support, query, uneven, classes = part(seed, start // size, slice(0, count - start))
            query_labels = uneven if options.dirichlet else evenly
            yield EpisodeBlock(support, support_labels, query, query_labels, classes)

    return Sampler(draw=draw, layout="episode", blocks=blocks)


def all_way(
    labels: Ints,
    groups: Ints | None,
    query_classes: Sequence[int],
    k_shot: int,
    role: Roles | None = None,
) -> Sampler[Episode]:
    """Support of k_shot images of every class, queries all others of some classes.

    The reference experiment's test: new classes must be told from each other and from the known.
    With roles, the support is of images that may be support, queries are of those that may be.
    """
    by_class = pools_of(labels)
    groups = groups_used(groups, "separate")
    asked = {c: by_class.get(c, np.empty(0, np.int64)) for c in query_classes}
    known = {c: p for c, p in by_class.items() if c not in asked}
    _check_deal(asked, groups, role, k_shot, 1)
    _check_deal(known, groups, role, k_shot, 0)
    pools = _Pools.of(by_class, groups, role)
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

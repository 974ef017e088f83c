"""Draws of pairs, triplets and episodes from labels: NumPy only, a pure function of (seed, index).

Every factory takes (options, labels (n,), groups (n,) or None) and returns a `Sampler`; dataset
indices in a draw are positions in `labels`; entries labelled -1 are never drawn.
"""

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from .errors import ClassTooSmallError, DataError
from .interfaces import Sampler
from .records import Episode, Grouping, Ints, Pairs, Triplets, at_least, option, positive, share
from .seeding import generator

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


def _deal(
    rng: np.random.Generator, pool: Ints, groups: Ints | None, rank: Ints, k_shot: int
) -> tuple[Ints, Ints]:
    """k_shot support images of a pool, and the images that may be queries, both shuffled.

    With groups, the first half of the pool's groups by `rank` (more where k_shot needs them) are
    dealt to the support and the queries are the images of the others, so that none is a near copy
    of a support image. One rank serves all classes of an episode: a signer who signs every class is
    on one side.
    """
    order = rng.permutation(pool)
    if groups is None:
        return order[:k_shot], order[k_shot:]
    dealt, sizes = np.unique(groups[pool], return_counts=True)
    by_rank = np.argsort(rank[dealt])
    needed = int(np.searchsorted(np.cumsum(sizes[by_rank]), k_shot)) + 1
    chosen = dealt[by_rank][: max(needed, len(dealt) // 2)]
    on_support_side = np.isin(groups[order], chosen)
    return order[on_support_side][:k_shot], order[~on_support_side]


def _deal_all(
    rng: np.random.Generator, pools: dict[int, Ints], groups: Ints | None, k_shot: int
) -> dict[int, tuple[Ints, Ints]]:
    """`_deal` for every class; no query is of a group that is in any class's support."""
    rank = np.empty(0, np.int64) if groups is None else rng.permutation(groups.max() + 1)
    dealt = {c: _deal(rng, pool, groups, rank, k_shot) for c, pool in pools.items()}
    if groups is None:
        return dealt
    taken = np.unique(groups[np.concatenate([support for support, _ in dealt.values()])])
    return {
        c: (support, rest[~np.isin(groups[rest], taken)]) for c, (support, rest) in dealt.items()
    }


def _require_queries(class_id: int, rest: Ints, n_query: int) -> None:
    """Raise DataError where groups that span classes leave a class short of queries."""
    if len(rest) < n_query:
        raise ClassTooSmallError(
            class_id,
            f"has {len(rest)} images apart from the groups of the support, {n_query} queries are "
            "needed; ask for fewer, or let groups mix (groups = mixed)",
        )


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


def _episode(
    supports: Sequence[Ints], queries: Sequence[Ints], query_labels: Sequence[int], classes: Ints
) -> Episode:
    """An episode from support images of every class and query images of some."""
    support, query = np.concatenate(supports), np.concatenate(queries)
    return Episode(
        items=np.concatenate([support, query]),
        support=np.arange(len(support)),
        support_labels=np.repeat(np.arange(len(supports)), [len(s) for s in supports]),
        query=len(support) + np.arange(len(query)),
        query_labels=np.repeat(query_labels, [len(q) for q in queries]),
        classes=classes.tolist(),
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
    pools = _pools(labels)
    groups = _used(groups, options.groups)
    _require_classes(pools, options.n_way, f"n_way {options.n_way}")
    _check_deal(pools, groups, options.k_shot, options.n_query)
    ids = np.array(list(pools))

    def draw(seed: int, index: int) -> Episode:
        rng = generator(seed, "episodes", index)
        classes = rng.choice(ids, options.n_way, replace=False)
        dealt = _deal_all(rng, {c: pools[c] for c in classes}, groups, options.k_shot)
        for c, (_, rest) in dealt.items():
            _require_queries(c, rest, options.n_query)
        return _episode(
            [support for support, _ in dealt.values()],
            [rest[: options.n_query] for _, rest in dealt.values()],
            range(options.n_way),
            classes,
        )

    return Sampler(draw=draw, layout="episode")


def all_way(
    labels: Ints, groups: Ints | None, query_classes: Sequence[int], k_shot: int
) -> Sampler[Episode]:
    """Support of k_shot images of every class, queries all others of some classes.

    The reference experiment's test: new classes must be told from each other and from the known.
    """
    pools = _pools(labels)
    groups = _used(groups, "separate")
    asked = {c: pools.get(c, np.empty(0, np.int64)) for c in query_classes}
    _check_deal(asked, groups, k_shot, 1)
    _check_deal({c: p for c, p in pools.items() if c not in asked}, groups, k_shot, 0)
    ids = np.array(list(pools))

    def draw(seed: int, index: int) -> Episode:
        dealt = _deal_all(generator(seed, "all-way", index), pools, groups, k_shot)
        for c in asked:
            _require_queries(c, dealt[c][1], 1)
        return _episode(
            [support for support, _ in dealt.values()],
            [dealt[c][1] for c in asked],
            [int(np.flatnonzero(ids == c)[0]) for c in asked],
            ids,
        )

    return Sampler(draw=draw, layout="episode")

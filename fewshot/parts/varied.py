"""Episodes of many ways and shots: NumPy only, pure in (seed, index)."""

import numpy as np
from attrs import frozen

from ..core.draws import Episode, Grouping, Ints, Parents, Roles, Within
from ..core.errors import ClassTooSmallError
from ..core.interfaces import Sampler
from ..core.options import at_least, option, positive
from ..core.seeding import generator
from .pools import (
    GROUPS_HELP,
    WITHIN_HELP,
    Masks,
    families,
    groups_used,
    pools_of,
    require_classes,
    require_images,
    sides,
)


@frozen
class VariedOptions:
    """Options of episodes of many ways and shots."""

    min_way: int = option(5, "fewest classes in an episode", at_least(2))
    max_way: int = option(50, "most classes in an episode", at_least(2))
    max_query: int = option(10, "most query images per class", positive)
    max_support: int = option(500, "most support images in an episode", positive)
    max_shot: int = option(
        100, "images of a class that count for the size of the support", positive
    )
    groups: Grouping = option("separate", GROUPS_HELP)
    within: Within = option("any", WITHIN_HELP)


def varied(
    options: VariedOptions,
    labels: Ints,
    groups: Ints | None = None,
    role: Roles | None = None,
    parents: Parents | None = None,
) -> Sampler[Episode]:
    """Episodes of any number of classes, each with shots of its own (Triantafillou et al. 2020).

    Section 3.2 and appendix A.2: as many classes as a uniform draw says; as many queries of each,
    min(max_query, half of the smallest class); a support of min(max_support, Σ ⌈β min(max_shot,
    what a class has left)⌉) images, β uniform in (0, 1], but one of each class at least; of a class
    1 + ⌊R (support − classes)⌋, R in proportion to its images times a factor that is log-uniform in
    [1/2, 2], as far as it has them. With groups a class counts the images of the side it is on: a
    random half of its groups is support, as in `episodes`.
    """
    pools = pools_of(labels)
    groups = groups_used(groups, options.groups)
    least = min(options.min_way, options.max_way)
    require_classes(pools, least, f"min_way {least}")
    require_images(pools, groups, 2, "an episode")
    may_support, may_query = sides(role, len(labels))
    for class_id, pool in pools.items():
        if not (may_support[pool].any() and may_query[pool].any()):
            raise ClassTooSmallError(
                class_id, "has no image that may be support, or none that may be a query (role)"
            )
    ids = np.array(list(pools))
    together = families(list(pools), parents, options.within, least)

    def draw(seed: int, index: int) -> Episode:
        rng = generator(seed, "varied", index)
        family = together[rng.integers(len(together))]
        n_way = rng.integers(least, min(options.max_way, len(family)) + 1)
        classes = ids[rng.permutation(family)[:n_way]]
        dealt = _dealt(rng, [pools[c] for c in classes], groups, may_support, may_query)
        for c, (support, query, _) in zip(classes, dealt, strict=True):
            if not (len(support) and len(query)):
                raise ClassTooSmallError(
                    int(c),
                    "has no images apart from the groups of the support; let groups mix (groups = "
                    "mixed), or leave the class out",
                )
        have = np.array([count for _, _, count in dealt])
        n_query = min(options.max_query, int(have.min()) // 2, *(len(q) for _, q, _ in dealt))
        asked = [q[:n_query] for _, q, _ in dealt]
        left = [np.setdiff1d(s, q) for (s, _, _), q in zip(dealt, asked, strict=True)]
        shots = _shots(rng, options, have, np.array([len(rows) for rows in left]))
        drawn = [rng.permutation(rows)[:k] for rows, k in zip(left, shots, strict=True)]
        return Episode.joined(
            np.concatenate(drawn), np.repeat(np.arange(n_way), shots), np.concatenate(asked),
            np.repeat(np.arange(n_way), n_query), classes.tolist(),
        )  # fmt: skip

    return Sampler(draw=draw, layout="episode")


def _shots(rng: np.random.Generator, options: VariedOptions, have: Ints, left: Ints) -> Ints:
    """Support images of each class, which has `left` of its `have` for that."""
    beta = 1 - rng.random()
    size = np.ceil(beta * np.minimum(options.max_shot, left)).sum()
    spare = max(0, min(options.max_support, int(size)) - len(have))
    weights = np.exp(rng.uniform(np.log(0.5), np.log(2), len(have))) * have
    return np.minimum((weights / weights.sum() * spare).astype(np.int64) + 1, left)


def _dealt(
    rng: np.random.Generator,
    pools: list[Ints],
    groups: Ints | None,
    may_support: Masks,
    may_query: Masks,
) -> list[tuple[Ints, Ints, int]]:
    """Of each class the images that may be support, and those that may be queries, in random order.

    Those that can be nothing else come first among queries. And how many images it has, of which
    half at most become queries; with groups, so many that this is no bound.
    """
    found = []
    taken = set[int]()
    if groups is not None:
        rank = rng.permutation(int(groups.max()) + 1)
        for pool in pools:
            own = np.unique(groups[pool[may_support[pool]]])
            own = own[np.argsort(rank[own])][: max(1, len(np.unique(groups[pool])) // 2)]
            taken.update(own.tolist())
    for pool in pools:
        ours = pool[may_support[pool]]
        asked = rng.permutation(pool[may_query[pool]])
        if groups is None:
            asked = asked[np.argsort(may_support[asked], kind="stable")]
            found.append((ours, asked, len(pool)))
        else:
            side = np.isin(groups[ours], list(taken))
            asked = asked[~np.isin(groups[asked], list(taken))]
            found.append((ours[side], asked, 2 * len(pool)))
    return found

"""Images by class, and what a draw requires of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.draws import Grouping, Ints, Parents, Roles, Within, as_ints
from ..core.errors import ClassTooSmallError, DataError

Places = NDArray[np.int32] | Ints  # positions in a table
Masks = NDArray[np.bool_]

GROUPS_HELP = (
    "separate: images drawn as alike, or as support and query, share no group, where the dataset "
    "has groups"
)


WITHIN_HELP = (
    "parent: the classes of a draw are of one parent, where the dataset says of which each is, and "
    "harder to tell apart"
)


def pools_of(labels: Ints) -> dict[int, Ints]:
    """Image indices by class id. Raises DataError for labels that are no vector of integers."""
    labels = as_ints(labels)
    return {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0}


def sides(role: Roles | None, n: int) -> tuple[Masks, Masks]:
    """Which of n images may be support, and which may be queries; without roles all may be both."""
    if role is None:
        return np.ones(n, bool), np.ones(n, bool)
    return role != "query", role != "support"


def groups_used(groups: Ints | None, option: Grouping) -> Ints | None:
    """Groups as 0..n-1, where they are to be kept apart."""
    if groups is None or option == "mixed":
        return None
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def families(
    ids: Sequence[int], parents: Parents | None, within: Within, fewest: int
) -> list[Ints]:
    """Classes that may be drawn together, as positions in `ids`: all, or those of each parent.

    Parents of fewer than `fewest` classes are left out. Raises DataError where none remains, or the
    data set says nothing of parents.
    """
    if within == "any":
        return [np.arange(len(ids))]
    if parents is None:
        raise DataError(
            "sampler.within=parent wants a data set that says what each class belongs to "
            "(`parents`), and this one does not: leave it at any"
        )
    of = np.array([parents[class_id] for class_id in ids], np.str_)
    found = [np.flatnonzero(of == name) for name in np.unique(of)]
    kept = [members for members in found if len(members) >= fewest]
    if not kept:
        most = max(map(len, found), default=0)
        raise DataError(
            f"sampler.within=parent: a draw needs {fewest} classes of one parent, and none has "
            f"more than {most}: ask for fewer"
        )
    return kept


def require_images(
    pools: dict[int, Ints], groups: Ints | None, count: int, why: str, fewer: str = "ask for fewer"
) -> None:
    """Raise DataError where a class has fewer than `count` images (or groups of images).

    `fewer`: the setting that asks for as many as there are.
    """
    unit = "images" if groups is None else "groups of images"
    for class_id, pool in pools.items():
        have = len(pool) if groups is None else len(np.unique(groups[pool]))
        if have < count:
            way_out = "" if groups is None else "; or let groups mix (groups = mixed)"
            raise ClassTooSmallError(
                class_id,
                f"has {have} {unit}, {why} needs {count}: add images, {fewer}, or leave the "
                f"class out{way_out}",
            )


def batch_pools(
    labels: Ints,
    groups: Ints | None,
    option: Grouping,
    per_class: int,
    name: str,
    again: bool = False,
) -> tuple[dict[int, Ints], Ints | None]:
    """Images by class and groups to keep apart, for class-balanced batches of the sampler `name`.

    Raises DataError for fewer than two classes, or one of fewer than `per_class`, unless images may
    be drawn `again`.
    """
    pools, groups = pools_of(labels), groups_used(groups, option)
    require_classes(pools, 2, f"the sampler '{name}'")
    if not again:
        most = min(len(p) if groups is None else len(np.unique(groups[p])) for p in pools.values())
        fewer = f"--set sampler.per_class={most}" if most >= 2 else "ask for fewer"
        require_images(pools, groups, per_class, "per_class", fewer)
    return pools, groups


def require_classes(pools: dict[int, Ints], count: int, why: str, way_out: str = "") -> None:
    """Raise DataError where there are fewer than `count` classes."""
    if len(pools) < count:
        raise DataError(f"{why} needs {count} classes, there are {len(pools)}{way_out}")


def apart(
    rng: np.random.Generator, pool: Ints, groups: Ints | None, count: int, again: bool = False
) -> Ints:
    """`count` images of a pool, no two of one group where there are groups.

    `again`: where there are fewer, these over again, each as often as any other, give or take one.
    """
    order = rng.permutation(pool)
    if groups is not None:
        _, first = np.unique(groups[order], return_index=True)
        order = order[np.sort(first)]
    return np.resize(order, count) if again else order[:count]

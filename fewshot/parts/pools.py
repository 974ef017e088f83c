"""Images by class, and what a draw requires of them."""

import numpy as np
from numpy.typing import NDArray

from ..core.draws import Grouping, Ints, Roles
from ..core.errors import ClassTooSmallError, DataError

Places = NDArray[np.int32] | Ints  # positions in a table
Masks = NDArray[np.bool_]

GROUPS_HELP = (
    "separate: images drawn as alike, or as support and query, share no group, where the dataset "
    "has groups"
)


def pools_of(labels: Ints) -> dict[int, Ints]:
    """Image indices by class id."""
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


def require_images(pools: dict[int, Ints], groups: Ints | None, count: int, why: str) -> None:
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


def batch_pools(
    labels: Ints, groups: Ints | None, option: Grouping, per_class: int, name: str
) -> tuple[dict[int, Ints], Ints | None]:
    """Images by class and groups to keep apart, for class-balanced batches of the sampler `name`.

    Raises DataError for fewer than two classes, or one of fewer than `per_class`.
    """
    pools, groups = pools_of(labels), groups_used(groups, option)
    require_classes(pools, 2, f"the sampler '{name}'")
    require_images(pools, groups, per_class, "per_class")
    return pools, groups


def require_classes(pools: dict[int, Ints], count: int, why: str) -> None:
    """Raise DataError where there are fewer than `count` classes."""
    if len(pools) < count:
        raise DataError(f"{why} needs {count} classes, there are {len(pools)}")


def apart(rng: np.random.Generator, pool: Ints, groups: Ints | None, count: int) -> Ints:
    """`count` images of a pool, no two of one group where there are groups."""
    order = rng.permutation(pool)
    if groups is not None:
        _, first = np.unique(groups[order], return_index=True)
        order = order[np.sort(first)]
    return order[:count]

"""Draws of pairs, triplets and labelled images: NumPy only, pure in (seed, index).

Every factory takes (options, labels (n,), groups (n,) or None) and returns a `Sampler`; dataset
indices in a draw are positions in `labels`; entries labelled -1 are never drawn.
"""

from collections.abc import Callable

import numpy as np
from attrs import frozen

from ..core.components import Component
from ..core.draws import Grouping, Ints, Labelled, Pairs, Parents, Roles, Triplets, Within
from ..core.errors import ConfigError
from ..core.interfaces import Sampler
from ..core.options import at_least, option, positive, share
from ..core.seeding import generator
from .episodes import EpisodesOptions, episodes
from .pools import (
    GROUPS_HELP,
    WITHIN_HELP,
    apart,
    batch_pools,
    families,
    groups_used,
    pools_of,
    require_classes,
    require_images,
)
from .varied import VariedOptions, varied

# ------------------------------------------------------------------------------- pairs


@frozen
class PairsOptions:
    """Options of random pairs."""

    pairs: int = option(32, "pairs in a draw", positive)
    same_share: float = option(0.5, "share of pairs of one class", share)
    groups: Grouping = option("separate", GROUPS_HELP)
    images: int = option(
        0,
        "images that all pairs of a draw are drawn among, so that many pairs cost few images; 0: "
        "every pair has two of its own",
        at_least(0),
    )


def pairs(options: PairsOptions, labels: Ints, groups: Ints | None = None) -> Sampler[Pairs]:
    """Random pairs: round(pairs · same_share) of one class, the others of two.

    With `images`, couples of images of one class are drawn first, of every class equally often, and
    then the pairs among them. Raises ConfigError where these cannot hold a pair of two classes.
    """
    pools = pools_of(labels)
    groups = groups_used(groups, options.groups)
    n_same = round(options.pairs * options.same_share)
    if 0 < options.images < 4:
        raise ConfigError(
            f"sampler.images = {options.images}: pairs of one class and of two are drawn among at "
            "least 4 images (0: every pair has two of its own)"
        )
    if n_same or options.images:
        require_images(pools, groups, 2, "a pair of one class")
    require_classes(pools, 2 if n_same < options.pairs else 1, "the sampler 'pairs'")
    classes = np.array(list(pools))

    def draw(seed: int, index: int) -> Pairs:
        rng = generator(seed, "pairs", index)
        chosen: list[Ints] = []
        for i in range(options.pairs):
            if i < n_same:
                chosen.append(apart(rng, pools[rng.choice(classes)], groups, 2))
            else:
                two = rng.choice(classes, 2, replace=False)
                chosen.append(np.array([rng.choice(pools[c]) for c in two]))
        items = np.stack(chosen, axis=1).ravel()
        positions = np.arange(options.pairs)
        return Pairs(items, positions, positions + options.pairs, positions < n_same)

    def among(seed: int, index: int) -> Pairs:
        rng = generator(seed, "pairs", index)
        rounds = -(-options.images // (2 * len(classes)))
        of = np.concatenate([rng.permutation(classes) for _ in range(rounds)])
        couples = [apart(rng, pools[c], groups, 2) for c in of[: options.images // 2]]
        items = np.unique(np.concatenate(couples))
        left, right = np.triu_indices(len(items), k=1)
        same = labels[items[left]] == labels[items[right]]
        near = same if groups is None else same & (groups[items[left]] != groups[items[right]])
        pair = np.concatenate(
            [
                rng.choice(np.flatnonzero(near), n_same),
                rng.choice(np.flatnonzero(~same), options.pairs - n_same),
            ]
        )
        return Pairs(items, left[pair], right[pair], same[pair])

    return Sampler(draw=among if options.images else draw, layout="pairs")


_AGAIN_HELP = (
    "draw images again where a class has fewer than per_class, or than that many groups, in place "
    "of refusing"
)


@frozen
class BalancedOptions:
    """Options of a class-balanced batch."""

    classes: int = option(14, "classes in a batch, at the most", at_least(2))
    per_class: int = option(5, "images of each", at_least(2))
    groups: Grouping = option("separate", GROUPS_HELP)
    within: Within = option("any", WITHIN_HELP)
    replacement: bool = option(False, _AGAIN_HELP)


def _balanced(
    options: "BalancedOptions | ProxiesOptions",
    labels: Ints,
    groups: Ints | None,
    parents: Parents | None,
    name: str,
) -> tuple[dict[int, Ints], Callable[[np.random.Generator], Ints]]:
    """Images by class, and what draws a batch of them, for the sampler `name`."""
    grouping = options.groups if isinstance(options, BalancedOptions) else "mixed"
    again, per_class = options.replacement, options.per_class
    pools, groups = batch_pools(labels, groups, grouping, per_class, name, again)
    ids = np.array(list(pools))
    together = families(list(pools), parents, options.within, 2)

    def batch(rng: np.random.Generator) -> Ints:
        family = ids[together[rng.integers(len(together)) if len(together) > 1 else 0]]
        chosen = rng.choice(family, min(options.classes, len(family)), replace=False)
        return np.concatenate([apart(rng, pools[c], groups, per_class, again) for c in chosen])

    return pools, batch


def all_pairs(
    options: BalancedOptions,
    labels: Ints,
    groups: Ints | None = None,
    parents: Parents | None = None,
) -> Sampler[Pairs]:
    """All pairs of a batch of `classes` x `per_class` images (Hermans et al. 2017's PK batch)."""
    _, batch = _balanced(options, labels, groups, parents, "all-pairs")

    def draw(seed: int, index: int) -> Pairs:
        items = batch(generator(seed, "all-pairs", index))
        left, right = np.triu_indices(len(items), k=1)
        return Pairs(items, left, right, labels[items[left]] == labels[items[right]])

    return Sampler(draw=draw, layout="pairs")


# ---------------------------------------------------------------------- labelled images


def balanced(
    options: BalancedOptions,
    labels: Ints,
    groups: Ints | None = None,
    parents: Parents | None = None,
) -> Sampler[Labelled]:
    """A batch of `classes` x `per_class` images, each to be compared with all the others.

    For losses of batches, and for miners (Hermans et al. 2017's PK batch).
    """
    return _labelled(options, labels, groups, parents, "balanced")


def _labelled(
    options: "BalancedOptions | ProxiesOptions",
    labels: Ints,
    groups: Ints | None,
    parents: Parents | None,
    name: str,
    centres: int = 1,
) -> Sampler[Labelled]:
    pools, batch = _balanced(options, labels, groups, parents, name)
    ids = np.array(list(pools))

    def draw(seed: int, index: int) -> Labelled:
        items = batch(generator(seed, name, index))
        return Labelled(items, np.searchsorted(ids, labels[items]), tuple(pools))

    return Sampler(draw=draw, layout="labelled", centres=centres)


@frozen
class ProxiesOptions:
    """Options of labelled images."""

    classes: int = option(14, "classes in a batch, at the most", positive)
    per_class: int = option(5, "images of each", positive)
    centres: int = option(1, "proxies of each class, of which the nearest counts", positive)
    within: Within = option("any", WITHIN_HELP)
    replacement: bool = option(False, _AGAIN_HELP)


def proxies(
    options: ProxiesOptions,
    labels: Ints,
    groups: Ints | None = None,
    role: Roles | None = None,
    parents: Parents | None = None,
) -> Sampler[Labelled]:
    """A batch of `classes` x `per_class` images, each to be told by its class's learned proxies.

    Several `centres` leave room for a class of several looks (Deng et al. 2020). Images are not
    compared with each other, so their groups and roles do not matter.
    """
    return _labelled(options, labels, None, parents, "proxies", options.centres)


# ---------------------------------------------------------------------------- triplets


@frozen
class TripletsOptions:
    """Options of triplets."""

    classes: int = option(10, "classes in a batch, at the most", at_least(2))
    per_class: int = option(6, "images of each", at_least(2))
    triplets: int = option(1024, "triplets drawn among the batch's images", positive)
    groups: Grouping = option("separate", GROUPS_HELP)
    within: Within = option("any", WITHIN_HELP)


def triplets(
    options: TripletsOptions,
    labels: Ints,
    groups: Ints | None = None,
    parents: Parents | None = None,
) -> Sampler[Triplets]:
    """Random triplets among the images of a class-balanced batch."""
    like = BalancedOptions(options.classes, options.per_class, options.groups, options.within)
    _, batch = _balanced(like, labels, groups, parents, "triplets")

    def draw(seed: int, index: int) -> Triplets:
        rng = generator(seed, "triplets", index)
        items = batch(rng)
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


COMPONENTS = (
    Component("pairs", pairs, PairsOptions, "random pairs"),
    Component(
        "all-pairs",
        all_pairs,
        BalancedOptions,
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
        "varied",
        varied,
        VariedOptions,
        "episodes of many ways and shots, unequal among classes",
    ),
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

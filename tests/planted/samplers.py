"""Samplers with a fault, and odd ones without."""

import random

import numpy as np
from attrs import evolve

from fewshot import (
    BalancedOptions,
    DataError,
    Episode,
    EpisodeBlock,
    EpisodesOptions,
    Labelled,
    Pairs,
    PairsOptions,
    ProxiesOptions,
    Sampler,
    Triplets,
    TripletsOptions,
    VariedOptions,
    all_pairs,
    balanced,
    episodes,
    generator,
    pairs,
    proxies,
    triplets,
    varied,
)
from planted import Collection

CASES = Collection("sampler")

SMALL = EpisodesOptions(n_way=3, k_shot=2, n_query=2)


def good(labels, groups=None, made=episodes, options=SMALL):
    return made(options, labels, groups)


def redrawn(sampler, change):
    """The sampler with every draw changed: `change(draw)`, in its blocks too."""
    return Sampler(
        draw=lambda seed, index: change(sampler.draw(seed, index)), layout=sampler.layout
    )


@CASES.breaks("made")
def a_bare_function(_, labels, groups):
    return good(labels, groups).draw


@CASES.breaks("layout")
def pairs_that_say_episodes(_, labels, groups):
    return evolve(pairs(PairsOptions(), labels, groups), layout="episode")


@CASES.breaks("positions")
def positions_from_one(_, labels, groups):
    sampler = all_pairs(BalancedOptions(3, 2), labels, groups)
    return redrawn(sampler, lambda d: evolve(d, right=d.right + 1))


@CASES.breaks("positions")
def images_from_one(_, labels, groups):
    def draw(seed, index):
        items = generator(seed, "x", index).permutation(len(labels))[:40] + len(labels) // 2
        same = labels[items[:20] % len(labels)] == labels[items[20:] % len(labels)]
        return Pairs(items, np.arange(20), np.arange(20, 40), same)

    return Sampler(draw, "pairs")


@CASES.breaks("unlabelled")
def unlabelled_as_a_class(_, labels, groups):
    return all_pairs(BalancedOptions(100, 2), labels - labels.min(), groups)


@CASES.breaks("classes")
def ids_off_by_one(_, labels, groups):
    sampler = good(labels, groups)
    return redrawn(sampler, lambda d: evolve(d, classes=[c + 1 for c in d.classes]))


@CASES.breaks("classes")
def ids_in_the_order_of_labels(_, labels, groups):
    sampler = good(labels, groups)
    return redrawn(sampler, lambda d: evolve(d, classes=range(d.n_way)))


@CASES.breaks("classes")
def different_pairs_of_any_two(_, labels, groups):
    known = np.flatnonzero(labels >= 0)

    def draw(seed, index):
        items = generator(seed, "x", index).permutation(known)[:60]
        return Pairs(items, np.arange(30), np.arange(30, 60), np.zeros(30, bool))

    return Sampler(draw, "pairs")


@CASES.breaks("classes")
def negatives_of_any_class(_, labels, groups):
    sampler = triplets(TripletsOptions(triplets=64), labels, groups)
    return redrawn(sampler, lambda d: evolve(d, negative=d.negative[::-1]))


@CASES.breaks("no image twice")
def the_anchor_as_its_positive(_, labels, groups):
    sampler = triplets(TripletsOptions(), labels, groups)
    return redrawn(sampler, lambda d: evolve(d, positive=d.anchor))


@CASES.breaks("no image twice")
def with_replacement(_, labels, groups):
    def draw(seed, index):
        rng = generator(seed, "x", index)
        ids = rng.choice(np.unique(labels[labels >= 0]), 3, replace=False)
        pools = [rng.permutation(np.flatnonzero(labels == c)) for c in ids]
        support = np.concatenate([rng.choice(pool[:3], 3) for pool in pools])
        query = np.concatenate([rng.choice(pool[3:], 3) for pool in pools])
        of = np.repeat(np.arange(3), 3)
        return Episode.joined(support, of, query, of, ids.tolist())

    return Sampler(draw, "episode")


@CASES.breaks("no image twice")
def queries_among_the_support(_, labels, groups):
    def draw(seed, index):
        rng = generator(seed, "x", index)
        ids = rng.choice(np.unique(labels[labels >= 0]), 3, replace=False)
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == c), 3) for c in ids])
        of = np.repeat(np.arange(3), 3)
        return Episode.joined(rows, of, rows, of, ids.tolist())

    return Sampler(draw, "episode")


@CASES.breaks("no image twice")
def a_batch_with_an_image_twice(_, labels, groups):
    sampler = proxies(ProxiesOptions(3, 2), labels, groups)
    return redrawn(
        sampler, lambda d: evolve(d, items=d.items[:1].repeat(2), labels=d.labels[:1].repeat(2))
    )


@CASES.breaks("all classes")
def the_classes_of_the_batch_alone(_, labels, groups):
    def own(draw):
        ids, of = np.unique(draw.labels, return_inverse=True)
        return Labelled(draw.items, of, [draw.classes[i] for i in ids])

    return redrawn(proxies(ProxiesOptions(3, 2), labels, groups), own)


@CASES.breaks("all classes")
def the_classes_of_a_default_batch_alone(_, labels, groups):
    def own(draw):
        ids, of = np.unique(draw.labels, return_inverse=True)
        return Labelled(draw.items, of, [draw.classes[i] for i in ids])

    return redrawn(proxies(ProxiesOptions(), labels, groups), own)


@CASES.breaks("classes")
def dataset_ids_in_place_of_labels(_, labels, groups):
    sampler = proxies(ProxiesOptions(3, 2), labels, groups)
    return redrawn(sampler, lambda d: evolve(d, labels=np.array(d.classes)[d.labels]))


@CASES.breaks("groups apart")
def no_word_of_groups(_, labels, groups):
    return all_pairs(BalancedOptions(4, 20), labels, None)


@CASES.breaks("groups apart")
def episodes_of_mixed_groups(_, labels, groups):
    return episodes(EpisodesOptions(5, 20, 20), labels, None)


@CASES.breaks("any order")
def a_generator_that_runs_on(_, labels, groups):
    rng, sampler = np.random.default_rng(0), good(labels, groups)

    def draw(seed, index):
        return sampler.draw(seed, index + int(rng.integers(10**6)))

    return Sampler(draw, "episode")


@CASES.breaks("any order")
def numpys_own_numbers(_, labels, groups):
    sampler = good(labels, groups)
    return Sampler(
        lambda seed, index: sampler.draw(seed, np.random.randint(10**6)),  # noqa: NPY002
        "episode",
    )


@CASES.breaks("seed counts")
def a_seed_of_its_own(_, labels, groups):
    sampler = good(labels, groups)
    return Sampler(lambda seed, index: sampler.draw(0, index), "episode")


@CASES.breaks("index counts")
def the_first_draw_for_ever(_, labels, groups):
    sampler = good(labels, groups)
    return Sampler(lambda seed, index: sampler.draw(seed, 0), "episode")


@CASES.breaks("index counts")
def an_epoch_of_three(_, labels, groups):
    sampler = good(labels, groups)
    return Sampler(lambda seed, index: sampler.draw(seed, index % 3), "episode")


@CASES.breaks("global random numbers")
def seeds_numpy(_, labels, groups):
    sampler = good(labels, groups)

    def draw(seed, index):
        np.random.seed((seed + index) % 2**32)  # noqa: NPY002
        return sampler.draw(seed, index)

    return Sampler(draw, "episode")


@CASES.breaks("global random numbers")
def seeds_python_when_made(_, labels, groups):
    random.seed(0)
    return good(labels, groups)


@CASES.breaks("inputs untouched")
def sorts_the_labels(_, labels, groups):
    labels.sort()
    return good(labels, groups)


@CASES.breaks("refuses or delivers")
def fails_when_drawing(_, labels, groups):
    known = [c for c in np.unique(labels) if c >= 0]

    def draw(seed, index):
        rng = generator(seed, "x", index)
        ids = rng.choice(known, 4, replace=False)  # ValueError where there are fewer
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == c), 2, False) for c in ids])
        return Pairs(rows, [0, 2], [1, 4], np.array([True, False]))

    return Sampler(draw, "pairs")


@CASES.breaks("refuses or delivers")
def an_image_twice_where_a_class_is_small(_, labels, groups):
    known = [c for c in np.unique(labels) if c >= 0]
    if len(known) < 2:
        raise DataError("two classes are needed")

    def draw(seed, index):
        rng = generator(seed, "x", index)
        pools = [np.flatnonzero(labels == c) for c in known]
        chosen = [rng.choice(p, 2, replace=len(p) < 2) for p in pools]
        n = len(chosen)
        items = np.concatenate(chosen)
        return Pairs(items, 2 * np.arange(n), 2 * np.arange(n) + 1, np.ones(n, bool))

    return Sampler(draw, "pairs")


@CASES.breaks("refuses or delivers")
def large_episodes_with_an_image_twice(_, labels, groups):
    """Support and queries of the default counts, among classes that hardly have them."""
    sampler = episodes(EpisodesOptions(), labels, None)
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]

    def draw(seed, index):
        found = sampler.draw(seed, index)
        if counts.min() >= 60:
            return found
        return evolve(found, items=np.concatenate([found.items[:-1], found.items[-2:-1]]))

    return Sampler(draw, "episode")


@CASES.breaks("refuses or delivers")
def groups_mixed_where_they_are_large(_, labels, groups):
    good = pairs(PairsOptions(), labels, groups)
    large = groups is not None and np.unique(groups, return_counts=True)[1].max() > 4
    return pairs(PairsOptions(), labels, None) if large else good


@CASES.breaks("no image")
def nothing_will_do(_, labels, groups):
    known = np.flatnonzero(labels >= 0)

    def draw(seed, index):
        items = generator(seed, "x", index).permutation(known)[:40]
        same = labels[items[:20]] == labels[items[20:]]
        return Pairs(items, np.arange(20), np.arange(20, 40), same)

    return Sampler(draw, "pairs")


@CASES.breaks("reaches every image")
def never_the_last_class(_, labels, groups):
    return good(np.where(labels == labels.max(), -1, labels), groups)


@CASES.breaks("reaches every image")
def never_the_last_image(_, labels, groups):
    return good(np.where(np.arange(len(labels)) == len(labels) - 1, -1, labels), groups)


@CASES.breaks("blocks are the draws")
def blocks_of_another_seed(_, labels, groups):
    sampler = good(labels, groups)
    return evolve(sampler, blocks=lambda seed, count: sampler.blocks(seed + 1, count))


@CASES.breaks("blocks are the draws")
def blocks_that_leave_the_rest_out(_, labels, groups):
    sampler = good(labels, groups)

    def blocks(seed, count):
        for start in range(0, count - count % 2, 2):
            yield EpisodeBlock.of([sampler.draw(seed, start + i) for i in range(2)])

    return evolve(sampler, blocks=blocks)


@CASES.breaks("blocks are the draws")
def blocks_that_begin_again(_, labels, groups):
    """Every block of 64 is the first."""
    sampler = good(labels, groups)

    def blocks(seed, count):
        for start in range(0, count, 64):
            yield from sampler.blocks(seed, min(64, count - start))

    return evolve(sampler, blocks=blocks)


@CASES.breaks("roles")
def roles_that_are_not_looked_at(_, labels, groups, role=None):
    return good(labels, groups)


@CASES.breaks("roles")
def roles_of_the_support_alone(_, labels, groups, role=None):
    free = role is None
    return episodes(
        SMALL, labels, groups, None if free else np.where(role == "query", role, "both")
    )


# ------------------------------------------------- unequal counts, one parent, images drawn again


@CASES.breaks("no image twice")
def queries_of_unequal_episodes_among_the_support(_, labels, groups):
    """Of every class, however many shots it has, the first is asked as well."""

    def asked(draw):
        first = np.unique(draw.support_labels, return_index=True)[1]
        items, of = draw.items[draw.support], draw.support_labels
        return Episode.joined(items, of, items[first], of[first], draw.classes)

    return redrawn(varied(VariedOptions(max_way=8), labels, groups), asked)


@CASES.breaks("classes")
def equal_shots_said_of_unequal_ones(_, labels, groups):
    def said(draw):
        equal = np.arange(len(draw.support)) * draw.n_way // len(draw.support)
        return evolve(draw, support_labels=equal)

    return redrawn(varied(VariedOptions(max_way=8), labels, groups), said)


@CASES.breaks("groups apart")
def unequal_episodes_of_mixed_groups(_, labels, groups):
    return varied(VariedOptions(max_way=8), labels, None)


@CASES.breaks("one parent", BalancedOptions(3, 2))
def parents_that_are_asked_for_and_not_looked_at(options, labels, groups=None, parents=None):
    if options.within == "parent" and parents is None:
        raise DataError("no parents")
    return balanced(evolve(options, within="any"), labels, groups)


@CASES.breaks("one parent", VariedOptions())
def parents_that_nobody_needs(options, labels, groups=None, parents=None):
    within = "any" if parents is None else options.within
    return varied(evolve(options, within=within), labels, groups, None, parents)


@CASES.breaks("one parent", SMALL)
def the_first_parent_for_ever(options, labels, groups=None, parents=None):
    if parents is not None:
        kept = np.array([parent == parents[0] for parent in parents])
        labels = np.where(kept[labels], labels, -1)
    return episodes(options, labels, groups, None, parents)


@CASES.breaks("drawn again", BalancedOptions(3, 2))
def the_first_image_again(options, labels, groups=None):
    """Where a class has too few, the last ones are all of its first."""
    sampler = balanced(options, labels, groups)

    def first(draw):
        alone = [
            items[:1].repeat(len(items)) for items in np.split(draw.items, len(draw.items) // 2)
        ]
        return evolve(draw, items=np.concatenate(alone))

    return redrawn(sampler, first) if options.replacement else sampler


@CASES.breaks("drawn again", BalancedOptions(3, 4))
def small_classes_as_they_are(options, labels, groups=None):
    """Each image once, in place of as many of every class."""
    sampler = balanced(options, labels, groups)

    def once(draw):
        _, first = np.unique(draw.items, return_index=True)
        return evolve(draw, items=draw.items[first], labels=draw.labels[first])

    return redrawn(sampler, once) if options.replacement else sampler


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def related_draws(_, labels, groups):
    """Three seeds in a row share their draws, in another order."""
    sampler = pairs(PairsOptions(), labels, groups)
    return Sampler(lambda seed, index: sampler.draw(seed // 3, 7 * index + seed % 3), "pairs")


@CASES.sound
def one_pair_a_draw(_, labels, groups):
    return pairs(PairsOptions(pairs=2), labels, groups)


@CASES.sound
def episodes_of_unequal_counts(_, labels, groups):
    sampler = good(labels, groups)

    def fewer(draw):
        kept = len(draw.query) - int(draw.items[0]) % 2
        rows = np.concatenate([draw.support, draw.query[:kept]])
        return Episode.joined(
            draw.items[draw.support], draw.support_labels, draw.items[rows[len(draw.support) :]],
            draw.query_labels[:kept], draw.classes,
        )  # fmt: skip

    return redrawn(sampler, fewer)


@CASES.sound
def triplets_of_one_anchor(_, labels, groups):
    sampler = triplets(TripletsOptions(), labels, groups)

    def one(draw):
        same = draw.anchor == draw.anchor[0]
        return Triplets(draw.items, draw.anchor[same], draw.positive[same], draw.negative[same])

    return redrawn(sampler, one)

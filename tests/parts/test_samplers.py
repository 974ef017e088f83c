"""The built-in samplers, and when they must refuse; what every draw keeps is in test_laws.py."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import every, make

from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import ClassTooSmallError, ConfigError, DataError
from fewshot.core.seeding import generator, mlx_seed
from fewshot.data.split import ClassSplit
from fewshot.parts.episodes import EpisodesOptions, all_way, episodes
from fewshot.parts.samplers import (
    BalancedOptions,
    PairsOptions,
    ProxiesOptions,
    TripletsOptions,
    all_pairs,
    balanced,
    pairs,
    proxies,
    triplets,
)
from fewshot.testing import labelled, plenty
from fewshot.testing.samplers import draw_fault, same_draw
from fewshot.testing.strategies import indices, seeds

Ints = NDArray[np.int64]


def check_draw(draw: Any, labels: Ints, groups: Ints | None) -> None:
    """`groups` only where they must be kept apart."""
    assert draw_fault(draw, labels, groups) is None


def numbers(error: BaseException) -> set[int]:
    """All that an error's text names."""
    return {int(number) for number in re.findall(r"\d+", str(error))}


def counts(values: Any) -> set[int]:
    return set(np.unique(values, return_counts=True)[1].tolist())


# ----------------------------------------------------------------------- every sampler


@every("sampler")
def test_one_class_is_too_few(entry: Any) -> None:
    labels, groups = plenty()
    with pytest.raises(DataError, match="classes"):
        make(entry, np.where(labels == 3, 3, -1), groups)


@every("sampler")
def test_a_class_of_one_image_is_refused_by_name_and_number(entry: Any) -> None:
    labels, _ = plenty()
    of_seven = np.flatnonzero(labels == 7)
    labels[of_seven[1:]] = -1
    with pytest.raises(ClassTooSmallError, match=r"class 7 has 1 ") as caught:
        make(entry, labels, None)
    assert caught.value.class_id == 7
    assert str(caught.value.named([f"sign {i}" for i in range(16)])).startswith("class 'sign 7' ")


@given(a=st.tuples(seeds, indices), b=st.tuples(seeds, indices))
def test_random_numbers_depend_on_seed_purpose_and_index_alone(a: Any, b: Any) -> None:
    def drawn(seed: int, purpose: str, index: int) -> tuple[int, ...]:
        return tuple(generator(seed, purpose, index).integers(2**63, size=2).tolist())

    assert drawn(a[0], "x", a[1]) == drawn(a[0], "x", a[1])
    assert drawn(a[0], "x", a[1]) != drawn(a[0], "y", a[1])
    assert (drawn(a[0], "x", a[1]) == drawn(b[0], "x", b[1])) == (a == b)
    assert (mlx_seed(a[0], "x", a[1]) == mlx_seed(b[0], "x", b[1])) == (a == b)


OTHER_PROCESS = """
import json
import numpy as np
from fewshot.parts.samplers import EpisodesOptions, episodes
from fewshot.core.seeding import mlx_seed
labels = np.repeat(np.arange(4), 5)
draw = episodes(EpisodesOptions(3, 2, 2), labels).draw(7, 3)
print(json.dumps([draw.items.tolist(), list(draw.classes), mlx_seed(7, "dropout", 3)]))
"""


def test_another_process_draws_the_same() -> None:
    draw = episodes(EpisodesOptions(3, 2, 2), np.repeat(np.arange(4), 5)).draw(7, 3)
    mine = [draw.items.tolist(), list(draw.classes), mlx_seed(7, "dropout", 3)]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == mine


# ------------------------------------------------------------------------------- pairs


@given(
    count=st.integers(1, 40),
    part=st.floats(0, 1),
    mode=st.sampled_from(["separate", "mixed"]),
    images=st.sampled_from([0, 4, 7, 30]),
    seed=seeds,
)
def test_pairs_are_as_many_and_as_many_alike_as_asked(
    count: int, part: float, mode: Any, images: int, seed: int
) -> None:
    labels, groups = plenty(4, 6)
    draw = pairs(PairsOptions(count, part, mode, images), labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups if mode == "separate" else None)
    assert len(draw.left) == len(draw.right) == len(draw.same) == count
    assert draw.same.sum() == round(count * part)
    assert len(draw.items) <= (images or 2 * count)


def test_pairs_among_fewer_images_than_hold_two_classes_are_refused() -> None:
    for images in (1, 2, 3):
        with pytest.raises(ConfigError, match=f"sampler.images = {images}: .* at least 4"):
            pairs(PairsOptions(images=images), plenty(4, 6)[0])


@given(data=labelled(), part=st.sampled_from([0.0, 0.5, 1.0]), grouped=st.booleans(), seed=seeds)
def test_pairs_refuse_exactly_what_cannot_be_drawn(
    data: tuple[Ints, Ints], part: float, grouped: bool, seed: int
) -> None:
    labels, groups = data[0], data[1] if grouped else None
    ids = [c for c in np.unique(labels) if c >= 0]
    units = np.arange(len(labels)) if groups is None else groups
    small = [c for c in ids if len(np.unique(units[labels == c])) < 2]
    few = len(ids) < (1 if part == 1 else 2)
    if few or (small and part > 0):
        with pytest.raises(DataError) as caught:
            pairs(PairsOptions(8, part), labels, groups)
        if isinstance(caught.value, ClassTooSmallError):
            assert caught.value.class_id in small
    else:
        check_draw(pairs(PairsOptions(8, part), labels, groups).draw(seed, 0), labels, groups)


@given(classes=st.integers(2, 6), per_class=st.integers(2, 5), seed=seeds)
def test_all_pairs_are_every_unordered_pair_of_a_balanced_batch_once(
    classes: int, per_class: int, seed: int
) -> None:
    labels, groups = plenty(4, 12)
    options = BalancedOptions(classes, per_class)
    draw = all_pairs(options, labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups)
    n = min(classes, 4) * per_class
    found = {frozenset(p) for p in zip(draw.left.tolist(), draw.right.tolist(), strict=True)}
    assert found == {frozenset(p) for p in itertools.combinations(range(n), 2)}
    assert len(draw.left) == len(found)
    assert len(np.unique(draw.items)) == len(draw.items) == n
    assert counts(labels[draw.items]) == {per_class}


# ---------------------------------------------------------------------- labelled images


@given(given=labelled(), classes=st.integers(1, 20), per_class=st.integers(1, 4), seed=seeds)
def test_a_batch_has_the_classes_and_images_asked_for_and_names_every_class(
    given: tuple[Ints, Ints], classes: int, per_class: int, seed: int
) -> None:
    labels = given[0]
    there, sizes = np.unique(labels[labels >= 0], return_counts=True)
    assume(len(there) >= 2 and sizes.min() >= per_class)
    draw = proxies(ProxiesOptions(classes, per_class), labels).draw(seed, 0)
    assert draw.classes == tuple(there)
    assert counts(draw.labels) == {per_class}
    assert len(np.unique(draw.labels)) == min(classes, len(there))


# ---------------------------------------------------------------------------- triplets


@given(classes=st.integers(2, 6), per_class=st.integers(2, 5), t=st.integers(1, 64), seed=seeds)
def test_triplets_come_from_a_balanced_batch(
    classes: int, per_class: int, t: int, seed: int
) -> None:
    labels, groups = plenty(4, 12)
    draw = triplets(TripletsOptions(classes, per_class, t), labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups)
    assert len(draw.anchor) == len(draw.positive) == len(draw.negative) == t
    assert len(np.unique(draw.items)) == len(draw.items) == min(classes, 4) * per_class
    assert counts(labels[draw.items]) == {per_class}


def test_triplets_reach_every_anchor_positive_and_negative() -> None:
    labels = np.repeat(np.arange(3), 3)
    draw = triplets(TripletsOptions(3, 3, 4096), labels).draw(0, 0)
    found = set(
        zip(*(x.tolist() for x in (draw.anchor, draw.positive, draw.negative)), strict=True)
    )
    assert len(found) == 9 * 2 * 6


@pytest.mark.parametrize(
    ("factory", "options"), [(all_pairs, BalancedOptions(5, 3)), (triplets, TripletsOptions(5, 3))]
)
@given(data=labelled(), grouped=st.booleans(), seed=seeds)
def test_balanced_batches_refuse_exactly_what_cannot_be_drawn(
    factory: Callable[..., Any], options: Any, data: tuple[Ints, Ints], grouped: bool, seed: int
) -> None:
    labels, groups = data[0], data[1] if grouped else None
    ids = [c for c in np.unique(labels) if c >= 0]
    units = np.arange(len(labels)) if groups is None else groups
    small = {c: len(np.unique(units[labels == c])) for c in ids}
    if len(ids) < 2 or min(small.values()) < 3:
        with pytest.raises(DataError) as caught:
            factory(options, labels, groups)
        if isinstance(caught.value, ClassTooSmallError):
            named = caught.value.class_id
            assert small[named] < 3
            assert str(caught.value).startswith(f"class {named} has {small[named]} ")
            assert 3 in numbers(caught.value)
    else:
        check_draw(factory(options, labels, groups).draw(seed, 0), labels, groups)
    mixed = attrs.evolve(options, groups="mixed")
    if len(ids) >= 2 and min(np.sum(labels == c) for c in ids) >= 3:
        check_draw(factory(mixed, labels, groups).draw(seed, 0), labels, None)


# ---------------------------------------------------------------------------- episodes


@given(
    n_way=st.integers(2, 5),
    k_shot=st.integers(1, 6),
    n_query=st.integers(1, 6),
    mode=st.sampled_from(["separate", "mixed"]),
    seed=seeds,
)
def test_episodes_have_exactly_the_counts_asked_for(
    n_way: int, k_shot: int, n_query: int, mode: Any, seed: int
) -> None:
    labels, groups = plenty(6, 20)
    options = EpisodesOptions(n_way, k_shot, n_query, mode)
    draw = episodes(options, labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups if mode == "separate" else None)
    assert draw.n_way == n_way
    assert np.bincount(draw.support_labels).tolist() == [k_shot] * n_way
    assert np.bincount(draw.query_labels).tolist() == [n_query] * n_way


def test_mixed_groups_may_stand_on_both_sides() -> None:
    labels, groups = plenty(4, 8, group=4)
    draw = episodes(EpisodesOptions(4, 4, 4, "mixed"), labels, groups).draw(0, 0)
    assert np.intersect1d(groups[draw.items[draw.support]], groups[draw.items[draw.query]]).size


@given(
    data=labelled(classes=3),
    k_shot=st.integers(1, 7),
    n_query=st.integers(1, 7),
    grouped=st.booleans(),
    seed=seeds,
)
def test_what_is_constructed_delivers_every_support_and_query_in_every_draw(
    data: tuple[Ints, Ints], k_shot: int, n_query: int, grouped: bool, seed: int
) -> None:
    labels, groups = data[0], data[1] if grouped else None
    ids = [int(c) for c in np.unique(labels) if c >= 0]
    try:
        standard = episodes(EpisodesOptions(max(2, len(ids)), k_shot, n_query), labels, groups)
    except DataError:
        pass
    else:
        for index in range(5):
            draw = standard.draw(seed, index)
            check_draw(draw, labels, groups)
            assert np.bincount(draw.support_labels).tolist() == [k_shot] * len(ids)
            assert np.bincount(draw.query_labels).tolist() == [n_query] * len(ids)
    try:
        wide = all_way(labels, groups, ids[:1], k_shot)
    except DataError:
        return
    for index in range(5):
        draw = wide.draw(seed, index)
        check_draw(draw, labels, groups)
        assert draw.n_way == len(ids)
        assert np.bincount(draw.support_labels).tolist() == [k_shot] * len(ids)
        assert {draw.classes[y] for y in draw.query_labels} == {ids[0]}


def check_roles(draw: Episode, role: Any) -> None:
    assert "query" not in role[draw.items[draw.support]]
    assert "support" not in role[draw.items[draw.query]]


@given(
    data=labelled(classes=3),
    k_shot=st.integers(1, 4),
    n_query=st.integers(1, 4),
    grouped=st.booleans(),
    only=st.sampled_from(["support", "query", "both", None]),
    seed=seeds,
)
def test_support_and_queries_are_of_images_that_may_be_that(
    data: tuple[Ints, Ints], k_shot: int, n_query: int, grouped: bool, only: Any, seed: int
) -> None:
    """It refuses just where a class may come short, but for groups, which a draw may find out."""
    labels, groups = data[0], data[1] if grouped else None
    role = np.random.default_rng(seed).choice(["support", "query", "both"], len(labels))
    role[: len(role) // 2] = role[: len(role) // 2] if only is None else only
    ids = [int(c) for c in np.unique(labels) if c >= 0]
    assume(len(ids) > 1)

    def short(c: int, asked: int) -> bool:
        s, q, both = (
            int((role[labels == c] == name).sum()) for name in ("support", "query", "both")
        )
        lost = 0 if grouped else min(k_shot, both)
        return s + both < k_shot or q + both - lost < asked

    options = EpisodesOptions(len(ids), k_shot, n_query)
    for make_sampler, refused in (
        (
            lambda: episodes(options, labels, groups, role),
            any(short(c, n_query) for c in ids),
        ),
        (
            lambda: all_way(labels, groups, ids[:1], k_shot, role),
            any(short(c, 1 if c == ids[0] else 0) for c in ids),
        ),
    ):
        if refused:
            with pytest.raises(ClassTooSmallError, match="may be support"):
                make_sampler()
            continue
        sampler = make_sampler()
        for index in range(3):
            try:
                draw = sampler.draw(seed, index)
            except ClassTooSmallError:
                assert grouped
                continue
            check_draw(draw, labels, groups)
            check_roles(draw, role)
            assert np.bincount(draw.support_labels).tolist() == [k_shot] * len(ids)


@given(seed=seeds)
def test_all_way_asks_every_image_that_may_be_a_query_and_is_not_support(seed: int) -> None:
    labels, _ = plenty(4, 12)
    role = np.random.default_rng(seed).choice(["support", "query", "both"], len(labels))
    role[np.unique(labels, return_index=True)[1]] = "support"
    role[len(labels) - np.unique(labels[::-1], return_index=True)[1] - 1] = "query"
    draw = all_way(labels, None, [0, 2], 1, role).draw(seed, 0)
    asked = np.isin(labels, [0, 2]) & (role != "support")
    asked[draw.items[draw.support]] = False
    assert set(draw.items[draw.query]) == set(np.flatnonzero(asked))


def test_images_that_may_be_either_are_drawn_for_both() -> None:
    labels, groups = plenty(4, 12)
    role = np.full(len(labels), "both")
    for used in (None, groups):
        drawn = [
            episodes(EpisodesOptions(4, 3, 3), labels, used, role).draw(0, i) for i in range(40)
        ]
        for name in ("support", "query"):
            found = np.concatenate([draw.items[getattr(draw, name)] for draw in drawn])
            assert len(np.unique(found)) == len(labels)


@given(signers=st.integers(2, 6), classes=st.integers(2, 4), each=st.integers(1, 3), seed=seeds)
def test_a_signer_of_every_class_is_on_one_side_of_an_episode(
    signers: int, classes: int, each: int, seed: int
) -> None:
    labels = np.repeat(np.arange(classes), signers * each)
    groups = np.tile(np.repeat(np.arange(signers) * 7, each), classes)
    for sampler in (
        episodes(EpisodesOptions(classes, 1, 1), labels, groups),
        all_way(labels, groups, [0], 1),
    ):
        draw = sampler.draw(seed, 0)
        support, query = groups[draw.items[draw.support]], groups[draw.items[draw.query]]
        assert not set(support.tolist()) & set(query.tolist())
        assert len(query) > 0


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=8),
    k_shot=st.integers(1, 12),
    seed=seeds,
)
def test_the_most_queries_that_are_accepted_are_delivered_beside_every_support(
    sizes: list[int], k_shot: int, seed: int
) -> None:
    pool = np.repeat(np.arange(len(sizes)), sizes)
    labels, groups = np.repeat([0, 1], len(pool)), np.concatenate([pool, pool + len(sizes)])
    for n_query in range(len(pool), 0, -1):
        try:
            sampler = episodes(EpisodesOptions(2, k_shot, n_query), labels, groups)
        except ClassTooSmallError:
            continue
        for index in range(10):
            draw = sampler.draw(seed, index)
            check_draw(draw, labels, groups)
            assert np.bincount(draw.support_labels).tolist() == [k_shot] * 2
            assert np.bincount(draw.query_labels).tolist() == [n_query] * 2
        return


@given(data=labelled(classes=3), k_shot=st.integers(1, 7), n_query=st.integers(1, 7))
def test_without_groups_a_class_is_refused_exactly_where_it_is_too_small(
    data: tuple[Ints, Ints], k_shot: int, n_query: int
) -> None:
    labels, groups = data
    sizes = {int(c): int(np.sum(labels == c)) for c in np.unique(labels) if c >= 0}
    assume(len(sizes) >= 2)
    small = {c: n for c, n in sizes.items() if n < k_shot + n_query}
    for options, used in (
        (EpisodesOptions(2, k_shot, n_query), None),
        (EpisodesOptions(2, k_shot, n_query, "mixed"), groups),
    ):
        if not small:
            episodes(options, labels, used)
            continue
        with pytest.raises(ClassTooSmallError) as caught:
            episodes(options, labels, used)
        named = caught.value.class_id
        assert str(caught.value).startswith(f"class {named} has {small[named]} images")
        assert {k_shot, n_query} <= numbers(caught.value)


def falls_short(sizes: tuple[int, ...], k_shot: int, n_query: int) -> bool:
    """Whether some order of dealing the groups leaves too few images on a side.

    By the rule of `deal`: the first half of the groups to the support, more where k_shot needs it.
    """
    if sum(sizes) < k_shot:
        return True
    for dealt in set(itertools.permutations(sizes)):
        sums = list(itertools.accumulate(dealt))
        needed = next(i for i, total in enumerate(sums, start=1) if total >= k_shot)
        if sum(sizes) - sums[max(needed, len(sizes) // 2) - 1] < n_query:
            return True
    return False


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    k_shot=st.integers(1, 10),
    n_query=st.integers(1, 10),
)
def test_with_groups_a_class_is_accepted_only_where_no_deal_falls_short(
    sizes: tuple[int, ...], k_shot: int, n_query: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels, both = np.repeat([0, 1], len(groups)), np.concatenate([groups, groups + len(sizes)])
    try:
        episodes(EpisodesOptions(2, k_shot, n_query), labels, both)
        refused = False
    except ClassTooSmallError:
        refused = True
    assert refused or not falls_short(sizes, k_shot, n_query)
    if len(set(sizes)) == 1:
        assert refused == falls_short(sizes, k_shot, n_query)


@given(seed=seeds, classes=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
def test_all_way_supports_every_class_and_asks_all_other_images_of_some(
    seed: int, classes: list[int]
) -> None:
    labels, groups = plenty(6, 12, group=3)
    for used in (None, groups):
        draw = all_way(labels, used, classes, 3).draw(seed, 0)
        check_draw(draw, labels, used)
        assert set(draw.classes) == set(range(6))
        assert np.bincount(draw.support_labels).tolist() == [3] * 6
        asked = draw.items[draw.query]
        for c in classes:
            pool = np.flatnonzero(labels == c)
            support = np.intersect1d(pool, draw.items[draw.support])
            others = np.setdiff1d(pool, support)
            if used is not None:  # the half that the support was dealt from stays out
                assert len(np.intersect1d(asked, others)) == 6
            else:
                assert np.array_equal(np.intersect1d(asked, pool), others)
        assert set(labels[asked]) == set(classes)


@given(seed=seeds)
def test_all_way_is_a_pure_function_of_seed_and_index(seed: int) -> None:
    labels, groups = plenty(4, 12)
    sampler, another = (all_way(labels, groups, [1, 2], 2) for _ in range(2))
    draws = [sampler.draw(seed, index) for index in (1, 0)]
    assert same_draw(another.draw(seed, 0), draws[1])
    assert same_draw(another.draw(seed, 1), draws[0])
    assert not same_draw(*draws)


@pytest.mark.parametrize("missing", [9, 3])
def test_all_way_refuses_a_query_class_without_images(missing: int) -> None:
    labels, _ = plenty(4, 6)
    with pytest.raises(DataError, match=str(missing)):
        all_way(np.where(labels == 3, -1, labels), None, [0, missing], 2)


# ------------------------------------------------------------------ records and errors

names = st.one_of(st.text(max_size=3), st.integers(2**53, 2**53 + 4), st.integers(0, 3))


@given(names=st.lists(names, min_size=1, max_size=5, unique_by=str), data=st.data())
def test_an_episode_of_any_labels_says_which_is_which(names: list[Any], data: Any) -> None:
    support = data.draw(st.permutations([*names, *data.draw(st.lists(st.sampled_from(names)))]))
    query = data.draw(st.lists(st.sampled_from(names)))
    start = data.draw(st.sampled_from([0, 2**53 + 1, 2**60 + 1]))  # no float64 holds these
    rows = list(range(start, start + len(support) + len(query)))
    s = len(support)
    episode = Episode.of(rows[:s], support, rows[s:], query)
    assert list(episode.classes) == [str(name) for name in dict.fromkeys(support)]
    assert [episode.classes[y] for y in episode.support_labels] == [str(y) for y in support]
    assert [episode.classes[y] for y in episode.query_labels] == [str(y) for y in query]
    assert episode.items[episode.support].tolist() == rows[:s]
    assert episode.items[episode.query].tolist() == rows[s:]
    assert episode.n_way == len(names)


@given(labels=st.lists(names, min_size=1, max_size=5, unique_by=str))
def test_a_query_label_without_support_is_named(labels: list[Any]) -> None:
    with pytest.raises(DataError, match="nobody"):
        Episode.of(range(len(labels)), labels, [99], ["nobody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": [0]}, "both support and query"),
        ({"items": [7, 8, 7]}, "both support and query"),
        ({"support_labels": [0]}, "one label per"),
        ({"query_labels": [0, 1]}, "one label per"),
        ({"support_labels": [0, 0]}, "cover"),
        ({"support_labels": [1, 2]}, "cover"),
        ({"classes": ("a", "b", "c")}, "cover"),
        ({"query_labels": [2]}, "query labels"),
        ({"query_labels": [-1]}, "query labels"),
        ({"items": [0.0, 1.0, 2.0]}, "integers"),
        ({"support": [[0, 1]]}, "integers"),
    ],
)
def test_a_malformed_episode_is_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "items": [7, 8, 9],
        "support": [0, 1],
        "support_labels": [0, 1],
        "query": [2],
        "query_labels": [1],
        "classes": ("a", "b"),
    }
    assert Episode(**good).n_way == 2
    with pytest.raises(DataError, match=message):
        Episode(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": [[0, 2], [5, 5]]}, r"\[0\] are both support and query"),
        ({"query": [[4, 2], [5, 3]]}, r"\[3\] are both support and query"),
        ({"query": [[4, -1], [5, 5]]}, "negative"),
        ({"query": [[4, 2]]}, "2 episodes"),
        ({"query": [4, 2]}, "2 episodes"),
        ({"support_labels": [0]}, "do not fit"),
        ({"query_labels": [0, 1, 1]}, "do not fit"),
        ({"query_labels": [0, 2]}, "lie in"),
        ({"query_labels": [-1, 0]}, "lie in"),
        ({"support_labels": [0, 0]}, "cover"),
        ({"support_labels": [[0, 1], [1, 1]]}, "cover"),
    ],
)
def test_a_malformed_block_is_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "support": [[0, 1], [3, 2]],
        "support_labels": [0, 1],
        "query": [[4, 2], [5, 5]],
        "query_labels": [1, 1],
        "classes": [[7, 8], [8, 9]],
    }
    made = EpisodeBlock(**{name: np.array(value) for name, value in good.items()})
    assert (len(made), made.n_way) == (2, 2)
    assert made.episode(1).items.tolist() == [3, 2, 5, 5]
    assert made.episode(1).classes == (8, 9)
    with pytest.raises(DataError, match=message):
        EpisodeBlock(**{name: np.array(value) for name, value in {**good, **change}.items()})


@given(parts=st.tuples(*[st.lists(st.sampled_from("abcdef"), max_size=4)] * 3))
def test_a_class_split_is_disjoint_or_refused(parts: tuple[list[str], ...]) -> None:
    listed = [name for part in parts for name in part]
    twice = {name for name in listed if listed.count(name) > 1}
    if twice:
        with pytest.raises(DataError, match=f"class '[{''.join(sorted(twice))}]' is in "):
            ClassSplit(*parts)
    else:
        split = ClassSplit(*parts)
        assert (split.train, split.val, split.test) == tuple(map(tuple, parts))


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (PairsOptions, {"pairs": 0}),
        (PairsOptions, {"same_share": 1.1}),
        (PairsOptions, {"same_share": -0.1}),
        (PairsOptions, {"images": -1}),
        (BalancedOptions, {"classes": 1}),
        (BalancedOptions, {"per_class": 1}),
        (TripletsOptions, {"triplets": 0}),
        (TripletsOptions, {"per_class": 1}),
        (EpisodesOptions, {"n_way": 1}),
        (EpisodesOptions, {"k_shot": 0}),
        (EpisodesOptions, {"n_query": 0}),
    ],
)
def test_counts_that_draw_nothing_are_refused(options: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        options(**change)


@pytest.mark.parametrize("make_", [balanced, proxies])
@pytest.mark.parametrize("fewest", [2, 3])
def test_a_batch_too_large_for_a_class_says_the_size_that_is_not(
    make_: Callable[..., Any], fewest: int
) -> None:
    labels = np.repeat([0, 1, 2], [fewest, 9, 9])
    options = {balanced: BalancedOptions, proxies: ProxiesOptions}[make_]
    with pytest.raises(ClassTooSmallError) as caught:
        make_(options(per_class=5), labels, None)
    said = int(str(caught.value).partition("--set sampler.per_class=")[2].partition(",")[0])
    make_(options(per_class=said), labels, None)
    with pytest.raises(ClassTooSmallError):
        make_(options(per_class=said + 1), labels, None)

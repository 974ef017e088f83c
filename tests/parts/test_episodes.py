"""Episodes, and exactly what cannot be drawn; what every draw keeps is in test_laws.py."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.core.draws import Episode
from fewshot.core.errors import ClassTooSmallError, DataError
from fewshot.parts.episodes import EpisodesOptions, all_way, episodes
from fewshot.testing import labelled, plenty
from fewshot.testing.samplers import draw_fault, same_draw
from fewshot.testing.strategies import seeds

Ints = NDArray[np.int64]


def check_draw(draw: Any, labels: Ints, groups: Ints | None) -> None:
    """`groups` only where they must be kept apart."""
    assert draw_fault(draw, labels, groups) is None


def numbers(error: BaseException) -> set[int]:
    """All that an error's text names."""
    return {int(number) for number in re.findall(r"\d+", str(error))}


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

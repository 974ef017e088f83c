"""Episodes of many ways and shots, classes of one parent, and images drawn again."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.core.errors import DataError
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.samplers import (
    BalancedOptions,
    ProxiesOptions,
    TripletsOptions,
    all_pairs,
    balanced,
    proxies,
    triplets,
)
from fewshot.parts.varied import VariedOptions, varied
from fewshot.testing.strategies import seeds

SIZES = np.array([2, 3, 5, 8, 13, 21, 34, 55])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(8), SIZES))


@settings(max_examples=25)
@given(
    seed=seeds,
    min_way=st.integers(2, 8),
    max_query=st.integers(1, 6),
    max_support=st.integers(8, 60),
    max_shot=st.integers(1, 30),
)
def test_ways_queries_and_shots_are_within_the_published_bounds(
    seed: int, min_way: int, max_query: int, max_support: int, max_shot: int
) -> None:
    options = VariedOptions(min_way, 8, max_query, max_support, max_shot)
    draw = varied(options, LABELS).draw(seed, 0)
    have = SIZES[list(draw.classes)]
    shots = np.bincount(draw.support_labels, minlength=draw.n_way)
    queries = np.bincount(draw.query_labels, minlength=draw.n_way)
    assert min_way <= draw.n_way <= 8
    n_query = min(max_query, have.min() // 2)
    assert set(queries) == {n_query}
    assert (shots >= 1).all()
    assert (shots <= have - n_query).all()
    most = min(max_support, np.minimum(max_shot, have - n_query).sum())
    assert shots.sum() <= max(most, draw.n_way)
    # 1 + ⌊R (|S| − n)⌋, and R is at most 4 times a class's share of the images.
    assert (shots <= 1 + 4 * have / have.sum() * (most - draw.n_way)).all()


def test_every_way_and_many_a_support_come_up_and_larger_classes_have_more_shots() -> None:
    sampler = varied(VariedOptions(min_way=3, max_way=6), LABELS)
    draws = [sampler.draw(0, i) for i in range(300)]
    assert {draw.n_way for draw in draws} == {3, 4, 5, 6}
    sizes = [len(draw.support) for draw in draws]
    assert len(set(sizes)) > 30
    shots: dict[Any, list[int]] = {c: [] for c in range(8)}
    for draw in draws:
        for place, c in enumerate(draw.classes):
            shots[c].append(int((draw.support_labels == place).sum()))
    means = [float(np.mean(shots[c])) for c in range(8)]
    assert means == sorted(means)
    assert means[-1] > 5 * means[0]


# ------------------------------------------------------------------- classes of one parent

PARENTS = ("x", "y", "x", "z", "y", "x", "z", "y")
MANY = np.tile(np.arange(8), 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: episodes(EpisodesOptions(3, 1, 2, within="parent"), MANY, parents=p),
        lambda p: varied(VariedOptions(3, within="parent"), MANY, parents=p),
        lambda p: balanced(BalancedOptions(3, 2, within="parent"), MANY, parents=p),
        lambda p: all_pairs(BalancedOptions(3, 2, within="parent"), MANY, parents=p),
        lambda p: proxies(ProxiesOptions(3, 2, within="parent"), MANY, parents=p),
        lambda p: triplets(TripletsOptions(3, 2, 9, within="parent"), MANY, parents=p),
    ],
)
def test_classes_of_a_draw_are_of_one_parent_and_every_parent_comes_up(make: Any) -> None:
    sampler, met = make(PARENTS), set[tuple[str, frozenset[int]]]()
    for i in range(40):
        classes = frozenset(MANY[sampler.draw(0, i).items].tolist())
        (parent,) = {PARENTS[c] for c in classes}
        met.add((parent, classes))
    assert {parent for parent, _ in met} >= {"x", "y"}
    assert max(len(classes) for _, classes in met) == 3
    with pytest.raises(DataError, match=r"wants a data set that says .*parents.* leave it at any"):
        make(None)
    with pytest.raises(
        DataError, match=r"needs \d classes of one parent, and none has more than 1"
    ):
        make(tuple("abcdefgh"))


# ---------------------------------------------------------------------- images drawn again


@pytest.mark.parametrize("grouped", [False, True])
def test_images_are_drawn_again_only_when_asked_and_then_as_often_as_any_other(
    grouped: bool,
) -> None:
    labels, groups = np.repeat(np.arange(3), [1, 2, 9]), np.arange(12) if grouped else None
    with pytest.raises(DataError, match=r"per_class needs 5"):
        balanced(BalancedOptions(3, 5), labels, groups)
    draw = balanced(BalancedOptions(3, 5, replacement=True), labels, groups).draw(0, 0)
    counts = np.bincount(draw.items, minlength=12)
    assert [counts[labels == c].sum() for c in range(3)] == [5, 5, 5]
    assert counts[0] == 5
    assert sorted(counts[1:3]) == [2, 3]
    assert counts[3:].max() == 1
    assert len(proxies(ProxiesOptions(3, 4, replacement=True), labels).draw(0, 0).items) == 12

"""Support of one source, queries of the others."""

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from toys import toy

from fewshot.core.errors import DataError
from fewshot.data.datasets import ArrayDataset
from fewshot.data.split import ClassSplit
from fewshot.engine.protocol import (
    EvaluationOptions,
    held_out_episodes,
    k_shot_episodes,
    validation_draws,
    verification_pairs,
)

PEOPLE = np.array(["anna", "ben", "carl"])
DATA = toy(18, 6, size=2)
SPLIT = ClassSplit(DATA.classes[:2], DATA.classes[2:4], DATA.classes[4:])


def options(**more: Any) -> EvaluationOptions:
    few = {"k_shot": (1, 2), "repeats": 3, "episodes": 4, "n_query": 2, "pairs": 40}
    return EvaluationOptions(groups=("sources",), **{**few, **more})


def signed(seed: int, people: int, missing: bool = False) -> ArrayDataset:
    """Each class by each person as often, or, in any order, one person without one class."""
    rng = np.random.default_rng(seed)
    source = rng.permuted(np.tile(PEOPLE[:people], (6, 18 // people)), axis=1).ravel()
    if missing:
        source[(DATA.labels == 5) & (source == "anna")] = "ben"
    return evolve(DATA, source=source)


@settings(max_examples=12)
@given(seed=st.integers(0, 99), people=st.integers(2, 3), n_way=st.sampled_from((0, 2)),
       missing=st.booleans(), roles=st.booleans())  # fmt: skip
def test_each_source_in_turn_gives_the_support_and_the_others_the_queries(
    seed: int, people: int, n_way: int, missing: bool, roles: bool
) -> None:
    data = signed(seed, people, missing)
    if roles:
        data = evolve(data, role=np.random.default_rng(seed).permutation(["both", "query"] * 54))
    assume(not (missing and n_way == 2))
    try:
        found = k_shot_episodes(data, SPLIT, options(n_way=(n_way,)))
    except DataError:
        assume(False)
    assert data.source is not None
    assert len(found) == 2 * people
    for setting, blocks in found.items():
        name = setting.groups.split(",")[0].removeprefix("support from ")
        others = [p for p in dict.fromkeys(data.source.tolist()) if p != name]
        assert setting.groups == f"support from {name}, queries from {', '.join(others)}"
        classes = {0, 1, 2, 3, 4} if missing and name == "anna" else set(range(6))
        for block in blocks:
            assert set(data.source[block.support].ravel()) == {name}
            assert name not in data.source[block.query]
            theirs = set(data.labels[data.source != name].tolist())
            assert set(data.labels[block.query].ravel()) == classes & theirs & {4, 5}
            if n_way == 0:
                assert set(block.classes.ravel()) == classes
            if roles and data.role is not None:
                assert "query" not in data.role[block.support]


def test_calibration_validation_and_pairs_are_across_sources_too() -> None:
    data = signed(0, 3)
    source = data.source
    assert source is not None
    for blocks in (held_out_episodes(data, SPLIT, options()),):
        for both in blocks.values():
            for block in (b for side in both for b in side):
                for support, query in zip(block.support, block.query, strict=True):
                    assert not set(source[support]) & set(source[query])
    drawn = validation_draws(data, SPLIT, "sources")
    assert drawn is not None
    for block in drawn.tasks:
        for support, query in zip(block.support, block.query, strict=True):
            assert not set(source[support]) & set(source[query])
    pairs = verification_pairs(data, SPLIT, options())
    assert pairs is not None
    for part in pairs:
        left, right = (source[part.items[side[part.same]]] for side in (part.left, part.right))
        assert (left != right).all()


def test_a_class_of_one_source_is_in_no_pair_and_not_asked_in_validation() -> None:
    data = signed(0, 2)
    source = np.where(DATA.labels == 3, "anna", data.source)
    drawn = validation_draws(evolve(data, source=source), SPLIT, "sources")
    assert drawn is not None
    for block in drawn.tasks:
        assert 3 not in DATA.labels[block.query]
    of_two = ClassSplit(SPLIT.train, (), SPLIT.test)
    assert verification_pairs(evolve(data, source=source), of_two, options()) is not None


def test_what_has_no_two_sources_is_refused() -> None:
    for source, words in ((None, "has none"), (np.full(108, "anna"), "has one")):
        with pytest.raises(DataError, match=words):
            k_shot_episodes(evolve(DATA, source=source), SPLIT, options())
    apart = np.where(DATA.labels % 2, "anna", "ben")
    with pytest.raises(DataError, match="no source has classes that another is asked about"):
        k_shot_episodes(evolve(DATA, source=apart), SPLIT, options())

"""Pairs told apart: areas and thresholds against brute force."""

from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from toys import NAMES, toy

from fewshot.core.draws import Pairs
from fewshot.data.split import ClassSplit
from fewshot.engine.protocol import EvaluationOptions, verification_pairs
from fewshot.engine.verification import best_threshold, pair_distances, roc_auc, verify
from fewshot.parts.metrics import euclidean, sqeuclidean

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)


def corners(labels: Array, rng: np.random.Generator, noise: float = 0.1) -> NDArray[np.float32]:
    """One corner of a simplex for each class, so that every class is told from every other."""
    points = np.eye(labels.max() + 1)[labels]
    return (points + rng.uniform(-noise, noise, points.shape)).astype(np.float32)


@st.composite
def judged(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Distances with many ties, and which pairs are alike: some, not all."""
    n = draw(st.integers(2, 15))
    distances = draw(
        arrays(np.float32, n, elements=st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 1.0, 7.3]))
    )
    same = draw(arrays(np.bool_, n))
    assume(same.any() and not same.all())
    return distances, same


@given(pair=judged())
def test_auc_is_the_share_of_couples_in_order_ties_half(pair: Any) -> None:
    distances, same = pair
    near, far = distances[same][:, None], distances[~same][None]
    expected = np.mean((near < far) + 0.5 * (near == far))
    assert roc_auc(distances, same) == pytest.approx(expected, abs=1e-12)


@given(pair=judged())
def test_auc_depends_on_order_alone_and_turns_round_with_the_labels(pair: Any) -> None:
    distances, same = pair
    area = roc_auc(distances, same)
    assert roc_auc(np.exp(distances), same) == pytest.approx(area, abs=1e-12)
    assert roc_auc(distances, ~same) == pytest.approx(1 - area, abs=1e-12)


def check_best(distances: Array, same: Array) -> None:
    def balanced(at: float) -> float:
        said = distances < at  # as `verify` says it
        hits = [np.mean(said[same])] if same.any() else []
        passes = [np.mean(~said[~same])] if not same.all() else []
        return float(np.mean(hits + passes))

    tried = [*distances.tolist(), *(distances + np.float32(0.01)).tolist(), -1.0, 100.0]
    assert balanced(best_threshold(distances, same)) == pytest.approx(max(map(balanced, tried)))


@given(pair=judged())
def test_no_threshold_is_right_more_often_than_the_best(pair: Any) -> None:
    check_best(*pair)


@given(pair=judged(), alike=st.booleans())
def test_the_best_threshold_of_pairs_of_one_kind_says_that_kind(pair: Any, alike: bool) -> None:
    check_best(pair[0], np.full_like(pair[1], alike))


@given(seed=seeds, block=st.integers(1, 10))
def test_pair_distances_are_the_metrics_whatever_the_block(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, 3)).astype(np.float32)
    items = rng.permutation(9)[:6]
    left, right = rng.integers(6, size=(2, 8))
    draw = Pairs(items, left, right, left == right)
    expected = [cdist(rows[[items[a]]], rows[[items[b]]])[0, 0] for a, b in zip(left, right)]  # noqa: B905
    assert np.allclose(pair_distances(rows, draw, euclidean(), block), expected, atol=1e-5)


@given(seed=seeds, margin=st.one_of(st.none(), st.floats(0.1, 3)))
def test_verification_applies_the_other_classes_threshold(seed: int, margin: float | None) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 2)).astype(np.float32)
    draws = []
    for _ in range(2):
        left, right = rng.integers(10, size=(2, 30))
        draws.append(Pairs(rng.permutation(20)[:10], left, right, np.arange(30) < 12))
    found = verify(rows, *draws, sqeuclidean(), margin)
    tuning, test = (pair_distances(rows, draw, sqeuclidean()) for draw in draws)
    assert found.threshold == best_threshold(tuning, draws[0].same)
    assert found.auc == roc_auc(test, draws[1].same)
    assert found.accuracy == np.mean((test < found.threshold) == draws[1].same)
    assert found.pairs == 30
    assert found.margin == margin
    assert found.accuracy_at_margin == (
        None if margin is None else np.mean((test < margin) == draws[1].same)
    )


def test_well_separated_classes_are_verified_without_error() -> None:
    data, split = toy(), ClassSplit("ab", "cd", "ef")
    draws = verification_pairs(data, split, EvaluationOptions(pairs=200))
    assert draws is not None
    found = verify(corners(data.labels, np.random.default_rng(0)), *draws, euclidean(), 0.7)
    assert found.auc == found.accuracy == found.accuracy_at_margin == 1


def test_verification_pairs_come_from_validation_and_test_classes() -> None:
    data, options = toy(), EvaluationOptions(pairs=60)
    for split, chosen in (
        (ClassSplit("ab", "cd", "ef"), "cd"),
        (ClassSplit("abc", "d", "ef"), "abc"),
    ):
        draws = verification_pairs(data, split, options)
        assert draws is not None
        for draw, allowed in zip(draws, (chosen, "ef"), strict=True):
            assert {NAMES[c] for c in data.labels[draw.items]} == set(allowed)
            assert len(draw.same) == 60
    assert verification_pairs(data, ClassSplit("abc", "de", "f"), options) is None
    assert verification_pairs(data, split, evolve(options, pairs=0)) is None

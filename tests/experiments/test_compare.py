"""Paired tests against SciPy, and what they say where there is little to test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from fewshot.engine.statistics import over_classes, paired_test

ACCURACIES = st.integers(2, 30).flatmap(
    lambda n: arrays(np.float64, (2, n), elements=st.integers(0, 64).map(lambda i: i / 64))
)


@given(ACCURACIES)
def test_the_paired_test_is_scipys(pair):
    a, b = pair
    found = paired_test(a, b)
    assert found.n == len(a)
    assert found.difference == pytest.approx(np.mean(b - a))
    if np.ptp(b - a) == 0:
        assert found.ci95 == (found.difference, found.difference)
        assert found.p == (1 if found.difference == 0 else 0)
        return
    theirs = stats.ttest_rel(b, a)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    assert found.ci95 == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert (found.ci95[0] <= 0 <= found.ci95[1]) == (found.p >= 0.05)


@given(ACCURACIES)
def test_the_other_way_round_only_the_sign_changes(pair):
    one, other = paired_test(*pair), paired_test(*pair[::-1])
    assert one.difference == -other.difference
    assert one.p == other.p
    assert one.ci95 == (-other.ci95[1], -other.ci95[0])


def test_one_pair_tells_nothing():
    found = paired_test(np.array([0.2]), np.array([0.9]))
    assert (found.difference, found.ci95, found.p, found.n) == (pytest.approx(0.7), (-1, 1), 1, 1)


def test_classes_are_paired_by_name():
    a = {"B": 0.5, "E": 0.7, "G": 0.1}
    b = {"G": 0.3, "B": 0.6, "E": 0.75}
    found = over_classes(a, b)
    theirs = stats.ttest_rel([0.6, 0.75, 0.3], [0.5, 0.7, 0.1])
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.difference == pytest.approx(np.mean([0.1, 0.05, 0.2]))

"""Intervals are SciPy's."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.engine.statistics import bootstrap_interval, t_interval

Array = NDArray[Any]

shares = st.lists(st.floats(0, 1), min_size=2, max_size=20).map(np.array)


@given(values=shares)
def test_t_interval_is_scipys_cut_to_shares(values: Array) -> None:
    error = scipy.stats.sem(values)
    low, high = t_interval(values)
    if error > 1e-12:
        expected = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), error)
        assert (low, high) == pytest.approx(np.clip(expected, 0, 1), abs=1e-9)
    assert 0 <= low <= values.mean() + 1e-12
    assert values.mean() - 1e-12 <= high <= 1


def test_one_value_says_nothing_about_the_mean() -> None:
    assert t_interval(np.array([0.7])) == (0.0, 1.0)


@given(values=shares)
def test_bootstrap_interval_lies_among_the_values_and_repeats(values: Array) -> None:
    low, high = bootstrap_interval(values)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    assert bootstrap_interval(values) == (low, high)


def test_bootstrap_interval_of_many_values_is_scipys() -> None:
    values = np.random.default_rng(0).random(200)
    spread = values.std() / len(values) ** 0.5
    found = bootstrap_interval(values)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.3 * spread)


def test_one_class_says_nothing_about_other_classes() -> None:
    assert bootstrap_interval(np.array([0.8])) == (0.0, 1.0)

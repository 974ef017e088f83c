"""The schedule keeps the laws, and begins again when it claims to."""

import mlx.core as mx
import pytest
from fewshot.testing import check_schedule

from PLUGIN_MODULE import Options, schedule


def test_it_keeps_the_laws_of_a_schedule():
    check_schedule(schedule, Options())


def test_every_cycle_falls_from_1():
    factor = schedule(Options(cycles=2), 200)
    found = factor(mx.array([0, 50, 99, 100, 150, 200])).tolist()
    assert found == pytest.approx([1, 0.5, 0, 1, 0.5, 0], abs=1e-3)

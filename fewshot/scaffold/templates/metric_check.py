"""The metric keeps the laws that it declares and is what it claims to be."""

import mlx.core as mx
from fewshot.testing import check_metric

from PLUGIN_MODULE import distance, metric


def test_it_keeps_its_laws():
    check_metric(metric)


def test_it_is_the_largest_difference():
    x, y = mx.array([0.0, 3.0, -1.0]), mx.array([1.0, -2.0, -1.0])
    assert distance(x, y).item() == 5.0

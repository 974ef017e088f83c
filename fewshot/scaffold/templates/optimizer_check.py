"""The optimizer keeps the laws, and its steps are as long as it claims."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from fewshot.testing import check_optimizer

from PLUGIN_MODULE import Options, optimizer


def test_it_keeps_the_laws_of_an_optimizer():
    check_optimizer(optimizer, Options())


def test_a_step_is_as_long_as_the_rate_whatever_the_gradient():
    for scale in (1e-3, 1.0, 1e3):
        layer = nn.Linear(3, 2, bias=False)
        before = layer.weight
        optimizer(Options(), 0.5).update(layer, {"weight": scale * mx.ones((2, 3))})
        assert mx.linalg.norm(layer.weight - before).item() == pytest.approx(0.5)

"""The loss rises where it should, and has the values that it claims to have."""

import mlx.core as mx
from fewshot.testing import check_loss

from PLUGIN_MODULE import Options, loss


def test_it_keeps_the_laws_of_a_loss():
    check_loss(loss, Options())


def test_its_values():
    values = loss(Options(near=0.5, far=2.0)).fn
    same = values(mx.array([0.0, 0.5, 1.5]), mx.array([True, True, True]))
    assert same.tolist() == [0.0, 0.0, 1.0]
    different = values(mx.array([0.0, 1.0, 2.0]), mx.array([False, False, False]))
    assert different.tolist() == [4.0, 1.0, 0.0]

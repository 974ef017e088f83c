"""The learner keeps the laws, and takes its gradient where it claims to."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from fewshot.testing import check_learner

from PLUGIN_MODULE import Options, learner


class Model(nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = mx.array(3.0)


def test_it_keeps_the_laws_of_a_learner():
    check_learner(learner, Options())


def test_the_gradient_of_a_parabola_is_that_a_radius_farther_out():
    model = Model()

    def objective(batch):
        return model.weight**2, mx.array(1.0)

    figures, gradients = learner(Options(radius=0.5)).step(model, objective, None)
    assert figures[0].item() == 9.0
    assert gradients["weight"].item() == pytest.approx(2 * (3 + 0.5))

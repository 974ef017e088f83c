"""How one step learns: from a batch to gradients."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..core.components import Component
from ..core.interfaces import Batch, Learner
from ..core.options import NoOptions


def plain(_: NoOptions = NoOptions()) -> Learner:
    """The gradient of the objective, as it is."""

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[tuple[mx.array, ...], Any]:
        return nn.value_and_grad(model, objective)(batch)

    return Learner(step)


COMPONENTS = (Component("plain", plain, summary="the gradient of the loss, as it is"),)

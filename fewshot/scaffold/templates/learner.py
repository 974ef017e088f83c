"""The learner PLUGIN_NAME: a step learns from where the loss is highest nearby."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen
from fewshot import Batch, Component, Learner, above, hookimpl, option
from mlx.utils import tree_flatten, tree_map


@frozen
class Options:
    """Options of the learner."""

    radius: float = option(0.05, "how far away the gradient is taken", above(0))


def learner(options: Options) -> Learner:
    """Sharpness-aware minimisation (Foret et al. 2021, equation 2)."""

    def step(model: nn.Module, objective: Any, batch: Batch) -> Any:
        weights = model.trainable_parameters()
        figures, gradients = nn.value_and_grad(model, objective)(batch)
        squares = [mx.square(array).sum() for _, array in tree_flatten(gradients)]
        scale = options.radius / mx.maximum(mx.sqrt(sum(squares)), 1e-12)
        model.update(tree_map(lambda w, g: w + scale * g, weights, gradients))
        _, gradients = nn.value_and_grad(model, objective)(batch)
        return figures, gradients

    return Learner(step)


@hookimpl
def fewshot_learners() -> list[Component]:
    return [Component("PLUGIN_NAME", learner, Options, "the gradient where it is steep")]

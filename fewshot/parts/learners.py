"""How one step learns: from a batch to gradients."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen
from mlx.utils import tree_map

from ..compute.modules import evaluating
from ..core.components import Component
from ..core.interfaces import Batch, Learner
from ..core.options import NoOptions, at_least, option, positive

Figures = tuple[mx.array, ...]


def plain(_: NoOptions = NoOptions()) -> Learner:
    """The gradient of the objective, as it is."""

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[Figures, Any]:
        return nn.value_and_grad(model, objective)(batch)

    return Learner(step)


@frozen
class MamlOptions:
    """Options of model-agnostic meta-learning."""

    inner_steps: int = option(3, "gradient steps on the support of an episode", at_least(0))
    inner_rate: float = option(0.01, "learning rate of these steps", positive)
    second_order: bool = option(
        True, "differentiate through the inner steps; false: take their gradients for constants"
    )


def maml(options: MamlOptions = MamlOptions()) -> Learner:
    """Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, algorithm 2).

    The loss of every episode is that of a backbone which took gradient steps on the loss of the
    episode's support, asked about itself; figures and gradients are means over the episodes. What
    else is learned (a metric's weights, a head's) has no inner steps. First order is the paper's
    approximation of section 5.2.

    The inner steps are in eval mode: batch norm normalises by its running statistics, as in those
    of the adapter maml, and nothing is dropped. The loss after them is in training mode.
    """

    def step(model: nn.Module, objective: Any, batch: Batch) -> tuple[Figures, Any]:
        def adapted(episode: Batch) -> Figures:
            weights, support = model.trainable_parameters(), episode.of_support()
            descend(
                model.backbone,
                lambda: objective(support)[0],
                options.inner_steps,
                options.inner_rate,
                options.second_order,
            )
            figures = objective(episode)
            model.update(weights)
            return figures

        def outer() -> Figures:
            every = zip(*map(adapted, batch.split()), strict=True)
            return tuple(mx.stack(list(figure)).mean() for figure in every)

        return nn.value_and_grad(model, outer)()

    return Learner(step, "episode")


def descend(
    module: nn.Module,
    loss: Callable[[], mx.array],
    steps: int,
    rate: float,
    second_order: bool = False,
) -> None:
    """Gradient steps of a module on its own loss, in place, in eval mode: buffers stay.

    `second_order`: the steps' gradients have gradients too.
    """
    weights = module.trainable_parameters()
    with evaluating(module):
        for _ in range(steps):
            _, gradients = nn.value_and_grad(module, loss)()
            if not second_order:
                gradients = tree_map(mx.stop_gradient, gradients)
            weights = tree_map(lambda one, gradient: one - rate * gradient, weights, gradients)
            module.update(weights)


COMPONENTS = (
    Component("plain", plain, summary="the gradient of the loss, as it is"),
    Component("maml", maml, MamlOptions, "the loss after a few steps on each episode's support"),
)

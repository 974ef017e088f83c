"""Learners that fit a linear layer of classes, against their formulas in float64."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from tasks import two_episodes

import fewshot as fs
from fewshot.core.errors import ConfigError
from fewshot.core.interfaces import Batch
from fewshot.engine.objective import Objective
from fewshot.parts.embedder import Embedder
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import (
    AnilOptions,
    ProtoMamlOptions,
    anil,
    plain,
    proto_maml,
)

Array = NDArray[np.float64]


def linear_network() -> tuple[Objective, Batch]:
    """Two episodes of noise, and a backbone that is a matrix."""
    mx.random.seed(5)
    net: Any = fs.Sequential(fs.Flatten(), nn.Linear(16, 4, bias=False))
    net.embedding_dim = 4
    objective, batch = two_episodes(net, (4, 4, 1), k_shot=2)
    embedder = Embedder(net, normalize="none")
    return evolve(objective, embedder=embedder), batch


def cross_entropy(scores: Array, labels: Array) -> tuple[float, Array]:
    """The mean, and its gradient by the scores."""
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    gradient = p.copy()
    gradient[rows, labels] -= 1
    return float(-np.log(p[rows, labels]).mean()), gradient / len(labels)


def fitted(a: Array, support: Array, y: Array, steps: int, rate: float, whole: bool) -> Any:
    """Backbone, W and b after the inner steps, in float64; `whole`: as proto-maml, else anil."""
    n_way, x = y.max() + 1, support @ a.T
    w, b = np.zeros((n_way, len(a))), np.zeros(n_way)
    if whole:
        means = np.stack([x[y == k].mean(axis=0) for k in range(n_way)])
        w, b = 2 * means, -np.square(means).sum(axis=1)
    for _ in range(steps):
        x = support @ a.T
        _, g = cross_entropy(x @ w.T + b, y)
        by_a = (g @ w).T @ support
        w, b = w - rate * g.T @ x, b - rate * g.sum(axis=0)
        a = a - rate * by_a if whole else a
    return a, w, b


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_gradients_of_anil_and_proto_maml_are_those_of_their_formulas(
    steps: int, whole: bool, second: bool
) -> None:
    objective, batch = linear_network()
    model: Any = objective.learned
    ((_, weight),) = tree_flatten(model.backbone.parameters())
    matrix = np.array(weight, np.float64)
    rate = 0.3
    rng = np.random.default_rng(0)
    along = rng.normal(size=matrix.shape)
    tasks, start = [], 0
    for draw, size in zip(batch.draws, batch.sizes, strict=True):
        pixels = np.array(batch.images[start : start + size], np.float64).reshape(size, -1)
        start += size
        places = {name: np.array(draw[name]) for name in draw}
        tasks.append(
            (pixels[places["support"]], places["support_labels"],
             pixels[places["query"]], places["query_labels"])
        )  # fmt: skip

    def outer(a: Array, constant: Any = None) -> float:
        losses = []
        for i, (support, y, query, asked) in enumerate(tasks):
            if constant is None:
                moved, w, b = fitted(a, support, y, steps, rate, whole)
            else:  # the steps' lengths are those at the middle
                began, ended = constant[i]
                moved, w, b = (
                    one + end - start
                    for one, end, start in zip(
                        fitted(a, support, y, 0, rate, whole), ended, began, strict=True
                    )
                )
            losses.append(cross_entropy(query @ moved.T @ w.T + b, asked)[0])
        return float(np.mean(losses))

    constant = None
    if not second:
        constant = [
            tuple(fitted(matrix, support, y, n, rate, whole) for n in (0, steps))
            for support, y, _, _ in tasks
        ]
    step = 1e-5
    ahead, behind = (outer(matrix + way * along, constant) for way in (step, -step))
    learner = (
        proto_maml(ProtoMamlOptions(steps, rate, second))
        if whole
        else anil(AnilOptions(steps, rate, second))
    )
    figures, gradients = learner.step(model, objective, batch)
    ((_, found),) = tree_flatten(gradients)
    assert figures[0].item() == pytest.approx(outer(matrix), rel=1e-4)
    said = float((np.array(found, np.float64) * along).sum())
    assert said == pytest.approx((ahead - behind) / (2 * step), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_steps_on_a_new_support_are_those_of_the_formula(whole: bool) -> None:
    objective, batch = linear_network()
    support = batch.split()[0].of_support()
    backbone: Any = objective.embedder.backbone
    ((name, weight),) = tree_flatten(backbone.parameters())
    matrix = np.array(weight, np.float64)
    pixels = np.array(support.images, np.float64).reshape(len(support.images), -1)
    labels = np.array(support.draws[0]["support_labels"])
    options: Any = (4, 0.3)
    learner = proto_maml(ProtoMamlOptions(*options)) if whole else anil(AnilOptions(*options))
    assert learner.adapt is not None
    classes = learner.adapt(
        objective.embedder, support, objective.metric, objective.loss, nearest_prototype()
    )
    assert classes is not None
    a, w, b = fitted(matrix, pixels, labels, *options, whole)
    found = dict(tree_flatten(backbone.parameters()))[name]
    for is_now, due in ((found, a), (classes.weight, w), (classes.bias, b)):
        assert np.allclose(np.array(is_now), due, rtol=1e-4, atol=1e-5)
    assert mx.array_equal(found, weight) == (not whole)


def test_proto_maml_without_a_step_asks_about_squared_distances() -> None:
    objective, batch = linear_network()
    model = objective.learned
    start = model.trainable_parameters()
    found = []
    for learner in (plain(), proto_maml(ProtoMamlOptions(inner_steps=0))):
        figures, gradients = learner.step(model, objective, batch)
        model.update(start)
        found.append([figures[0], *(g for _, g in tree_flatten(gradients))])
    assert all(mx.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("learner", [anil(), proto_maml()])
def test_a_loss_that_wants_distances_is_refused(learner: fs.Learner) -> None:
    objective, batch = linear_network()
    with pytest.raises(ConfigError, match=r"no distances.*--loss prototypical"):
        learner.step(objective.learned, evolve(objective, loss=fs.arcface()), batch)

"""Trainings that stop and go on, and all that one comes to but for times."""

from collections.abc import Callable
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from strategies import REGISTRY, make
from trainings import Weights, described, network, parts, state, toy

import fewshot as fs
from fewshot.core.interfaces import Learner, Loss, Metric, Miner
from fewshot.engine.objective import Learned, Objective, proxies_of
from fewshot.engine.training import Training, TrainingOptions
from fewshot.parts.embedder import Embedder


class Stretched(nn.Module):
    """A distance with weights and dropout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = mx.array(np.random.default_rng(seed).uniform(0.5, 2, 1).astype(np.float32))
        self.dropout = nn.Dropout(0.2)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return mx.square(self.dropout(self.weight * (x - y))).sum(axis=-1)


class Tempered(nn.Module):
    """A loss with a weight."""

    def __init__(self, fn: Any, seed: int) -> None:
        super().__init__()
        self.fn, self.scale = fn, mx.array(1.0 + seed)

    def __call__(self, *given: mx.array) -> mx.array:
        return self.scale * self.fn(*given)


def made(
    layout: str,
    seed: int,
    learner: Learner,
    options: TrainingOptions,
    named: tuple[str, str] = ("adam", "cosine"),
    mixer: fs.Mixer = fs.Mixer(None),
) -> Training:
    """A training whose weights, of every learned part, are drawn with a seed of their own.

    `named`: optimizer and schedule.
    """
    data = toy()
    given = parts(layout, data)
    loss = Loss(Tempered(given["loss"].fn, seed), given["loss"].layout)
    metric = Metric(Stretched(seed), frozenset(), lambda _: float("inf"))
    embedder = Embedder(network(seed, dropout=0.3))
    width = embedder.backbone.embedding_dim
    vectors = proxies_of(given["sampler"], loss, width, seed)
    learned = Learned(embedder.backbone, metric, loss, None, vectors)
    objective = Objective(embedder, metric, loss, given["head"], Miner(None), learned, layout)
    flip = make(REGISTRY.get("transform", "flip"))
    optimizer = described(options, *named)
    sampler = given["sampler"]
    return Training(objective, data, sampler, options, [flip], learner, 4, optimizer, mixer)


def judged(training: Training) -> Callable[[], dict[str, float]]:
    """A score that goes up and down with the weights themselves."""

    def validate() -> dict[str, float]:
        weight = np.array(training.learned.backbone.layers.layers[0].weight)
        return {"score": float(np.sin(1e4 * weight.sum()))}

    return validate


def outcome(training: Training) -> tuple[Weights, dict[str, Any]]:
    """All weights and the history, but for times."""
    history = attrs.asdict(training.history)
    for told in (history, *history["records"]):
        told.pop("seconds", None)
        told.pop("images_per_second")
    return state(training.learned), history

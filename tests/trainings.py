"""Small trainings, and what is left of them."""

from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from strategies import REGISTRY, make

from fewshot.core.interfaces import Optimizer
from fewshot.data.datasets import ArrayDataset
from fewshot.engine.training import (
    History,
    TrainingOptions,
    fit,
    learning_rate,
    scheduled_steps,
)
from fewshot.parts.backbones import Conv4Options, conv4
from fewshot.parts.embedder import Embedder
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.losses.pairs import ContrastiveOptions, contrastive
from fewshot.parts.losses.scores import PrototypicalOptions, prototypical
from fewshot.parts.losses.triplets import TripletOptions, triplet
from fewshot.parts.metrics import euclidean
from fewshot.parts.samplers import (
    PairsOptions,
    ProxiesOptions,
    TripletsOptions,
    pairs,
    proxies,
    triplets,
)

Array = NDArray[Any]
Weights = dict[str, Array]

LAYOUTS = ("pairs", "triplets", "episode", "labelled")
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def toy(classes: int = 4, per_class: int = 8, size: int = 16) -> ArrayDataset:
    """Each class is a grating of its own frequency under noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    waves = np.sin(np.arange(size) * (1 + labels[:, None]) / 2)
    images = 128 + 80 * waves[:, None, :, None] + rng.normal(0, 15, (len(labels), size, size, 1))
    return ArrayDataset(np.clip(images, 0, 255).astype(np.uint8), labels, tuple("abcdef")[:classes])


def network(seed: int = 0, dropout: float = 0.0, width: int = 4) -> nn.Module:
    mx.random.seed(seed)
    net = conv4(Conv4Options(width), (16, 16, 1))
    if dropout:
        net.layers.layers.append(nn.Dropout(dropout))
    return net


class Linear(nn.Module):
    """The least of backbones: tanh(Wx + b) of the pixels."""

    def __init__(self, inputs: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = mx.array(rng.normal(size=(outputs, inputs)).astype(np.float32) / inputs**0.5)
        self.bias = mx.array(rng.normal(size=outputs).astype(np.float32) / 10)
        self.embedding_dim = outputs

    def __call__(self, images: mx.array) -> mx.array:
        return mx.tanh(images.flatten(1) @ self.weight.T + self.bias)


def state(module: nn.Module) -> Weights:
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def parts(layout: str, data: ArrayDataset) -> dict[str, Any]:
    """Sampler, loss, metric and head of a layout, small."""
    labels = data.labels
    if layout == "pairs":
        sampler: Any = pairs(PairsOptions(12), labels)
        loss = contrastive(ContrastiveOptions(1.0))
    elif layout == "triplets":
        sampler = triplets(TripletsOptions(3, 3, 24), labels)
        loss = triplet(TripletOptions(0.3))
    else:
        sampler = episodes(EpisodesOptions(3, 2, 2), labels)
        if layout == "labelled":
            sampler = proxies(ProxiesOptions(3, 2), labels)
        loss = prototypical(PrototypicalOptions(0.25))
    return {
        "sampler": sampler,
        "loss": loss,
        "metric": euclidean(),
        "head": nearest_prototype() if layout == "episode" else None,
    }


def train(
    net: nn.Module,
    layout: str = "pairs",
    data: ArrayDataset | None = None,
    seed: int = 0,
    **options: Any,
) -> History:
    """`fit` on the toy; keyword arguments are `TrainingOptions` or `fit`'s own."""
    data = toy() if data is None else data
    known = attrs.fields_dict(TrainingOptions)
    mine = {name: options.pop(name) for name in list(options) if name in known}
    given = {**parts(layout, data), **options}
    return fit(Embedder(net), data, options=TrainingOptions(**mine), seed=seed, **given)


class Script:
    """Scores a validation gives in turn, and the weights it was asked about."""

    def __init__(self, module: nn.Module, scores: Sequence[float], end: Any = None) -> None:
        self.module, self.scores, self.end = module, list(scores), end
        self.states: list[Weights] = []

    def __call__(self) -> dict[str, float]:
        self.states.append(state(self.module))
        asked = len(self.states)
        if asked > len(self.scores):
            raise self.end
        return {"score": self.scores[asked - 1]}


def described(options: TrainingOptions, optimizer: str, schedule: str) -> Optimizer:
    """An optimizer by name, its rate that of the options and a schedule by name."""
    factors = make(REGISTRY.get("schedule", schedule), scheduled_steps(options))
    made: Optimizer = make(REGISTRY.get("optimizer", optimizer), learning_rate(options, factors))
    return made

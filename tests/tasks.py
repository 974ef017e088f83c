"""Episodes of noise, and what learns from them."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import fewshot as fs
from fewshot.core.interfaces import Batch, Miner
from fewshot.engine.objective import Learned, Objective, batch_of
from fewshot.parts.embedder import Embedder
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.losses.scores import prototypical
from fewshot.parts.metrics import sqeuclidean


def smooth() -> tuple[Objective, Batch]:
    """An episode of noise and a network of smooth layers."""
    mx.random.seed(3)
    net: Any = fs.Sequential(fs.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 4))
    net.embedding_dim = 4
    return two_episodes(net, (4, 4, 1), k_shot=2)


def two_episodes(net: Any, shape: tuple[int, int, int], k_shot: int = 1) -> tuple[Objective, Batch]:
    """A network's objective, and two episodes of three classes under noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    images = rng.normal(size=(24, *shape)).astype(np.float32)
    images += 0.7 * rng.normal(size=(4, *shape)).astype(np.float32)[labels]
    sampler = episodes(EpisodesOptions(3, k_shot, 2), labels)
    draws = [sampler.draw(0, i) for i in range(2)]
    pixels = images[np.concatenate([draw.items for draw in draws])]
    embedder, metric, loss = Embedder(net), sqeuclidean(), prototypical()
    learned = Learned(net, metric, loss)
    head, miner = nearest_prototype(), Miner(None)
    objective = Objective(embedder, metric, loss, head, miner, learned, "episode")
    return objective, batch_of(mx.array(pixels), list(draws))

"""Small data sets and networks to test with."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from fewshot.data.datasets import ArrayDataset
from fewshot.parts.backbones import Conv4Options, conv4

NAMES = tuple("abcdef")


def toy(per_class: int = 12, classes: int = 6, size: int = 16, group: int = 2) -> ArrayDataset:
    """Noise images; classes in blocks, groups of `group` consecutive images."""
    n = classes * per_class
    rng = np.random.default_rng(0)
    return ArrayDataset(
        images=rng.integers(256, size=(n, size, size, 1)).astype(np.uint8),
        labels=np.repeat(np.arange(classes), per_class),
        classes=NAMES[:classes],
        groups=np.arange(n) // group,
    )


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    mx.random.seed(seed)
    net = conv4(Conv4Options(4), (16, 16, 1))
    if dropout:
        net.layers.layers.append(nn.Dropout(dropout))
    return net


def state(module: nn.Module) -> dict[str, Any]:
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}

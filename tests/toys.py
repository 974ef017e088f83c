"""Small data sets and networks to test with."""

from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.core.components import Component
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


class Colours(nn.Module):
    """The mean colour of an image, and the colour of a name: a network that has text."""

    named: ClassVar = {
        "red": (1, 0, 0),
        "dark_green": (0, 0.5, 0),
        "blue": (0, 0, 1),
        "sand": (0.9, 0.8, 0.5),
    }

    def __init__(self) -> None:
        super().__init__()
        self.embedding_dim = 3
        self.scale = mx.ones(3)
        self.freeze()

    def __call__(self, images: mx.array) -> mx.array:
        return self.scale * images.mean(axis=(1, 2))

    def text(self, names: Any) -> mx.array:
        return mx.array([self.named[name] for name in names], mx.float32)


def coloured(per_class: int, size: int = 8) -> ArrayDataset:
    """Images in the colours that `Colours` knows the names of, with noise."""
    colours = np.repeat(np.array([*Colours.named.values()]), per_class, axis=0)
    noise = np.random.default_rng(0).normal(0, 0.15, (len(colours), size, size, 3))
    images = np.clip(colours[:, None, None] + noise, 0, 1) * 255
    labels = np.repeat(np.arange(len(Colours.named)), per_class)
    return ArrayDataset(images.astype(np.uint8), labels, tuple(Colours.named))


def with_colours() -> Registry:
    """What is installed, and the backbone `colours`."""
    known = build_registry()[0]
    part = Component("colours", lambda *_: Colours(), initialise=lambda *_: None)
    known.add([Registered("backbone", part, "tried", "1")])
    return known

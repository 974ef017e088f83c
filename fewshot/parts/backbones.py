"""Networks from images to embeddings."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..compute.layers import BatchNorm, Flatten, MaxPool2x2, Sequential
from ..compute.modules import is_frozen
from ..core.components import Component
from ..core.errors import ConfigError
from ..core.options import option, option_components, positive
from .metrics import unit


@frozen
class Conv4Options:
    """Options of the four-block network."""

    width: int = option(64, "channels of every block", positive)


class Conv4(nn.Module):
    """Four times (3x3 convolution, batch norm, ReLU, 2x2 max pool), flattened.

    (b, h, w, c) -> (b, width · ⌊h/16⌋ · ⌊w/16⌋): the field's embedding network (Vinyals et al.
    2016, Snell et al. 2017). No convolution bias: batch norm follows directly.
    """

    def __init__(self, width: int, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, wide, channels = input_shape
        if min(height, wide) < 16:
            raise ConfigError(f"conv4 halves the image four times: {height}x{wide} is under 16x16")
        layers: list[nn.Module] = []
        for inputs in (channels, width, width, width):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                BatchNorm(width),
                nn.ReLU(),
                MaxPool2x2(),
            ]
        self.layers = Sequential(*layers, Flatten())
        self.embedding_dim = width * (height // 16) * (wide // 16)

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def conv4(options: Conv4Options, input_shape: tuple[int, int, int]) -> Conv4:
    """`Conv4` for images of `input_shape` (h, w, c); ConfigError below 16x16."""
    return Conv4(options.width, input_shape)


@frozen
class BesideOptions:
    """Options of networks beside each other."""

    parts: Mapping[str, nn.Module] = option_components(
        "backbone", "the networks, each by a name of yours: parts.NAME.name"
    )


class Beside(nn.Module):
    """Several networks of one image, each embedding of length 1, end to end: (b, d1 + d2 + …).

    In training a network that is frozen is silent, zeros in its place, where another learns: that
    one learns what it would alone, at the cost that it has alone.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts = dict(parts)
        self.embedding_dim = sum(part.embedding_dim for part in parts.values())

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        learns = self.training and not is_frozen(self)
        return mx.concatenate(
            [
                mx.zeros((len(images), part.embedding_dim))
                if learns and is_frozen(part)
                else unit(part(images))
                for part in self.parts.values()
            ],
            axis=-1,
        )

    def frozen(self) -> NDArray[np.bool_] | None:
        """(embedding_dim,): which numbers are of networks that are frozen, where another learns."""
        still = np.array([is_frozen(part) for part in self.parts.values()])
        sizes = [part.embedding_dim for part in self.parts.values()]
        return np.repeat(still, sizes) if still.any() and not still.all() else None


def beside(options: BesideOptions, _: tuple[int, int, int]) -> Beside:
    """Networks beside each other, such as one that is trained and one with weights from elsewhere.

    What a frozen one knows is joined to what the others learn. Raises ConfigError where none is
    named.
    """
    if not options.parts:
        raise ConfigError(
            "beside needs networks: --set backbone.parts.NAME.name=BACKBONE for each, or "
            "[backbone.parts.NAME] in a file"
        )
    return Beside(options.parts)


def _initialise(made: Beside, options: BesideOptions) -> None:
    """Give each network the weights that it has from elsewhere."""
    for name, inner in options.parts.items():
        given: Any = inner
        initialise = given.entry.component.initialise
        if initialise is not None:
            initialise(made.parts[name], given.options)


COMPONENTS = (
    Component("conv4", conv4, Conv4Options, "the field's four-block network"),
    Component(
        "beside",
        beside,
        BesideOptions,
        "several networks beside each other, by names of yours",
        initialise=_initialise,
    ),
)

"""A small network for small drawings."""

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen, validators

from fewshot import (
    BatchNorm,
    Component,
    ConfigError,
    Flatten,
    MaxPool2x2,
    Sequential,
    at_least,
    option,
    within,
)


@frozen
class Conv4MapOptions:
    """Options of the four-block network with a map."""

    widths: tuple[int, ...] = option(
        (32, 64, 128, 128),
        "channels of the four blocks",
        within(validators.min_len(4), validators.max_len(4), validators.deep_iterable(at_least(1))),
    )


class Conv4Map(nn.Module):
    """(b, h, w, c) -> (b, widths[-1] · ⌊h/8⌋ · ⌊w/8⌋): where a stroke is counts, too.

    As `conv4`, four 3x3 convolutions with batch norm and ReLU, but of widths that grow, and without
    the pool after the last.
    """

    def __init__(self, options: Conv4MapOptions, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, inputs = input_shape
        if min(height, width) < 8:
            raise ConfigError(
                f"conv4-map halves the image three times: {height}x{width} is under 8x8"
            )
        layers: list[nn.Module] = []
        for block, outputs in enumerate(options.widths):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                BatchNorm(outputs),
                nn.ReLU(),
            ]
            if block < 3:
                layers.append(MaxPool2x2())
            inputs = outputs
        self.layers = Sequential(*layers, Flatten())
        self.embedding_dim = inputs * (height // 8) * (width // 8)

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def conv4_map(options: Conv4MapOptions, input_shape: tuple[int, int, int]) -> Conv4Map:
    """`Conv4Map`; ConfigError below 8x8."""
    return Conv4Map(options, input_shape)


COMPONENTS = (
    Component("conv4-map", conv4_map, Conv4MapOptions, "four convolutions, the last map flattened"),
)

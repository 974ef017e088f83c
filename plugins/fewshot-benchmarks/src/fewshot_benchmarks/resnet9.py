"""A small residual network, for minutes of training on a CPU."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen, validators

from fewshot import (
    BatchNorm,
    Component,
    ConfigError,
    MaxPool2x2,
    MeanPool,
    Residual,
    Sequential,
    at_least,
    option,
    within,
)


@frozen
class ResNet9Options:
    """Options of the small residual network."""

    widths: tuple[int, ...] = option(
        (40, 80, 160, 320),
        "channels of the four stages",
        within(validators.min_len(4), validators.max_len(4), validators.deep_iterable(at_least(1))),
    )


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm(outputs), nn.ReLU()]


class ResNet9(nn.Module):
    """Eight 3x3 convolutions with batch norm and ReLU: (b, h, w, c) -> (b, widths[-1]).

    The first three stages end in a 2x2 max pool, the second and third then in two convolutions with
    a way around them; the embedding is the mean over all places of the fourth. After Page 2018,
    "How to train your ResNet", who pools each stage later, which costs four times as much.
    """

    def __init__(self, options: ResNet9Options, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, inputs = input_shape
        if min(height, width) < 8:
            raise ConfigError(
                f"resnet9 halves the image three times: {height}x{width} is under 8x8"
            )
        layers: list[Any] = []
        for stage, outputs in enumerate(options.widths):
            layers += _block(inputs, outputs)
            if stage < 3:
                layers.append(MaxPool2x2())
            if stage in (1, 2):
                layers.append(Residual(*_block(outputs, outputs), *_block(outputs, outputs)))
            inputs = outputs
        self.layers = Sequential(*layers, MeanPool())
        self.embedding_dim = inputs

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def resnet9(options: ResNet9Options, input_shape: tuple[int, int, int]) -> ResNet9:
    """`ResNet9`; ConfigError below 8x8."""
    return ResNet9(options, input_shape)


COMPONENTS = (
    Component("resnet9", resnet9, ResNet9Options, "eight convolutions, two ways around two each"),
)

"""The experiment's network: convolution blocks, all but the last pooled, and a linear layer."""

from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen, validators

from fewshot import (
    BatchNorm,
    ConfigError,
    Flatten,
    MaxPool2x2,
    Sequential,
    at_least,
    below,
    option,
    within,
)


@frozen
class SimpleCNNOptions:
    """Options of the simple CNN."""

    channels: tuple[int, ...] = option(
        (32, 64, 128, 128),
        "output channels of the convolutions; all but the last are followed by a 2x2 max pool",
        within(validators.min_len(1), validators.deep_iterable(at_least(1))),
    )
    shrink: int = option(
        1, "images are first averaged over squares of so many pixels a side", at_least(1)
    )
    pool_last: bool = option(False, "a 2x2 max pool after the last, too")
    embedding: int = option(
        336, "numbers in an embedding; 0: the last block's, without a linear layer", at_least(0)
    )
    dropout: float = option(
        0.0, "chance of dropping a value before the linear layer", within(at_least(0), below(1))
    )
    order: Literal["relu-norm", "norm-relu"] = option(
        "relu-norm", "what follows a convolution first"
    )


class SimpleCNN(nn.Module):
    """(b, h, w, c) -> (b, embedding). At the defaults and 64x64x3 it has 2,994,384 parameters.

    A convolution that batch norm follows directly (order norm-relu) has no bias: it would have no
    effect, and its gradient is noise.
    """

    def __init__(self, options: SimpleCNNOptions, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, inputs = input_shape
        height, width = height // options.shrink, width // options.shrink
        pools = len(options.channels) - (not options.pool_last)
        if min(height, width) < 2**pools:
            raise ConfigError(
                f"simplecnn halves the image {pools} times: {height}x{width} is too small"
            )
        relu_first = options.order == "relu-norm"
        layers: list[nn.Module] = [nn.AvgPool2d(options.shrink)] if options.shrink > 1 else []
        for i, channels in enumerate(options.channels):
            layers.append(nn.Conv2d(inputs, channels, 3, padding=1, bias=relu_first))
            pair = [nn.ReLU(), BatchNorm(channels)]
            layers += pair if relu_first else pair[::-1]
            if i < pools:
                layers.append(MaxPool2x2())
            inputs = channels
        layers.append(Flatten())
        if options.dropout:
            layers.append(nn.Dropout(options.dropout))
        features = inputs * (height >> pools) * (width >> pools)
        if options.embedding:
            layers.append(nn.Linear(features, options.embedding))
        self.layers = Sequential(*layers)
        self.embedding_dim = options.embedding or features

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def simplecnn(options: SimpleCNNOptions, input_shape: tuple[int, int, int]) -> SimpleCNN:
    """`SimpleCNN` for images of `input_shape` (h, w, c); ConfigError where they are too small."""
    return SimpleCNN(options, input_shape)

"""Networks from images to embeddings."""

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ..compute.layers import BatchNorm, Flatten, MaxPool2x2, Sequential
from ..core.components import Component
from ..core.errors import ConfigError
from ..core.options import option, positive


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


COMPONENTS = (Component("conv4", conv4, Conv4Options, "the field's four-block network"),)

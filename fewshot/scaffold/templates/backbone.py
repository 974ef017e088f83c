"""The backbone PLUGIN_NAME: three convolutions and the mean over all places."""

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen
from fewshot import BatchNorm, Component, at_least, hookimpl, option


@frozen
class Options:
    """Options of the network."""

    width: int = option(32, "channels of the first of the blocks", at_least(1))


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Half the height and width. No bias: batch norm follows directly."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return [conv, BatchNorm(outputs), nn.ReLU()]


class Network(nn.Module):
    """(b, h, w, c) -> (b, 4 · width), for images of any size."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        blocks = ((channels, width), (width, 2 * width), (2 * width, 4 * width))
        self.layers = nn.Sequential(*(layer for io in blocks for layer in block(*io)))
        self.embedding_dim = 4 * width

    def __call__(self, images: mx.array) -> mx.array:
        return self.layers(images).mean(axis=(1, 2))


def network(options: Options, input_shape: tuple[int, int, int]) -> Network:
    """The network for images of `input_shape` (h, w, c)."""
    return Network(input_shape[2], options.width)


@hookimpl
def fewshot_backbones() -> list[Component]:
    return [Component("PLUGIN_NAME", network, Options, "three blocks, averaged")]

"""ConvNeXt."""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from fewshot import PerImage, Residual, Sequential

from .hub import Published, colour, component
from .published import PublishedOptions, Shape, freeze, require_shape

_EPS = 1e-6


class Block(nn.Module):
    """7x7 depthwise convolution, layer norm, two linear layers, layer scale: figure 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, _EPS)
        self.mlp = {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        self.gamma = mx.full((width,), 1e-6)

    def layer(self) -> Residual:
        """(b, h, w, width) -> the same shape."""
        return Residual(self.conv_dw, self.norm, PerImage(self._mixed))

    def _mixed(self, x: mx.array) -> mx.array:
        return self.gamma * self.mlp["fc2"](nn.gelu(self.mlp["fc1"](x)))


class Stage(nn.Module):
    """Layer norm and a 2x2 convolution of stride 2, but in the first, and blocks."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        if inputs != width:
            self.downsample = [nn.LayerNorm(inputs, _EPS), nn.Conv2d(inputs, width, 2, 2)]
        self.blocks = [Block(width) for _ in range(depth)]

    def layers(self) -> list[nn.Module]:
        """(b, h, w, inputs) -> (b, h / 2, w / 2, width)."""
        return [*self.get("downsample", []), *(block.layer() for block in self.blocks)]


class ConvNeXt(nn.Module):
    """Liu et al. 2022, "A ConvNet for the 2020s": (b, h, w, 3) -> (b, widths[-1]).

    `depths` blocks of every width; the embedding is the mean over all places after layer norm.
    """

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], options: PublishedOptions, shape: Shape
    ) -> None:
        super().__init__()
        require_shape("ConvNeXt", shape, 4 * 2 ** (len(depths) - 1))
        self.stem = [nn.Conv2d(3, widths[0], 4, 4), nn.LayerNorm(widths[0], _EPS)]
        before = [widths[0], *widths]
        self.stages = [Stage(*args) for args in zip(before, widths, depths, strict=False)]
        self.head = {"norm": nn.LayerNorm(widths[-1], _EPS)}
        self.embedding_dim = widths[-1]
        blocks = [[stage] for stage in self.stages]
        freeze(self, [*blocks[:-1], [*blocks[-1], self.head["norm"]]], options)

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        stages = [layer for stage in self.stages for layer in stage.layers()]
        x = Sequential(*self.stem, *stages)(colour(images))
        return self.head["norm"](x.mean(axis=(1, 2)))


def convnext_tiny(options: PublishedOptions, input_shape: Shape) -> ConvNeXt:
    """`ConvNeXt` of 18 blocks, 768 numbers."""
    return ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), options, input_shape)


COMPONENTS = (
    component(
        "convnext-tiny",
        convnext_tiny,
        PublishedOptions,
        Published(
            "timm/convnext_tiny.in12k_ft_in1k",
            "Apache-2.0",
            "ImageNet-12k, then 1k",
            crop=0.95,
            others=("head.fc.",),
        ),
        "ConvNeXt-T",
    ),
)

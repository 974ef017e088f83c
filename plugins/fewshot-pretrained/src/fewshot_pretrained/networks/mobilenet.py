"""MobileNetV3."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from fewshot import BatchNorm, PerImage, Sequential

from .hub import Published, colour, component
from .published import PublishedOptions, Shape, freeze, require_shape


def _eighths(channels: float) -> int:
    """The nearest multiple of 8 that takes away no more than a tenth."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def hard_sigmoid(x: mx.array) -> mx.array:
    """max(0, min(1, x / 6 + 1/2))."""
    return mx.clip(x + 3, 0, 6) / 6


class SqueezeExcite(nn.Module):
    """Every channel by a factor in [0, 1] that the means of all of them decide (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = _eighths(channels / 4)
        self.conv_reduce = nn.Conv2d(channels, inside, 1)
        self.conv_expand = nn.Conv2d(inside, channels, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, channels) -> the same shape."""
        means = x.mean(axis=(1, 2), keepdims=True)
        return x * hard_sigmoid(self.conv_expand(nn.relu(self.conv_reduce(means))))


@frozen
class Row:
    """Blocks of one width, one for every expansion, of which the first has the stride."""

    outputs: int
    kernel: int
    stride: int
    expansions: tuple[float, ...]
    squeezed: bool
    activation: nn.Module


LARGE = (
    Row(16, 3, 1, (1,), False, nn.ReLU()),
    Row(24, 3, 2, (4, 3), False, nn.ReLU()),
    Row(40, 5, 2, (3, 3, 3), True, nn.ReLU()),
    Row(80, 3, 2, (6, 2.5, 2.3, 2.3), False, PerImage(nn.hardswish)),
    Row(112, 3, 1, (6, 6), True, PerImage(nn.hardswish)),
    Row(160, 5, 2, (6, 6, 6), True, PerImage(nn.hardswish)),
)


class Block(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution back.

    Without the first where no channels are added. Batch norm after each, an activation but at the
    end; input and output are added where they are alike.
    """

    def __init__(self, inputs: int, row: Row, expansion: float, stride: int) -> None:
        super().__init__()
        inside = _eighths(inputs * expansion)
        self._activation = row.activation
        padding = row.kernel // 2
        depthwise = nn.Conv2d(
            inside, inside, row.kernel, stride, padding, groups=inside, bias=False
        )
        narrow = nn.Conv2d(inside, row.outputs, 1, bias=False)
        if expansion == 1:
            self.conv_dw, self.bn1 = depthwise, BatchNorm(inside)
            self.conv_pw, self.bn2 = narrow, BatchNorm(row.outputs)
        else:
            self.conv_pw, self.bn1 = nn.Conv2d(inputs, inside, 1, bias=False), BatchNorm(inside)
            self.conv_dw, self.bn2 = depthwise, BatchNorm(inside)
            self.conv_pwl, self.bn3 = narrow, BatchNorm(row.outputs)
        if row.squeezed:
            self.se = SqueezeExcite(inside)
        self._added = stride == 1 and inputs == row.outputs

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        activation = self._activation
        squeezed = [PerImage(self.se)] if "se" in self else []
        if "conv_pwl" in self:
            wide = [self.conv_pw, self.bn1, activation, self.conv_dw, self.bn2, activation]
            layers = [*wide, *squeezed, self.conv_pwl, self.bn3]
        else:
            layers = [self.conv_dw, self.bn1, activation, *squeezed, self.conv_pw, self.bn2]
        y = Sequential(*layers)(x)
        return x + y if self._added else y


class Last(nn.Module):
    """1x1 convolution, batch norm and hard swish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.bn1 = nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs)

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, inputs) -> (b, h, w, outputs)."""
        return Sequential(self.conv, self.bn1, PerImage(nn.hardswish))(x)


class MobileNetV3(nn.Module):
    """Howard et al. 2019, "Searching for MobileNetV3", table 1: (b, h, w, 3) -> (b, outputs).

    The embedding is what the classifier of the published network sees.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        last: int,
        outputs: int,
        options: PublishedOptions,
        shape: Shape,
    ) -> None:
        super().__init__()
        require_shape("MobileNetV3", shape, 32)
        self.conv_stem, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), BatchNorm(16)
        self.blocks: list[list[Any]] = []
        inputs = 16
        for row in rows:
            stage = []
            for i, expansion in enumerate(row.expansions):
                stage.append(Block(inputs, row, expansion, 1 if i else row.stride))
                inputs = row.outputs
            self.blocks.append(stage)
        self.blocks.append([Last(inputs, last)])
        self.conv_head = nn.Conv2d(last, outputs, 1)
        self.embedding_dim = outputs
        freeze(self, [*self.blocks[:-1], [*self.blocks[-1], self.conv_head]], options)

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        stem = Sequential(self.conv_stem, self.bn1, PerImage(nn.hardswish))
        x = stem(colour(images))
        for stage in self.blocks:
            for block in stage:
                x = block(x)
        return nn.hardswish(self.conv_head(x.mean(axis=(1, 2), keepdims=True))).flatten(1)


def mobilenetv3_large(options: PublishedOptions, input_shape: Shape) -> MobileNetV3:
    """`MobileNetV3` of fifteen blocks, 1280 numbers."""
    return MobileNetV3(LARGE, 960, 1280, options, input_shape)


COMPONENTS = (
    component(
        "mobilenetv3-large",
        mobilenetv3_large,
        PublishedOptions,
        Published(
            "timm/mobilenetv3_large_100.ra_in1k",
            "Apache-2.0",
            "ImageNet-1k",
            crop=0.875,
            others=("classifier.",),
            sha256="f425af34cc1cead2b5d6211f789a1f30b94835dc32f9c0fcc5a916e4fd2dde85",
        ),
        "MobileNetV3, large",
    ),
)

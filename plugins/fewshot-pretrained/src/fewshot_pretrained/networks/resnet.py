"""Residual networks: ResNet-18 and ResNet-50 with published weights, ResNet-12 from scratch."""

from collections.abc import Sequence
from functools import partial
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
    PerImage,
    Residual,
    Sequential,
    at_least,
    below,
    option,
    within,
)

from .hub import Published, colour, component
from .published import PublishedOptions, Shape, freeze, require_shape


class Block(nn.Module):
    """Convolutions with batch norm, and the way around them, added before the last activation.

    `kernels`: (3, 3) is the basic block of He et al. 2016, figure 5, (1, 3, 1) the bottleneck, a
    quarter as wide inside; (3, 3, 3) that of ResNet-12. The first 3x3 has the stride.
    """

    def __init__(
        self, inputs: int, outputs: int, kernels: Sequence[int], stride: int = 1, slope: float = 0
    ) -> None:
        super().__init__()
        self._count = len(kernels)
        self._activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
        if stride > 1 or inputs != outputs:
            self.downsample = [
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                BatchNorm(outputs),
            ]
        inside = outputs if kernels[0] > 1 else outputs // 4
        widths = [inputs, *[inside] * (len(kernels) - 1), outputs]
        strided = list(kernels).index(3)
        for i, kernel in enumerate(kernels):
            step = stride if i == strided else 1
            self[f"conv{i + 1}"] = nn.Conv2d(
                widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False
            )
            self[f"bn{i + 1}"] = BatchNorm(widths[i + 1])

    @property
    def layers(self) -> Sequential:
        """(b, h, w, inputs) -> (b, h / stride, w / stride, outputs)."""
        inside: list[Any] = []
        for i in range(1, self._count + 1):
            inside += [self[f"conv{i}"], self[f"bn{i}"], self._activation]
        around = self.get("downsample", ())
        return Sequential(Residual(*inside[:-1], around=around), self._activation)


# -------------------------------------------------------------- with published weights


class ResNet(nn.Module):
    """He, Zhang, Ren & Sun 2016, "Deep residual learning": (b, h, w, 3) -> (b, widths[-1]).

    `depths` blocks of every width; the embedding is the mean over all places.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        kernels: Sequence[int],
        options: PublishedOptions,
        shape: Shape,
        stem: int = 64,
    ) -> None:
        super().__init__()
        require_shape("ResNet", shape, 32)
        self._grey = shape[-1] == 1
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm(stem)
        self._pool = nn.MaxPool2d(3, 2, 1)
        inputs = stem
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            blocks = [Block(inputs, width, kernels, 1 if stage == 1 else 2)]
            blocks += [Block(width, width, kernels) for _ in range(depth - 1)]
            self[f"layer{stage}"] = blocks
            inputs = width
        self._stages = len(depths)
        self.embedding_dim = inputs
        freeze(self, self._blocks(), options)

    def _blocks(self) -> list[list[Any]]:
        return [self[f"layer{stage + 1}"] for stage in range(self._stages)]

    @property
    def layers(self) -> Sequential:
        """All of it in order; of images in colour it can be exported."""
        first = [*([PerImage(colour)] if self._grey else []), self.conv1, self.bn1, nn.ReLU()]
        blocks = [block.layers for stage in self._blocks() for block in stage]
        return Sequential(*first, self._pool, *blocks, MeanPool())

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def resnet18(options: PublishedOptions, input_shape: Shape) -> ResNet:
    """`ResNet` of eight basic blocks, 512 numbers."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512), (3, 3), options, input_shape)


def resnet50(options: PublishedOptions, input_shape: Shape) -> ResNet:
    """`ResNet` of sixteen bottlenecks, 2048 numbers."""
    return ResNet((3, 4, 6, 3), (256, 512, 1024, 2048), (1, 3, 1), options, input_shape)


# ------------------------------------------------------------------------- from scratch


@frozen
class ResNet12Options:
    """Options of ResNet-12."""

    widths: tuple[int, ...] = option(
        (64, 160, 320, 640),
        "channels of the four blocks",
        within(validators.min_len(4), validators.max_len(4), validators.deep_iterable(at_least(1))),
    )
    drop: float = option(
        0.1,
        "in training, the share that is dropped: of values after the first two blocks, in squares "
        "after the last two",
        within(at_least(0), below(1)),
    )
    square: int = option(5, "side of the squares that DropBlock drops", at_least(1))
    warmup: int = option(
        1000, "training batches over which the share grows from 0 to `drop`", at_least(0)
    )


class DropBlock(nn.Module):
    """Squares of (b, h, w, c) set to 0 in training, the rest scaled to the same sum of weights.

    Ghiasi, Lin & Le 2018, "DropBlock": the seeds of the squares are drawn for every channel, as
    many as drop the share `drop` in expectation if none overlap; a square of 1 is dropout. The
    share grows linearly over the first `warmup` batches.
    """

    def __init__(self, drop: float, square: int, warmup: int) -> None:
        super().__init__()
        self._drop, self._square, self._warmup = drop, square, warmup
        self.batches = mx.array(0.0)
        self.freeze()

    def __call__(self, x: mx.array) -> mx.array:
        """Drop in training; x itself otherwise."""
        if not self.training or not self._drop:
            return x
        self.batches = self.batches + 1
        b, h, w, c = x.shape
        side = min(self._square, h, w)
        rows, columns = h - side + 1, w - side + 1
        share = self._drop * mx.minimum(1, self.batches / max(1, self._warmup))
        seeds = mx.random.uniform(shape=(b, rows, columns, c)) < share * (h * w) / (
            side**2 * rows * columns
        )
        kept = 1 - _widened(_widened(seeds.astype(x.dtype), side, 1), side, 2)
        return x * kept * (kept.size / mx.maximum(1, kept.sum()))


def _widened(seeds: mx.array, side: int, axis: int) -> mx.array:
    """An axis n to n + side − 1: every number `side` times, the largest where several meet."""
    pads = [[(0, 0)] * axis + [(i, side - 1 - i)] + [(0, 0)] * (3 - axis) for i in range(side)]
    widened = mx.pad(seeds, pads[0])
    for pad in pads[1:]:
        widened = mx.maximum(widened, mx.pad(seeds, pad))
    return widened


class ResNet12(nn.Module):
    """The field's residual network: (b, h, w, c) -> (b, widths[-1]), the mean over all places.

    Four blocks of three 3x3 convolutions with batch norm and leaky ReLU 0.1, each followed by a
    2x2 max pool and, in training, by dropout or DropBlock (Lee et al. 2019, "Meta-learning with
    differentiable convex optimization", section 4.1; widths of 64, 160, 320 and 640).
    """

    def __init__(self, options: ResNet12Options, shape: Shape) -> None:
        super().__init__()
        height, width, inputs = shape
        if min(height, width) < 16:
            raise ConfigError(
                f"resnet12 halves the image four times: {height}x{width} is under 16x16"
            )
        self.blocks: list[Any] = []
        self.drops: list[nn.Module] = []
        for i, outputs in enumerate(options.widths):
            self.blocks.append(Block(inputs, outputs, (3, 3, 3), slope=0.1))
            self.drops.append(
                DropBlock(options.drop, 1 if i < 2 else options.square, options.warmup)
            )
            inputs = outputs
        self._pool = MaxPool2x2()
        self.embedding_dim = inputs

    @property
    def layers(self) -> Sequential:
        """All of it in order, with what drops only in training: what can be exported."""
        every: list[nn.Module] = []
        for block, drop in zip(self.blocks, self.drops, strict=True):
            every += [block.layers, self._pool, *([drop] if self.training else [])]
        return Sequential(*every, MeanPool())

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)


def resnet12(options: ResNet12Options, input_shape: Shape) -> ResNet12:
    """`ResNet12`; ConfigError below 16x16."""
    return ResNet12(options, input_shape)


# Torchvision's first weights: later recipes are better classifiers and worse embeddings
# (Kornblith et al. 2021, "Why do better loss functions lead to less transferable features?").
_imagenet = partial(
    Published, licence="BSD-3-Clause", trained_on="ImageNet-1k",
    crop=0.875, interpolation="bilinear", others=("fc.",),
)  # fmt: skip


COMPONENTS = (
    Component(
        "resnet12", resnet12, ResNet12Options, "the field's ResNet-12 with DropBlock, from scratch"
    ),
    component(
        "resnet18",
        resnet18,
        PublishedOptions,
        _imagenet(
            "timm/resnet18.tv_in1k",
            sha256="694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        ),
        "ResNet-18",
    ),
    component(
        "resnet50",
        resnet50,
        PublishedOptions,
        _imagenet(
            "timm/resnet50.tv_in1k",
            sha256="5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
        ),
        "ResNet-50",
    ),
)

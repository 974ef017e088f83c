"""3x3 convolutions of batches on the CPU with fewer multiplications.

Winograd's minimal filtering F(2x2, 3x3), Lavin & Gray 2016, section 4.1: sixteen products for 2x2
outputs, by the definition 36. Rounding errors are about as small, where neighbouring pixels are of
the same order.
"""

import functools
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .compiling import on_cpu
from .streams import each, total

# With less, the transforms cost more than they save.
_FEWEST_CHANNELS, _FEWEST_PIXELS = 16, 4  # along a side


@functools.cache
def _transforms() -> tuple[mx.array, mx.array, mx.array]:
    """Of 4x4 inputs (16, 16), of 3x3 weights (16, 9) and to 2x2 outputs (4, 16), flattened."""
    inputs = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    weights = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    outputs = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    i, w, o = (mx.array(np.kron(m, m).astype(np.float32)) for m in (inputs, weights, outputs))
    return i, w, o


def fits(layer: Any, batch: mx.array) -> bool:
    """Whether a layer is a plain 3x3 convolution that keeps the size of a batch (b, h, w, c)."""
    return (
        type(layer) is nn.Conv2d
        and batch.ndim == 4
        and min(batch.shape[1:3]) >= _FEWEST_PIXELS
        and layer.weight.dtype == batch.dtype == mx.float32
        and layer.weight.shape[1:3] == (3, 3)
        and min(layer.weight.shape[0], layer.weight.shape[3]) >= _FEWEST_CHANNELS
        and (layer.stride, layer.padding) == ((1, 1), (1, 1))
        and (layer.dilation, layer.groups) == (1, 1)
        and on_cpu()
    )


def _convolve(x: mx.array, weight: mx.array) -> mx.array:
    b, height, width, c = x.shape
    o = weight.shape[0]
    h, w = (height + 1) // 2, (width + 1) // 2  # in tiles
    of_inputs, of_weights, of_outputs = _transforms()
    factors = (of_weights @ weight.transpose(1, 2, 3, 0).reshape(9, -1)).reshape(16, c, o)
    padded = mx.pad(x, [(0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)])
    row = (2 * w + 2) * c
    strides = ((2 * h + 2) * row, row, c, 2 * row, 2 * c, 1)
    tiles = mx.as_strided(padded, (b, 4, 4, h, w, c), strides).reshape(b, 16, -1)
    products = (of_inputs[None] @ tiles).reshape(b, 16, h * w, c) @ factors[None]
    out = of_outputs[None] @ products.reshape(b, 16, -1)
    out = out.reshape(b, 2, 2, h, w, o).transpose(0, 3, 1, 4, 2, 5).reshape(b, 2 * h, 2 * w, o)
    return out[:, :height, :width]


@mx.custom_function
def convolved(parts: list[mx.array], weight: mx.array) -> list[mx.array]:
    """Parts (b, h, w, c) and weights (o, 3, 3, c) -> parts (b, h, w, o), padded with zeros."""
    return each(lambda part: _convolve(part, weight), parts)


@convolved.vjp
def _convolved_vjp(primals: Any, cotangents: Any, _: Any) -> tuple[Any, ...]:
    parts, weight = primals
    turned = weight[:, ::-1, ::-1].swapaxes(0, 3)

    def of_weight(part: mx.array, gradient: mx.array) -> Any:
        return mx.vjp(lambda w: mx.conv2d(part, w, padding=1), [weight], [gradient])[1][0]

    of_parts: Any = convolved(list(cotangents), turned)  # which has a gradient in turn
    return of_parts, total(of_weight, parts, cotangents)

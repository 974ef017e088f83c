"""Convolutions that the CPU backend of MLX computes slowly: depthwise ones and 1x1.

A depthwise convolution is a sum of shifted products, one for every weight of a channel; a 1x1
convolution is a product of matrices.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .compiling import on_cpu


def fits(layer: Any, batch: mx.array) -> bool:
    """Whether `convolved` computes this layer of a batch (b, h, w, c), and faster than MLX."""
    if type(layer) is not nn.Conv2d or batch.ndim != 4 or layer.dilation != 1 or not on_cpu():
        return False
    outputs, *kernel, per_group = layer.weight.shape
    if layer.groups == 1:
        return kernel == [1, 1] and (layer.stride, layer.padding) == ((1, 1), (0, 0))
    return outputs == layer.groups and per_group == 1


def convolved(layer: Any, x: mx.array) -> mx.array:
    """(b, h, w, c) -> (b, h', w', o), with the layer's bias."""
    weight = layer.weight
    if layer.groups == 1:
        out = x @ weight[:, 0, 0].T
    else:
        out = _depthwise(x, weight[..., 0].transpose(1, 2, 0), layer.stride, layer.padding)
    return out + layer.bias if "bias" in layer else out


def _depthwise(
    x: mx.array, weight: mx.array, stride: tuple[int, int], padding: tuple[int, int]
) -> mx.array:
    """weight (kh, kw, c)."""
    (down, across), (above, beside) = stride, padding
    if above or beside:
        x = mx.pad(x, [(0, 0), (above, above), (beside, beside), (0, 0)])
    b, height, width, c = x.shape
    kh, kw, _ = weight.shape
    h, w = (height - kh) // down + 1, (width - kw) // across + 1
    # Every `across`-th column by itself, so that whole rows are long runs of numbers.
    columns = [mx.contiguous(x[:, :, phase::across]).flatten(2) for phase in range(across)]
    weight = mx.tile(weight, (1, 1, w))
    out: Any = None
    for i in range(kh):
        rows = slice(i, i + down * (h - 1) + 1, down)
        for j in range(kw):
            first = j // across * c
            product = columns[j % across][:, rows, first : first + w * c] * weight[i, j]
            out = product if out is None else out + product
    return out.reshape(b, h, w, c)

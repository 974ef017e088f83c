"""Copies of networks: one to train on, and one that computes the same function in fewer steps."""

from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .layers import Flatten, MaxPool2x2, Sequential, affine


def folded(backbone: Any) -> Any:
    """A copy of a backbone, in eval mode, that computes the same embeddings faster.

    Inside every `Sequential`: batch norm directly after a convolution or a linear layer, or before
    a linear layer, goes into that layer's weights; one before a max pool comes after it where no
    scale is negative (the two then commute); dropout goes. A batch norm before a convolution that
    pads stays: its shift would be missing from the border. Equal but for rounding; the original is
    not changed.
    """
    mine = copied(backbone)
    for module in mine.modules():
        if isinstance(module, Sequential):
            module.layers = _folded(module.layers)
    mx.eval(mine.parameters())
    return mine.eval()


def copied(part: Any) -> Any:
    """A module with modules and arrays of its own, all the way down: training it changes no other.

    `copy.deepcopy` stops at MLX's functions.
    """
    if isinstance(part, nn.Module):
        mine = copy(part)
        mine._no_grad = set(part._no_grad)
        for name, value in part.items():
            mine[name] = copied(value)
        return mine
    if isinstance(part, list):
        return [copied(value) for value in part]
    if isinstance(part, dict):
        return {name: copied(value) for name, value in part.items()}
    return mx.array(part) if isinstance(part, mx.array) else part


def _folded(layers: list[nn.Module]) -> list[nn.Module]:
    done: list[nn.Module] = []
    for layer in layers:
        previous = done[-1] if done else None
        before = done[-2] if len(done) > 1 else None
        if isinstance(layer, nn.Dropout):
            continue
        if isinstance(layer, nn.BatchNorm) and type(previous) in (nn.Conv2d, nn.Linear):
            done[-1] = _then_scaled(previous, *affine(layer))
        elif isinstance(layer, nn.MaxPool2d | MaxPool2x2) and isinstance(previous, nn.BatchNorm):
            commutes = bool((affine(previous)[0] >= 0).all())
            done.insert(len(done) - commutes, layer)
        elif type(layer) is nn.Linear and isinstance(previous, nn.BatchNorm):
            done[-1] = _once_scaled(layer, *affine(previous))
        elif (
            type(layer) is nn.Linear
            and isinstance(previous, Flatten)
            and isinstance(before, nn.BatchNorm)
        ):
            done[-2:] = [previous, _once_scaled(layer, *affine(before))]
        else:
            done.append(layer)
    return [_transposed(layer) if type(layer) is nn.Linear else layer for layer in done]


def _with(layer: Any, weight: mx.array, bias: mx.array) -> Any:
    layer = copy(layer)
    layer.weight, layer.bias = weight, bias
    return layer


def _then_scaled(layer: Any, scale: mx.array, shift: mx.array) -> Any:
    """A layer whose outputs (…, c) are scaled and shifted."""
    weight = layer.weight * scale.reshape(-1, *(1 for _ in layer.weight.shape[1:]))
    return _with(layer, weight, layer.get("bias", 0) * scale + shift)


def _once_scaled(layer: Any, scale: mx.array, shift: mx.array) -> Any:
    """A linear layer whose inputs are scaled and shifted; flattened, the channels come last."""
    inputs = layer.weight.shape[1]
    scale, shift = (mx.tile(x, inputs // x.shape[0]) for x in (scale, shift))
    return _with(layer, layer.weight * scale, layer.get("bias", 0) + layer.weight @ shift)


def _transposed(layer: Any) -> Any:
    """The same linear layer, its weights laid out as a product with a few rows reads them best."""
    layer = copy(layer)
    layer.weight = mx.contiguous(layer.weight.T).T
    return layer

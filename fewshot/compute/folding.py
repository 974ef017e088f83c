"""Copies of networks: one to train on, and one that computes the same function in fewer steps."""

from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .layers import Affine, FixedLinear, Flatten, MaxPool2x2, Sequential, affine
from .modules import copied


def folded(backbone: Any) -> Any:
    """A copy of a backbone, in eval mode, that computes the same embeddings faster.

    Inside every `Sequential`: batch norm directly after a convolution or a linear layer, or before
    a linear layer, goes into that layer's weights, any other becomes a scale and a shift (before a
    convolution that pads, its shift would be missing from the border); a max pool comes before
    biases, ReLU and scales that are not negative, with which it commutes; dropout goes. Equal but
    for rounding; the original is not changed.
    """
    mine = copied(backbone)
    for module in mine.modules():
        if isinstance(module, Sequential):
            module.layers = _folded(module.layers)
    mx.eval(mine.parameters())
    return mine.eval()


def _folded(layers: list[nn.Module]) -> list[nn.Module]:
    kept = [layer for layer in layers if not isinstance(layer, nn.Dropout)]
    kept = _scales_into_next(_pools_first(_norms_into_previous(kept)))
    return [_fixed(layer) if type(layer) is nn.Linear else layer for layer in kept]


def _norms_into_previous(layers: list[nn.Module]) -> list[nn.Module]:
    """Batch norm as part of the layer before it, or as a scale and a shift; biases as shifts."""
    done: list[nn.Module] = []
    for layer in layers:
        if not isinstance(layer, nn.BatchNorm):
            done.append(layer)
        elif done and type(done[-1]) in (nn.Conv2d, nn.Linear):
            done[-1] = _then_scaled(done[-1], *affine(layer))
        else:
            scale, shift = affine(layer)
            done.append(Affine(shift, scale))
    return [part for layer in done for part in _unbiased(layer)]


def _unbiased(layer: Any) -> list[nn.Module]:
    """A convolution and its bias apart."""
    if type(layer) is not nn.Conv2d or "bias" not in layer:
        return [layer]
    bare = copy(layer)
    return [bare, Affine(bare.pop("bias"))]


def _pools_first(layers: list[nn.Module]) -> list[nn.Module]:
    """Every max pool before all that it commutes with: these then have a quarter of the work."""
    done: list[nn.Module] = []
    for layer in layers:
        place = len(done)
        while isinstance(layer, nn.MaxPool2d | MaxPool2x2) and place and _rises(done[place - 1]):
            place -= 1
        done.insert(place, layer)
    return done


def _rises(layer: nn.Module) -> bool:
    """Whether it treats every number by itself and never makes a larger one the smaller."""
    if isinstance(layer, Affine):
        return layer.scale is None or bool((layer.scale >= 0).all())
    return type(layer) is nn.ReLU


def _scales_into_next(layers: list[nn.Module]) -> list[nn.Module]:
    """Scales and shifts as part of a linear layer after them, flattened between them or not."""
    done: list[nn.Module] = []
    for layer in layers:
        flattened = bool(done) and isinstance(done[-1], Flatten)
        before = len(done) - 1 - flattened
        if type(layer) is nn.Linear and before >= 0 and isinstance(done[before], Affine):
            layer = _once_scaled(layer, done.pop(before))
        done.append(layer)
    return done


def _with(layer: Any, weight: mx.array, bias: mx.array) -> Any:
    layer = copy(layer)
    layer.weight, layer.bias = weight, bias
    return layer


def _then_scaled(layer: Any, scale: mx.array, shift: mx.array) -> Any:
    """A layer whose outputs (…, c) are scaled and shifted."""
    weight = layer.weight * scale.reshape(-1, *(1 for _ in layer.weight.shape[1:]))
    return _with(layer, weight, layer.get("bias", 0) * scale + shift)


def _once_scaled(layer: Any, before: Any) -> Any:
    """A linear layer whose inputs are scaled and shifted; flattened, the channels come last."""
    repeats = layer.weight.shape[1] // before.shift.shape[0]
    scale = 1 if before.scale is None else mx.tile(before.scale, repeats)
    shift = mx.tile(before.shift, repeats)
    return _with(layer, layer.weight * scale, layer.get("bias", 0) + layer.weight @ shift)


def _fixed(layer: Any) -> nn.Module:
    return FixedLinear(layer.weight, layer.get("bias", mx.zeros(layer.weight.shape[0])))

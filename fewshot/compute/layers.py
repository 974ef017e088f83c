"""Layers that keep every core busy on the CPU, where MLX runs each operation on one thread."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from . import depthwise, winograd
from .compiling import on_cpu
from .streams import all_busy, divide, each, total


class Flatten(nn.Module):
    """(b, …) -> (b, all the rest)."""

    def __call__(self, x: mx.array) -> mx.array:
        """Flatten all but the batch."""
        return x.flatten(1)


class MeanPool(nn.Module):
    """(b, h, w, c) -> (b, c): the mean over all places."""

    def __call__(self, x: mx.array) -> mx.array:
        """The mean."""
        return x.mean(axis=(1, 2))


class MaxPool2x2(nn.Module):
    """`mlx.nn.MaxPool2d(2)`, forward and backward about twice as fast on the CPU."""

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, c) -> (b, ⌊h/2⌋, ⌊w/2⌋, c)."""
        return self.over([x])[0]

    def over(self, parts: list[mx.array]) -> list[mx.array]:
        """Pool the parts of one batch."""
        _, h, w, _ = parts[0].shape
        pooled: Any = _pooled(each(lambda part: part[:, : h // 2 * 2, : w // 2 * 2], parts))
        return pooled


def _largest(x: mx.array) -> mx.array:
    """(b, h, w, c), both sides even -> the largest of every 2x2 window."""
    b, h, w, c = x.shape
    rows = x.reshape(b, h // 2, 2, w, c)
    columns = mx.maximum(rows[:, :, 0], rows[:, :, 1]).reshape(b, h // 2, w // 2, 2, c)
    return mx.maximum(columns[:, :, :, 0], columns[:, :, :, 1])


def _to_largest(x: mx.array, largest: mx.array, gradient: mx.array) -> mx.array:
    """To the largest of a window, in equal shares where there are several, as MLX does."""
    b, h, w, c = x.shape
    found = x.reshape(b, h // 2, 2, w // 2, 2, c) == largest[:, :, None, :, None]
    # Bytes become floats faster than booleans do, but a view has no gradient.
    ones = mx.stop_gradient(found).view(mx.uint8)
    rows = ones[:, :, 0] + ones[:, :, 1]
    share = gradient / (rows[:, :, :, 0] + rows[:, :, :, 1])
    return (ones * share[:, :, None, :, None]).reshape(x.shape)


@mx.custom_function
def _pooled(parts: list[mx.array]) -> list[mx.array]:
    return each(_largest, parts)


@_pooled.vjp
def _pooled_vjp(parts: Any, cotangents: Any, outputs: Any) -> list[mx.array]:
    return each(_to_largest, parts, outputs, cotangents)


class Pad(nn.Module):
    """Zeros around images, each side by itself: (above, below, left, right).

    A convolution of mlx.nn pads both sides alike, TensorFlow's with stride 2 only the far ones.
    """

    def __init__(self, above: int, below: int, left: int, right: int) -> None:
        super().__init__()
        self.widths = [(0, 0), (above, below), (left, right), (0, 0)]

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, c) -> (b, above + h + below, left + w + right, c)."""
        return mx.pad(x, self.widths)


class ReLU6(nn.Module):
    """min(max(x, 0), 6)."""

    def __call__(self, x: mx.array) -> mx.array:
        """(…) -> the same shape."""
        return mx.minimum(mx.maximum(x, 0), 6)


class PerImage(nn.Module):
    """A function of a batch that treats every image by itself, as a layer.

    A `Sequential` divides the batch for it, too, which it does for no layer that it does not know.
    """

    def __init__(self, function: Callable[[mx.array], mx.array]) -> None:
        super().__init__()
        self._function = function

    def __call__(self, x: mx.array) -> mx.array:
        """(b, …) -> what the function makes of it."""
        return self._function(x)


class Affine(nn.Module):
    """x · scale + shift, a number of each for every channel; without a scale only the shift."""

    def __init__(self, shift: mx.array, scale: mx.array | None = None) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def __call__(self, x: mx.array) -> mx.array:
        """(…, c) -> the same shape."""
        return (x if self.scale is None else x * self.scale) + self.shift


class FixedLinear(nn.Module):
    """`mlx.nn.Linear` for evaluation: the weights read in order, three times faster for few images.

    weight (outputs, inputs), bias (outputs,).
    """

    def __init__(self, weight: mx.array, bias: mx.array) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def __call__(self, x: mx.array) -> mx.array:
        """(…, inputs) -> (…, outputs)."""
        rows = (self.weight @ x.flatten(0, -2).T).T + self.bias
        return rows.reshape(*x.shape[:-1], len(self.bias))


class Covariance(nn.Module):
    """How the channels of a map vary together over its places: (b, h, w, c) -> (b, c (c + 1) / 2).

    The upper triangle of Σ (x − mean)(x − mean)ᵀ / (h w) of each image, row by row: what the parts
    of a thing look like, wherever they are (second-order pooling: Carreira et al. 2012; Lin,
    RoyChowdhury & Maji 2015, "Bilinear CNN Models", section 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def __call__(self, x: mx.array) -> mx.array:
        """Pool the map of each image."""
        c = self.channels
        places = x.reshape(x.shape[0], -1, c)
        places = places - places.mean(axis=1, keepdims=True)
        products = places.swapaxes(1, 2) @ places / places.shape[1]
        return products.reshape(-1, c * c)[:, mx.array(upper(c))]


def upper(c: int) -> NDArray[np.int64]:
    """Where the upper triangle of a c x c matrix stands among its c² numbers, row by row."""
    return np.ravel_multi_index(np.triu_indices(c), (c, c))


class RootUnit(nn.Module):
    """sign(x) √|x| of each number, then length 1: (b, d) -> (b, d); zeros stay zeros.

    What evens out pooled features before they are compared (Perronnin, Sánchez & Mensink 2010;
    Lin et al. 2015, section 3.1).
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Scale each row."""
        length = mx.abs(x).sum(axis=-1, keepdims=True)  # of the roots, squared
        shares = mx.abs(x) / mx.maximum(length, 1e-12)
        return mx.sign(x) * mx.sqrt(mx.maximum(shares, 1e-12))  # a root's gradient at 0 is infinite


# Layers that treat every image of a batch by itself.
_PER_IMAGE = (
    nn.Conv2d, nn.Linear, MaxPool2x2, nn.MaxPool2d, nn.AvgPool2d,
    nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm,
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, Flatten,
    Affine, Covariance, FixedLinear, MeanPool, Pad, PerImage, ReLU6, RootUnit,
)  # fmt: skip


class Sequential(nn.Sequential):
    """Layers in order, like `mlx.nn.Sequential`, the batch divided over the CPU's streams.

    The result is that of the undivided batch, but for rounding: `BatchNorm` sums its statistics
    over all parts, and a layer that is not known to treat every image by itself, such as dropout,
    gets the whole batch. Divides nothing on a GPU or without `fewshot.prepare()`.

    On the CPU a 3x3 convolution of a large batch is computed by Winograd's algorithm, a depthwise
    one by shifted products, and batch norm in training together with the max pool after it.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(b, …) -> what the last layer makes of it."""
        parts = self.over(divide(x))
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)

    def over(self, parts: list[mx.array]) -> list[mx.array]:
        """What the last layer makes of the parts of one batch."""
        layers = list(self.layers)
        while layers:
            layer = layers.pop(0)
            if type(layer) is BatchNorm:
                pool = _pool_to_take(layer, layers, parts[0])
                if pool is not None:
                    del layers[pool]
                parts = layer.over(parts, pooled=pool is not None)
            elif type(layer) in (MaxPool2x2, Sequential, Residual, Concatenated):
                parts = layer.over(parts)
            elif depthwise.fits(layer, parts[0]):
                parts = each(partial(depthwise.convolved, layer), parts)
            elif all_busy(parts) and winograd.fits(layer, parts[0]):
                parts = _convolved(layer, parts)
            elif isinstance(layer, _PER_IMAGE) or len(parts) == 1:
                parts = each(layer, parts)
            else:
                parts = divide(layer(mx.concatenate(parts)))
        return parts


class Residual(nn.Module):
    """x, or what the layers `around` make of it, + what its layers, a `Sequential`, make of x."""

    def __init__(self, *layers: nn.Module, around: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.branch = Sequential(*layers)
        if around:
            self.around = Sequential(*around)

    def __call__(self, x: mx.array) -> mx.array:
        """(b, …) -> the shape that the layers give."""
        return (self.around(x) if "around" in self else x) + self.branch(x)

    def over(self, parts: list[mx.array]) -> list[mx.array]:
        """The parts of one batch."""
        kept = self.around.over(parts) if "around" in self else parts
        return each(lambda x, change: x + change, kept, self.branch.over(parts))


class Concatenated(nn.Module):
    """What several branches make of the same x, end to end: (b, …) -> (b, d1 + d2 + …)."""

    def __init__(self, *branches: Sequential) -> None:
        super().__init__()
        self.branches = list(branches)

    def __call__(self, x: mx.array) -> mx.array:
        """Concatenate what each branch, ending in (b, d), makes of x."""
        return mx.concatenate([branch(x) for branch in self.branches], axis=-1)

    def over(self, parts: list[mx.array]) -> list[mx.array]:
        """The parts of one batch."""
        made = [branch.over(parts) for branch in self.branches]
        return each(lambda *made: mx.concatenate(list(made), axis=-1), *made)


def _convolved(layer: Any, parts: list[mx.array]) -> list[mx.array]:
    out: Any = winograd.convolved(parts, layer.weight)
    return each(lambda part: part + layer.bias, out) if "bias" in layer else out


def _pool_to_take(norm: "BatchNorm", after: list[nn.Module], part: mx.array) -> int | None:
    """Where in the layers after it a max pool is that batch norm in training can do as well.

    A max pool commutes with a scale, as that of the smallest where it is negative, and with a ReLU.
    """
    place = 1 if after and type(after[0]) is nn.ReLU else 0
    can = (
        norm.training
        and place < len(after)
        and type(after[place]) is MaxPool2x2
        and part.ndim == 4
        and part.shape[1] % 2 == part.shape[2] % 2 == 0
        and on_cpu()
    )
    return place if can else None


def _per_channel(parts: list[mx.array]) -> int:
    """How many numbers of each channel the parts (…, c) have together."""
    return sum(part.size for part in parts) // parts[0].shape[-1]


def _column_sums(x: mx.array) -> mx.array:
    """Σ over all axes of (…, c) but the last, as products: faster than a reduction here.

    In two stages, as a single long sum in float32 loses digits.
    """
    n, c = x.size // x.shape[-1], x.shape[-1]
    stages = math.gcd(n, 256)
    sums = mx.ones((1, stages)) @ x.reshape(stages, -1)
    return (mx.ones((1, n // stages)) @ sums.reshape(-1, c))[0]


def _extreme(x: mx.array, weight: mx.array) -> mx.array:
    """The largest of every 2x2 window, the smallest in a channel of negative weight.

    By a weight of 0 the pool has no derivative: the one from above is taken.
    """
    sign = mx.where(mx.stop_gradient(weight) < 0, -1.0, 1.0)
    return _largest(x * sign) * sign


@mx.custom_function
def _picked_from(parts: list[mx.array], picked: list[mx.array]) -> list[mx.array]:
    """`picked`, as the function of the parts that it is: its gradient goes to these."""
    return picked


@_picked_from.vjp
def _picked_from_vjp(primals: Any, cotangents: Any, _: Any) -> tuple[Any, ...]:
    parts, picked = primals
    return each(_to_largest, parts, picked, cotangents), each(mx.zeros_like, picked)


def _normalisation(pooled: bool) -> Callable[..., Any]:
    """Batch norm by the batch's statistics; `pooled`: of the numbers that a max pool lets through.

    Returns a function of p parts (…, c), weight (c,), bias (c,) and eps -> p normalised, mean (c,),
    variance (c,), and if pooled the p parts of what was let through, which have no gradient.
    """

    @mx.custom_function
    def normalised(
        parts: list[mx.array], weight: mx.array, bias: mx.array, eps: mx.array
    ) -> list[mx.array]:
        n = _per_channel(parts)
        mean = total(_column_sums, parts) / n
        variance = total(lambda part: _column_sums(mx.square(part - mean)), parts) / n
        scale = weight * mx.rsqrt(variance + eps)
        picked = each(lambda part: _extreme(part, weight), parts) if pooled else parts
        out = each(lambda part: (part - mean) * scale + bias, picked)
        return [*out, mean, variance, *(picked if pooled else [])]

    @normalised.vjp
    def normalised_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[Any, ...]:
        """Ioffe & Szegedy 2015, section 3, with the sums over the batch taken once."""
        parts, weight, _, eps = primals
        count, n = len(parts), _per_channel(parts)
        _, (mean, variance), picked = _cut(outputs, count)
        # The next gradient comes through mean and variance, too, and is 0 by what was picked.
        gradients, (of_mean, of_variance), _ = _cut(cotangents, count)
        inverse = mx.rsqrt(variance + eps)
        of_bias = total(_column_sums, gradients)
        kept: Any = _picked_from(parts, picked) if pooled else parts
        of_weight = inverse * total(
            lambda gradient, part: _column_sums(gradient * (part - mean)), gradients, kept
        )
        scale = weight * inverse
        slope = (scale * inverse * of_weight - 2 * of_variance) / n
        constant = (scale * of_bias - of_mean) / n - mean * slope

        def back(part: mx.array, largest: mx.array, gradient: mx.array) -> mx.array:
            direct = gradient * scale
            if pooled:
                direct = _to_largest(part, largest, direct)
            return direct - (part * slope + constant)

        of_parts = each(back, parts, picked if pooled else parts, gradients)
        return of_parts, of_weight, of_bias, mx.zeros_like(eps)

    return normalised


def _cut(arrays: list[mx.array], count: int) -> tuple[list[mx.array], ...]:
    return arrays[:count], arrays[count : count + 2], arrays[count + 2 :]


_normalised, _normalised_and_pooled = _normalisation(False), _normalisation(True)


def affine(norm: Any) -> tuple[mx.array, mx.array]:
    """What batch norm does in eval mode: x · scale + shift, (c,) each."""
    scale = norm.get("weight", 1) * mx.rsqrt(norm.running_var + norm.eps)
    return scale, norm.get("bias", 0) - norm.running_mean * scale


class BatchNorm(nn.BatchNorm):
    """`mlx.nn.BatchNorm`, several times faster on the CPU.

    (b, …, c) -> the same shape: normalised over all axes but the last, by the batch's statistics
    in training, by the running ones otherwise. Inside a `Sequential` the batch is the whole one.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise; ValueError in training for a batch of one value a channel."""
        return self.over([x])[0]

    def over(self, parts: list[mx.array], pooled: bool = False) -> list[mx.array]:
        """Normalise the parts of one batch.

        `pooled`: and pool them 2x2; what is normalised is a quarter then.
        """
        if not self.training:
            scale, shift = affine(self)
            return each(lambda part: part * scale + shift, parts)
        n = _per_channel(parts)
        if n < 2:
            raise ValueError("batch norm cannot train on one value a channel")
        eps, keep = mx.array(self.eps), 1 - self.momentum
        normalise = _normalised_and_pooled if pooled else _normalised
        outputs: Any = normalise(parts, self.weight, self.bias, eps)
        out, (mean, variance), _ = _cut(outputs, len(parts))
        self.running_mean = keep * self.running_mean + self.momentum * mean
        self.running_var = keep * self.running_var + self.momentum * variance * (n / (n - 1))
        return out

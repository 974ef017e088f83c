"""Layers that keep every core busy on the CPU, where MLX runs each operation on one thread."""

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from . import runtime

# Fewer images than this are not worth a core of their own.
_FEWEST_IMAGES = 4


class Flatten(nn.Module):
    """(b, …) -> (b, all the rest)."""

    def __call__(self, x: mx.array) -> mx.array:
        """Flatten all but the batch."""
        return x.flatten(1)


@mx.custom_function
def _pooled(x: mx.array) -> mx.array:
    b, h, w, c = x.shape
    rows = x.reshape(b, h // 2, 2, w, c)
    columns = mx.maximum(rows[:, :, 0], rows[:, :, 1]).reshape(b, h // 2, w // 2, 2, c)
    return mx.maximum(columns[:, :, :, 0], columns[:, :, :, 1])


@_pooled.vjp
def _pooled_vjp(x: Any, cotangent: Any, out: Any) -> mx.array:
    """To the largest of a window, in equal shares where there are several, as MLX does."""
    b, h, w, c = x.shape
    windows = x.reshape(b, h // 2, 2, w // 2, 2, c)
    largest = windows == out[:, :, None, :, None]
    ones = largest.view(mx.uint8)
    top, bottom = (ones[:, :, i, :, 0] + ones[:, :, i, :, 1] for i in (0, 1))
    share = cotangent / (top + bottom)
    return (largest * share[:, :, None, :, None]).reshape(x.shape)


class MaxPool2x2(nn.Module):
    """`mlx.nn.MaxPool2d(2)`, forward and backward about twice as fast on the CPU."""

    def __call__(self, x: mx.array) -> mx.array:
        """(b, h, w, c) -> (b, ⌊h/2⌋, ⌊w/2⌋, c)."""
        _, h, w, _ = x.shape
        out: Any = _pooled(x[:, : h // 2 * 2, : w // 2 * 2])
        return out


class Affine(nn.Module):
    """x · scale + shift, a number of each for every channel; without a scale only the shift."""

    def __init__(self, shift: mx.array, scale: mx.array | None = None) -> None:
        super().__init__()
        self.shift, self.scale = shift, scale

    def __call__(self, x: mx.array) -> mx.array:
        """(…, c) -> the same shape."""
        return (x if self.scale is None else x * self.scale) + self.shift


class FixedLinear(nn.Module):
    """`mlx.nn.Linear` for evaluation: the weights read in order, three times faster for an image.

    weight (outputs, inputs), bias (outputs,).
    """

    def __init__(self, weight: mx.array, bias: mx.array) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def __call__(self, x: mx.array) -> mx.array:
        """(…, inputs) -> (…, outputs)."""
        rows = (self.weight @ x.flatten(0, -2).T).T + self.bias
        return rows.reshape(*x.shape[:-1], len(self.bias))


# Layers that treat every image of a batch by itself.
_PER_IMAGE = (
    nn.Conv2d, nn.Linear, MaxPool2x2, nn.MaxPool2d, nn.AvgPool2d,
    nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm,
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, Flatten,
    Affine, FixedLinear,
)  # fmt: skip


class Sequential(nn.Sequential):
    """Layers in order, like `mlx.nn.Sequential`, the batch divided over the CPU's streams.

    The result is that of the undivided batch, but for rounding: `BatchNorm` sums its statistics
    over all parts, and a layer that is not known to treat every image by itself, such as dropout,
    gets the whole batch. Divides nothing on a GPU or without `fewshot.prepare()`.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """(b, …) -> what the last layer makes of it."""
        parts = _divide(x)
        for layer in self.layers:
            if isinstance(layer, BatchNorm):
                parts = layer.over(parts)
            elif isinstance(layer, _PER_IMAGE) or len(parts) == 1:
                parts = _each(layer, parts)
            else:
                parts = _divide(layer(mx.concatenate(parts)))
        return parts[0] if len(parts) == 1 else mx.concatenate(parts)


@functools.cache
def _stream(number: int) -> Any:
    return mx.new_stream(mx.cpu)


def on_stream(number: int) -> AbstractContextManager[Any]:
    """Work inside goes to one of the CPU's streams, in turn for numbers 0, 1, …, if it has any."""
    count = runtime.streams()
    return mx.stream(_stream(number % count)) if count > 1 else nullcontext()


def all_cores(images: int) -> AbstractContextManager[None]:
    """Products inside use every core where a batch of so many images is not divided."""
    return runtime.undivided() if _parts(images) == 1 else nullcontext()


def _parts(images: int) -> int:
    return max(1, min(runtime.streams(), images // _FEWEST_IMAGES))


def _divide(batch: mx.array) -> list[mx.array]:
    """A batch in as many parts as it is worth streams for, the first ones larger by one or none."""
    count = _parts(batch.shape[0])
    size, larger = divmod(batch.shape[0], count)
    ends = [size * (i + 1) + min(i + 1, larger) for i in range(count - 1)]
    return list(mx.split(batch, ends)) if ends else [batch]


def _each(function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
    """`function` of every part, each on its own stream; a single part stays where it is."""
    rows = list(zip(*lists, strict=True))
    if len(rows) == 1:
        return [function(*rows[0])]
    results = []
    for number, row in enumerate(rows):
        with mx.stream(_stream(number)):
            results.append(function(*row))
    return results


def _column_sums(rows: mx.array) -> mx.array:
    """Σ over the rows of (n, c), as a matrix product: many times faster than a reduction here."""
    return (mx.ones((1, rows.shape[0])) @ rows)[0]


def _total(function: Callable[..., mx.array], *lists: Iterable[mx.array]) -> mx.array:
    """The column sums of `function` of every part, added up."""
    first, *rest = _each(lambda *row: _column_sums(function(*row)), *lists)
    return sum(rest, first)


@mx.custom_function
def _normalised(
    parts: list[mx.array], weight: mx.array, bias: mx.array, eps: mx.array
) -> list[mx.array]:
    """p parts (n_i, c) -> p normalised, p about the mean of all, mean (c,), variance (c,)."""
    n = sum(len(part) for part in parts)
    mean = _total(lambda part: part, parts) / n
    centred = _each(lambda part: part - mean, parts)
    variance = _total(lambda part: part * part, centred) / n
    scale = weight * mx.rsqrt(variance + eps)
    return [*_each(lambda part: part * scale + bias, centred), *centred, mean, variance]


@_normalised.vjp
def _normalised_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[Any, ...]:
    """Ioffe & Szegedy 2015, section 3, with the sums over the batch taken once."""
    parts, weight, _, eps = primals
    count, n = len(parts), sum(len(part) for part in parts)
    gradients, centred, variance = cotangents[:count], outputs[count:-2], outputs[-1]
    scale = mx.rsqrt(variance + eps)
    of_bias = _total(lambda gradient: gradient, gradients)
    of_weight = _total(lambda gradient, part: gradient * part, gradients, centred) * scale
    slope, constant = weight * scale * scale * of_weight / n, weight * scale * of_bias / n
    of_parts = _each(
        lambda gradient, part: gradient * (weight * scale) - (part * slope + constant),
        gradients,
        centred,
    )
    return of_parts, of_weight, of_bias, mx.zeros_like(eps)


def affine(norm: Any) -> tuple[mx.array, mx.array]:
    """What batch norm does in eval mode: x · scale + shift, (c,) each."""
    scale = norm.get("weight", 1) * mx.rsqrt(norm.running_var + norm.eps)
    return scale, norm.get("bias", 0) - norm.running_mean * scale


class BatchNorm(nn.BatchNorm):
    """`mlx.nn.BatchNorm` at its defaults, several times faster on the CPU.

    (b, …, c) -> the same shape: normalised over all axes but the last, by the batch's statistics
    in training, by the running ones otherwise. Inside a `Sequential` the batch is the whole one.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise; ValueError in training for a batch of one value a channel."""
        return self.over([x])[0]

    def over(self, parts: list[mx.array]) -> list[mx.array]:
        """Normalise the parts of one batch."""
        if not self.training:
            scale, shift = affine(self)
            return _each(lambda part: part * scale + shift, parts)
        n = sum(part.size for part in parts) // parts[0].shape[-1]
        if n < 2:
            raise ValueError("batch norm cannot train on one value a channel")
        eps, keep = mx.array(self.eps), 1 - self.momentum
        rows = _each(lambda part: part.reshape(-1, part.shape[-1]), parts)
        outputs: Any = _normalised(rows, self.weight, self.bias, eps)
        mean, variance = outputs[-2:]
        self.running_mean = keep * self.running_mean + self.momentum * mx.stop_gradient(mean)
        unbiased = mx.stop_gradient(variance) * (n / (n - 1))
        self.running_var = keep * self.running_var + self.momentum * unbiased
        return _each(lambda out, part: out.reshape(part.shape), outputs[: len(parts)], parts)

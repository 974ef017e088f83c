"""Batch norm whose step costs a fraction of what autograd makes of it on the CPU."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn


def _column_sums(rows: mx.array) -> mx.array:
    """Σ over the rows of (n, c), as a matrix product: many times faster than a reduction here."""
    return (mx.ones((1, rows.shape[0])) @ rows)[0]


@mx.custom_function
def _normalised(
    x: mx.array, weight: mx.array, bias: mx.array, eps: mx.array
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """(n, c) -> normalised rows, rows about their mean, mean (c,), variance (c,)."""
    n = x.shape[0]
    mean = _column_sums(x) / n
    centred = x - mean
    variance = _column_sums(centred * centred) / n
    return centred * (weight * mx.rsqrt(variance + eps)) + bias, centred, mean, variance


@_normalised.vjp
def _normalised_vjp(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
    """Ioffe & Szegedy 2015, section 3, with the sums over the batch taken once."""
    _, weight, _, eps = primals
    gradient, (_, centred, _, variance) = cotangents[0], outputs
    n = centred.shape[0]
    scale = mx.rsqrt(variance + eps)
    of_bias = _column_sums(gradient)
    of_weight = _column_sums(gradient * centred) * scale
    constant, slope = weight * scale * of_bias / n, weight * scale * scale * of_weight / n
    return (
        gradient * (weight * scale) - (centred * slope + constant),
        of_weight,
        of_bias,
        mx.zeros_like(eps),
    )


class BatchNorm(nn.BatchNorm):
    """`mlx.nn.BatchNorm` at its defaults, several times faster on the CPU.

    (b, …, c) -> the same shape: normalised over all axes but the last, by the batch's statistics
    in training, by the running ones otherwise.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise; ValueError in training for a batch of one value a channel."""
        if not self.training:
            scale = self.weight * mx.rsqrt(self.running_var + self.eps)
            return x * scale + (self.bias - self.running_mean * scale)
        rows = x.reshape(-1, x.shape[-1])
        n = rows.shape[0]
        if n < 2:
            raise ValueError("batch norm cannot train on one value a channel")
        eps, keep = mx.array(self.eps), 1 - self.momentum
        outputs: Any = _normalised(rows, self.weight, self.bias, eps)
        out, _, mean, variance = outputs
        self.running_mean = keep * self.running_mean + self.momentum * mx.stop_gradient(mean)
        unbiased = mx.stop_gradient(variance) * (n / (n - 1))
        self.running_var = keep * self.running_var + self.momentum * unbiased
        return out.reshape(x.shape)

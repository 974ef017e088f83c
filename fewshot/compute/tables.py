"""Tables of a batch's images against each other: with and without themselves, reduced by masks."""

import mlx.core as mx

_NONE = -1e30  # the logarithm of nothing, finite so that its gradient is


def without_own(table: mx.array) -> mx.array:
    """(b, b, …) -> (b, b − 1, …): every row without its entry on the diagonal."""
    b, rest = len(table), table.shape[2:]
    entries = table.reshape(b * b, *rest)[1:].reshape(b - 1, b + 1, *rest)
    return entries[:, :-1].reshape(b, b - 1, *rest)


def with_own(table: mx.array, own: float | bool) -> mx.array:
    """(b, b − 1) -> (b, b): on the diagonal, which `without_own` left out, stands `own`."""
    b = len(table)
    ends = mx.full((b - 1, 1), own, table.dtype)
    entries = mx.concatenate([table.reshape(b - 1, b), ends], axis=1).flatten()
    return mx.concatenate([mx.full(1, own, table.dtype), entries]).reshape(b, b)


def log_sum(x: mx.array, mask: mx.array, axis: int = -1) -> mx.array:
    """log Σ exp over an axis of what is in the mask; −1e30 of nothing."""
    if x.shape[axis] == 0:
        return x.sum(axis=axis) + _NONE
    return mx.logsumexp(mx.where(mask, x, _NONE), axis=axis)


def mean_of(x: mx.array, mask: mx.array, axis: int = -1) -> mx.array:
    """Mean over an axis of what is in the mask; 0 of nothing."""
    return mx.where(mask, x, 0).sum(axis=axis) / mx.maximum(mask.sum(axis=axis), 1)


def largest(x: mx.array, mask: mx.array) -> mx.array:
    """(…, m) -> (…, 1): the largest along the last axis that is in the mask; −inf of nothing."""
    if x.shape[-1] == 0:
        return mx.full((*x.shape[:-1], 1), -mx.inf)
    return mx.where(mask, x, -mx.inf).max(axis=-1, keepdims=True)


def smallest(x: mx.array, mask: mx.array) -> mx.array:
    """(…, m) -> (…, 1): the smallest along the last axis that is in the mask; inf of nothing."""
    return -largest(-x, mask)

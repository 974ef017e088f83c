"""What transformers of images and of text share."""

import math
from typing import Literal

import mlx.core as mx


def attended(
    q: mx.array, k: mx.array, v: mx.array, heads: int, mask: Literal["causal"] | None = None
) -> mx.array:
    """(b, n, d), (b, m, d), (b, m, d) -> (b, n, d), every head a part of the d.

    `mask` "causal": each of the n sees those up to itself.
    """
    split = [x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scale = 1 / math.sqrt(split[0].shape[-1])
    out = mx.fast.scaled_dot_product_attention(*split, scale=scale, mask=mask)
    return out.transpose(0, 2, 1, 3).flatten(2)


def quick_gelu(x: mx.array) -> mx.array:
    """The approximation of GELU that CLIP was trained with: x σ(1.702 x)."""
    return x * mx.sigmoid(1.702 * x)

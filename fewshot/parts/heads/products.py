"""Points known by their inner products alone: few numbers, where an embedding has hundreds."""

import mlx.core as mx

# Squared lengths below which a point counts as zero, as in `unit`; and where it was moved, from
# length 1, and rounding is left of it.
ZERO, ROUNDING = 1e-24, 1e-12


def products_of(support: mx.array, query: mx.array) -> mx.array:
    """The inner products (…, n, n) among a support and queries, in this order."""
    rows = mx.concatenate([support, query], axis=-2)
    return rows @ rows.swapaxes(-1, -2)


def inverse_lengths(squares: mx.array, least: float = ZERO) -> mx.array:
    """1 over the root; 0 where a square is less than `least`, and so is its gradient."""
    zero = squares < least
    return mx.where(zero, 0.0, mx.rsqrt(mx.where(zero, 1.0, squares)))


def unit_products(gram: mx.array, least: float = ZERO) -> mx.array:
    """The products (…, n, n) of points, where these are brought to length 1; of zeros, 0."""
    inverse = inverse_lengths(mx.diagonal(gram, axis1=-2, axis2=-1), least)
    return gram * inverse[..., None] * inverse[..., None, :]


def moved_products(gram: mx.array, moves: mx.array, by: mx.array) -> mx.array:
    """The products (…, n, n) of points x + Σₖ moves[k, x] Σᵧ by[k, y] y, given those of points.

    `moves` and `by` (k, n): k groups of points, each moved by its own sum of points.
    """
    along = by @ gram
    along = along + (along @ by.T) @ moves / 2
    return gram + moves.T @ along + along.swapaxes(-1, -2) @ moves


def squared_distances(gram: mx.array) -> mx.array:
    """Squared distances (…, n, n) of points, by their products."""
    own = mx.diagonal(gram, axis1=-2, axis2=-1)
    return mx.maximum(own[..., None] + own[..., None, :] - 2 * gram, 0)


def nearness(products: mx.array, shares: mx.array) -> mx.array:
    """x·m − |m|²/2 (…, n_way, n) of points x and sums m of points, by the points' shares in them.

    That is minus half the squared distance but for |x|²/2. `products`: x·m.
    """
    return products - (shares * products).sum(axis=-1, keepdims=True) / 2

"""Linear classifiers, fitted to the support."""

import mlx.core as mx
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import at_least, option, positive
from ..metrics import unit
from .prototypes import one_hot

# Strengths that `ridge` tries, as shares of the mean squared length of the support.
_STRENGTHS = tuple(4.0**i for i in range(-4, 4))


def _inverse(matrices: mx.array, about: mx.array) -> mx.array:
    """Inverses (…, m, m) of symmetric positive definite matrices, from what is about that.

    Two of Newton's steps (Schulz 1933), each of which squares the relative error; `about` is taken
    for a constant, and yet gradients are right, and theirs too.
    """
    about = mx.stop_gradient(about)
    for _ in range(2):
        about = 2 * about - about @ matrices @ about
    return about


@frozen
class RidgeOptions:
    """Options of ridge regression."""

    strength: float = option(
        0.0,
        "weight of the squared coefficients, as a share of the mean squared length of the "
        "support; 0: chosen from the support",
        at_least(0.0),
    )


def ridge(options: RidgeOptions = RidgeOptions()) -> Head:
    """Ridge regression of the classes, 1 or 0, on the embeddings (Bertinetto et al. 2019, eq. 4).

    W = X'(XX' + λ I)⁻¹ Y, by Woodbury's identity (X'X + λ I)⁻¹ X' Y where images are more than
    numbers; scores q W. The metric has no say. λ is a share of the mean squared length
    of the rows of X. Chosen, it is that of 4⁻⁴, 4⁻³ … 4³ of least squared error where each image
    is left out (Allen 1974: (y − ŷ) / (1 − h), h its leverage), counting images of classes that
    have another; 1 where none has.
    """

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        y, rows = one_hot(support_labels, n_way), support
        few = rows.shape[-2] < rows.shape[-1]
        gram = rows @ rows.swapaxes(-1, -2) if few else rows.swapaxes(-1, -2) @ rows
        values, vectors = mx.linalg.eigh(mx.stop_gradient(gram), stream=mx.default_stream(mx.cpu))
        values = mx.maximum(values, 0)
        length = values.sum(axis=-1, keepdims=True) / rows.shape[-2]
        length = mx.where(length > 0, length, 1.0)  # all rows are 0, and any strength will do
        if options.strength:
            strength = options.strength * length
        else:
            turned = (
                vectors * mx.sqrt(values)[..., None, :] if few else mx.stop_gradient(rows) @ vectors
            )
            strength = _chosen(turned, y, values, length)
        about = (vectors / (values + strength)[..., None, :]) @ vectors.swapaxes(-1, -2)
        inverse = _inverse(gram + strength[..., None] * mx.eye(gram.shape[-1]), about)
        back = rows.swapaxes(-1, -2)
        return back @ (inverse @ y) if few else inverse @ (back @ y)

    def scores(weights: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return query @ weights

    return Head(fit, scores, differentiable=True)


def _chosen(rows: mx.array, y: mx.array, values: mx.array, length: mx.array) -> mx.array:
    """The strength (…, 1) of least error where each image is left out; of rows (…, n, m) with
    R'R = diag(values (…, m)).
    """
    asked = (y * y.sum(axis=-2, keepdims=True)).sum(axis=-1) > 1
    correlated = rows.swapaxes(-1, -2) @ y
    errors = []
    for share in _STRENGTHS:
        scale = 1 / (values + share * length)
        leverage = (rows * rows) @ scale[..., None]
        left_out = (y - rows @ (correlated * scale[..., None])) / mx.maximum(1 - leverage, 1e-6)
        errors.append((mx.square(left_out).sum(axis=-1) * asked).sum(axis=-1))
    best = mx.stack(errors, axis=-1).argmin(axis=-1, keepdims=True)
    found = mx.where(asked.any(axis=-1, keepdims=True), mx.array(_STRENGTHS)[best], 1.0)
    return found * length


@frozen
class LogisticOptions:
    """Options of logistic regression."""

    strength: float = option(
        0.1, "weight of half the squared coefficients, against the sum of losses", at_least(0.01)
    )
    steps: int = option(40, "accelerated steps that fit it", positive)


def logistic(options: LogisticOptions = LogisticOptions()) -> Head:
    """Multinomial logistic regression on embeddings of length 1, with an L2 penalty.

    W = argmin Σᵢ −log softmax(xᵢ W)[yᵢ] + λ/2 |W|², scores q W; the metric has no say. With W = X'A
    every step is A ← A − (½ XX' + λ I)⁻¹ (softmax(XX'A) − Y + λ A), to the least of the quadratic
    that bounds the loss from above (Böhning 1992), from a point that Nesterov's momentum gives.
    """
    strength = options.strength

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        rows, y = unit(support), one_hot(support_labels, n_way)
        gram = rows @ rows.swapaxes(-1, -2)
        bound = gram / 2 + strength * mx.eye(gram.shape[-1])
        inverse = _inverse(
            bound, mx.linalg.inv(mx.stop_gradient(bound), stream=mx.default_stream(mx.cpu))
        )
        # The square root of how far, at most, the quadratic is above the loss.
        root = mx.sqrt(1 + mx.abs(gram).sum(axis=-1).max(axis=-1)[..., None, None] / 2 / strength)
        momentum = mx.stop_gradient((root - 1) / (root + 1))
        at = before = mx.zeros_like(gram @ y)
        for _ in range(options.steps):
            ahead = at + momentum * (at - before)
            slope = mx.softmax(gram @ ahead, axis=-1) - y + strength * ahead
            before, at = at, ahead - inverse @ slope
        return rows.swapaxes(-1, -2) @ at

    def scores(weights: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return unit(query) @ weights

    return Head(fit, scores, differentiable=True)


COMPONENTS = (
    Component(
        "ridge",
        ridge,
        RidgeOptions,
        "ridge regression on the support, its strength chosen there",
    ),
    Component(
        "logistic",
        logistic,
        LogisticOptions,
        "logistic regression on the support, with an L2 penalty",
    ),
)

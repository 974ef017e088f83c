"""Ridge, logistic regression, matching, a cache, weighted votes against float64 NumPy and SciPy."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, logsumexp, softmax

from fewshot.parts.heads.linear import LogisticOptions, RidgeOptions, logistic, ridge
from fewshot.parts.heads.nearest import (
    MatchingOptions,
    NearestSupportOptions,
    TipAdapterOptions,
    matching,
    nearest_support,
    tip_adapter,
)
from fewshot.parts.metrics import cosine, euclidean, sqeuclidean
from fewshot.testing import tasks
from fewshot.testing.heads import scores

Array = NDArray[Any]
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, k_shot: int, d: int, n_way: int = 3) -> tuple[Array, Array, Array, int]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_way), k_shot))
    centres = rng.normal(size=(n_way, d))
    support = centres[labels] + rng.normal(size=(len(labels), d))
    query = rng.normal(size=(5, d))
    return support.astype("f4"), labels, query.astype("f4"), n_way


def units(x: Array) -> Array:
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)


# ------------------------------------------------------------------------------- ridge


def regressed(x: Array, y: Array, query: Array, strength: float) -> Array:
    """X and 1-or-0 targets, in float64."""
    x = x.astype(np.float64)
    weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
    return query.astype(np.float64) @ weights


@given(seed=seeds, k_shot=st.integers(1, 4), d=st.integers(1, 20), share=st.floats(0.01, 10))
def test_ridge_is_the_regression_of_the_classes(
    seed: int, k_shot: int, d: int, share: float
) -> None:
    support, labels, query, n_way = task = drawn(seed, k_shot, d)
    strength = share * np.square(support.astype(np.float64)).sum(axis=1).mean()
    expected = regressed(support, np.eye(n_way)[labels], query, strength)
    found = scores(ridge(RidgeOptions(share)), euclidean(), *task)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


@given(task=tasks(ties=False))
def test_its_strength_is_that_of_least_error_on_images_left_out(task: Any) -> None:
    support, labels, query, n_way = task
    y, length = np.eye(n_way)[labels], np.square(support.astype(np.float64)).sum(axis=1).mean()
    asked = [i for i in range(len(labels)) if (labels == labels[i]).sum() > 1]
    shares, errors = [4.0**i for i in range(-4, 4)], []
    for share in shares:
        errors.append(0.0)
        for i in asked:
            rest = np.arange(len(labels)) != i
            guess = regressed(support[rest], y[rest], support[i : i + 1], share * length)
            errors[-1] += np.square(guess - y[i]).sum()
    order = np.argsort(errors)
    assume(not asked or errors[order[1]] > 1.001 * errors[order[0]])  # or rounding decides
    chosen = shares[order[0]] if asked else 1.0
    found = scores(ridge(), euclidean(), *task)
    assert np.allclose(found, regressed(support, y, query, chosen * length), rtol=1e-3, atol=1e-4)


@given(seed=seeds, k_shot=st.integers(1, 3), d=st.sampled_from([2, 15]))
def test_the_gradient_of_ridge_is_that_of_the_formula(seed: int, k_shot: int, d: int) -> None:
    """By finite differences of float64; the strength moves with the support, too."""
    support, labels, query, n_way = drawn(seed, k_shot, d)
    weights = np.random.default_rng(seed).normal(size=(len(query), n_way))
    head, step = ridge(RidgeOptions(0.5)), 1e-5

    def exact(x: Array) -> float:
        strength = 0.5 * np.square(support.astype(np.float64)).sum(axis=1).mean()
        return float((weights * regressed(x, np.eye(n_way)[labels], query, strength)).sum())

    def ours(x: mx.array) -> mx.array:
        found = head(x, mx.array(labels), mx.array(query), euclidean(), n_way)
        return (mx.array(weights.astype("f4")) * found).sum()

    moves = step * np.eye(support.size).reshape(-1, *support.shape)
    x = support.astype(np.float64)
    expected = np.array([(exact(x + m) - exact(x - m)) / (2 * step) for m in moves])
    found = np.array(mx.grad(ours)(mx.array(support))).ravel()
    assert np.allclose(found, expected, rtol=1e-2, atol=1e-3 * max(1, np.abs(expected).max()))


# ---------------------------------------------------------------------------- logistic


@given(seed=seeds, k_shot=st.integers(1, 4), d=st.integers(2, 12), strength=st.floats(0.1, 3))
def test_logistic_is_the_least_of_the_penalised_loss(
    seed: int, k_shot: int, d: int, strength: float
) -> None:
    support, labels, query, n_way = task = drawn(seed, k_shot, d)
    x, y = units(support.astype(np.float64)), np.eye(n_way)[labels]

    def energy(w: Array) -> tuple[float, Array]:
        w = w.reshape(d, n_way)
        value = -(y * log_softmax(x @ w, axis=1)).sum() + strength / 2 * np.square(w).sum()
        return value, (x.T @ (softmax(x @ w, axis=1) - y) + strength * w).ravel()

    fitted = minimize(energy, np.zeros(d * n_way), jac=True, tol=1e-12)
    expected = units(query.astype(np.float64)) @ fitted.x.reshape(d, n_way)
    found = scores(logistic(LogisticOptions(strength, steps=150)), euclidean(), *task)
    assert np.allclose(found, expected, atol=2e-4)


@given(seed=seeds, scale=st.floats(0.1, 100))
def test_logistic_takes_no_note_of_lengths(seed: int, scale: float) -> None:
    support, labels, query, n_way = drawn(seed, 2, 6)
    here, there = (
        scores(logistic(), euclidean(), s * support, labels, query, n_way)
        for s in (np.float32(1), np.float32(scale))
    )
    assert np.allclose(here, there, atol=1e-4)


# ---------------------------------------------------------- matching and weighted votes

METRICS = {"sqeuclidean": sqeuclidean(), "euclidean": euclidean(), "cosine": cosine()}


@pytest.mark.parametrize("scipys", METRICS)
@given(task=tasks(ties=False), temperature=st.sampled_from([0.05, 1.0]))
def test_matching_is_the_attention_to_each_class(
    scipys: str, task: Any, temperature: float
) -> None:
    support, labels, query, n_way = task
    far = cdist(query.astype(np.float64), support.astype(np.float64), scipys) / temperature
    attention = log_softmax(-far, axis=1)
    expected = np.stack(
        [logsumexp(attention[:, labels == c], axis=1) for c in range(n_way)], axis=1
    )
    found = scores(matching(MatchingOptions(temperature)), METRICS[scipys], *task)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


@given(
    seed=seeds,
    k_shot=st.integers(0, 4),
    names=st.booleans(),
    alpha=st.sampled_from([0.5, 3.0]),
    beta=st.sampled_from([1.0, 5.5]),
)
def test_tip_adapter_is_names_and_a_cache(
    seed: int, k_shot: int, names: bool, alpha: float, beta: float
) -> None:
    """Zhang et al. 2022, eq. 5 and 6: α exp(−β (1 − f F')) L + f W'."""
    support, labels, query, n_way = drawn(seed, k_shot, d=4)
    text = np.random.default_rng(seed + 1).normal(size=(n_way, 4)).astype("f4")
    f, cached, words = (units(x.astype(np.float64)) for x in (query, support, text))
    expected = alpha * np.exp(-beta * (1 - f @ cached.T)) @ np.eye(n_way)[labels]
    if names:
        expected += 100 * f @ words.T
        support = np.concatenate([text, support])
        labels = np.concatenate([np.arange(n_way), labels])
    head = tip_adapter(TipAdapterOptions(alpha, beta), has_text=names)
    found = scores(head, euclidean(), support, labels, query, n_way)
    assert head.names == names
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scipys", METRICS)
@given(task=tasks(ties=False), k=st.integers(1, 15))
def test_votes_weigh_the_inverse_of_their_distance(scipys: str, task: Any, k: int) -> None:
    support, labels, query, n_way = task
    table = cdist(query.astype(np.float64), support.astype(np.float64), scipys)
    assume(table.min() > 1e-2)  # the inverse of a rounding error
    expected = np.zeros((len(query), n_way))
    for row, distances in zip(expected, table, strict=True):
        for i in np.argsort(distances)[:k]:
            row[labels[i]] += 1 / distances[i]
    head = nearest_support(NearestSupportOptions(k, "distance"))
    found = scores(head, METRICS[scipys], *task)
    assert np.allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-3)
    assert not head.votes


def test_images_at_no_distance_outvote_all_others() -> None:
    support = np.array([[0], [0], [0], [0.001]], np.float32)
    head = nearest_support(NearestSupportOptions(4, "distance"))
    found = scores(head, euclidean(), support, np.array([0, 0, 1, 1]), support[:1], 2)
    assert np.allclose(found, [[2 / 3, 1 / 3]])

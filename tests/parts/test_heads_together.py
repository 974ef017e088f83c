"""Heads that ask all queries together, and those that learn, against float64 NumPy."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax

from fewshot.parts.heads.learned import feat
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.heads.transductive import (
    AlphaTimOptions,
    BdCspnOptions,
    LabelPropagationOptions,
    LaplacianShotOptions,
    PtMapOptions,
    TimOptions,
    TransductiveFinetuneOptions,
    alpha_tim,
    bd_cspn,
    label_propagation,
    laplacian_shot,
    pt_map,
    tim,
    transductive_finetune,
)
from fewshot.parts.metrics import euclidean, sqeuclidean
from fewshot.testing import tasks
from fewshot.testing.heads import scores

Array = NDArray[Any]
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=8)


def units(x: Array) -> Array:
    lengths = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x, np.float64), where=lengths > 0)


def drawn(seed: int, k_shot: int = 2, q: int = 8, d: int = 6, n_way: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_way, d))
    labels = rng.permutation(np.repeat(np.arange(n_way), k_shot))
    asked = rng.integers(n_way, size=q)
    support, query = (
        (centres[y] + 0.5 * rng.normal(size=(len(y), d))).astype("f4") for y in (labels, asked)
    )
    return support, labels, query, n_way


def means(x: Array, labels: Array, n_way: int) -> Array:
    return np.array([x[labels == c].mean(axis=0) for c in range(n_way)])


# ---------------------------------------------------------------------- tim and alpha-tim


def entropy(p: Array, alpha: float) -> Array:
    if alpha == 1:
        return -(p * np.log(p)).sum(axis=-1)
    return (1 - (p**alpha).sum(axis=-1)) / (alpha - 1)


def energy(w: Array, support: Array, y: Array, query: Array, o: Any, alpha: float) -> float:
    log_p = [
        log_softmax(-o.temperature / 2 * cdist(x, w, "sqeuclidean"), axis=1)
        for x in (support, query)
    ]
    p = np.exp(log_p[1])
    right = (y * log_p[0]).sum() / len(y)
    even = entropy(p.mean(axis=0), alpha)
    return float(o.conditional * entropy(p, alpha).mean() - o.marginal * even - o.support * right)


INFORMED = [
    (tim, TimOptions, 1.0),
    (alpha_tim, AlphaTimOptions, 2.0),
    (alpha_tim, AlphaTimOptions, 5.0),
]


@pytest.mark.parametrize(("head", "kind", "alpha"), INFORMED)
@few
@given(seed=seeds, d=st.sampled_from([6, 8]))  # 14 images are many for 6 numbers, for 8 not
def test_tim_descends_its_energy_by_gradient_with_momentum(
    head: Any, kind: Any, alpha: float, seed: int, d: int
) -> None:
    """The gradient by finite differences, in the space of embeddings."""
    task = drawn(seed, d=d)
    more = {} if alpha == 1 else {"alpha": alpha}
    o = kind(steps=3, rate=0.004, conditional=0.7, marginal=0.9, support=0.6, **more)
    descends(head(o), o, alpha, task)


@few
@given(seed=seeds)
def test_transductive_finetuning_descends_cross_entropy_and_entropy(seed: int) -> None:
    o = TransductiveFinetuneOptions(steps=3, rate=0.004, conditional=0.7)
    same = TimOptions(steps=3, rate=0.004, conditional=0.7, marginal=0.0, support=1.0)
    descends(transductive_finetune(o), same, 1.0, drawn(seed))


def descends(head: Any, o: Any, alpha: float, task: Any) -> None:
    support, labels, query, n_way = task
    s, q, y = units(support), units(query), np.eye(n_way)[labels]
    w = means(s, labels, n_way)
    speed, step = np.zeros_like(w), 1e-6
    for _ in range(o.steps):
        moves = step * np.eye(w.size).reshape(-1, *w.shape)
        slope = np.array(
            [
                (energy(w + m, s, y, q, o, alpha) - energy(w - m, s, y, q, o, alpha)) / (2 * step)
                for m in moves
            ]
        ).reshape(w.shape)
        speed = 0.9 * speed - o.rate * slope
        w = w + speed
    expected = -o.temperature / 2 * cdist(q, w, "sqeuclidean")
    assert np.allclose(scores(head, euclidean(), *task), expected, rtol=1e-3, atol=1e-3)


# --------------------------------------------------------------------------- bd-cspn


def rectified(support: Array, labels: Array, query: Array, n_way: int, temperature: float) -> Any:
    """Moved queries and new prototypes, image by image; no vector is 0."""

    def similar(x: Array, y: Array) -> float:
        return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))

    moved = query + support.mean(axis=0) - query.mean(axis=0)
    means = [support[labels == c].mean(axis=0) for c in range(n_way)]
    taken_for = [max(range(n_way), key=lambda c: similar(x, means[c])) for x in moved]
    new = []
    for c in range(n_way):
        of_class = [x for x, label in zip(support, labels, strict=True) if label == c]
        of_class += [x for x, label in zip(moved, taken_for, strict=True) if label == c]
        weights = [np.exp(similar(x, means[c]) / temperature) for x in of_class]
        new.append(sum(w * x for w, x in zip(weights, of_class, strict=True)) / sum(weights))
    return moved, np.array(new)


@given(task=tasks(ties=False), temperature=st.sampled_from([0.1, 1.0]))
def test_bd_cspn_scores_the_cosine_to_rectified_prototypes(task: Any, temperature: float) -> None:
    support, labels, query, n_way = task
    assume(len(query) > 1)  # one alone is moved onto the mean of the support
    moved, new = rectified(
        support.astype(np.float64), labels, query.astype(np.float64), n_way, temperature
    )
    head = bd_cspn(BdCspnOptions(temperature))
    found = scores(head, euclidean(), *task)
    assert np.allclose(found, 1 - cdist(moved, new, "cosine"), rtol=1e-3, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3))
def test_bd_cspn_undoes_what_moves_all_queries_alike(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    support, query = rng.normal(size=(6, 4)), rng.normal(size=(8, 4))
    task = support.astype("f4"), np.arange(6) % 3
    here, there = (
        scores(bd_cspn(), euclidean(), *task, x.astype("f4"), 3) for x in (query, query + shift)
    )
    assert np.allclose(here, there, atol=1e-3)


# ------------------------------------------------------------------------- laplacian-shot


@few
@given(task=tasks(ties=False), k=st.integers(1, 3), weight=st.floats(0, 2))
def test_laplacian_shot_is_a_fixed_number_of_bound_updates(
    task: Any, k: int, weight: float
) -> None:
    support, labels, query, n_way = task
    assume(len(query) > 2)
    s, q = units(support), units(query)
    moved, new = rectified(s, labels, q, n_way, 0.1)
    far = cdist(moved, new, "sqeuclidean")
    table = cdist(moved, moved)
    np.fill_diagonal(table, np.inf)
    near = np.zeros_like(table)
    for row, distances in zip(near, table, strict=True):
        row[np.argsort(distances)[: min(k, len(q) - 1)]] = 1
    found = -far
    for _ in range(4):
        found = -far + weight * near @ softmax(found, axis=1)
    head = laplacian_shot(LaplacianShotOptions(weight, k, steps=4))
    assert np.allclose(scores(head, euclidean(), *task), found, rtol=1e-3, atol=1e-3)


# ----------------------------------------------------------------------- label-propagation


@few
@given(
    task=tasks(ties=False),
    alpha=st.sampled_from([0.0, 0.5, 0.99]),
    k=st.integers(1, 9),
    width=st.floats(0.1, 2),
)
def test_label_propagation_is_the_inverse_of_the_flow(
    task: Any, alpha: float, k: int, width: float
) -> None:
    support, labels, query, n_way = task
    rows = units(np.concatenate([support, query]).astype(np.float64))
    squares = cdist(rows, rows, "sqeuclidean")
    others = squares + np.diag(np.full(len(rows), np.inf))
    last = np.sort(others, axis=1)
    k = min(k, len(rows) - 1)
    assume((np.diff(last[:, : k + 1], axis=1) > 1e-5).all())
    near = others <= last[:, k - 1 : k]
    flow = np.exp(-squares / (2 * width * squares.mean())) * (near | near.T)
    degrees = flow.sum(axis=1)
    assume(degrees.min() > 1e-20)
    flow /= np.sqrt(degrees[:, None] * degrees)
    given_labels = np.concatenate([np.eye(n_way)[labels], np.zeros((len(query), n_way))])
    expected = np.linalg.solve(np.eye(len(rows)) - alpha * flow, given_labels)[len(support) :]
    found = scores(label_propagation(LabelPropagationOptions(alpha, k, width)), euclidean(), *task)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3 * max(1, expected.max()))


# --------------------------------------------------------------------------------- pt-map


@few
@given(seed=seeds)
def test_pt_map_shares_queries_out_evenly(seed: int) -> None:
    _, _, query, n_way = task = drawn(seed, q=9)
    p = np.exp(scores(pt_map(PtMapOptions(sharpness=3.0)), euclidean(), *task))
    assert np.allclose(p.sum(axis=1), 1, atol=1e-4)
    assert np.allclose(p.sum(axis=0), len(query) / n_way, atol=0.05)


def transported(costs: Array, sharpness: float) -> Array:
    """The plan of rows of 1 and even columns, by many rounds of Sinkhorn's algorithm."""
    p = np.exp(-sharpness * costs)
    before = 0 * p
    while np.abs(p - before).max() > 1e-6:
        before = p
        p = p * len(p) / p.shape[1] / p.sum(axis=0)
        p /= p.sum(axis=1, keepdims=True)
    return p


@few
@given(seed=seeds)
def test_pt_map_moves_prototypes_by_the_best_transport(seed: int) -> None:
    support, labels, query, n_way = task = drawn(seed)

    def prepared(x: Array) -> Array:
        x = units(np.sign(x) * np.abs(x.astype(np.float64)) ** 0.5)
        return units(x - x.mean(axis=0))

    s, q = prepared(support), prepared(query)
    centres = means(s, labels, n_way)
    for _ in range(20):
        p = np.concatenate([np.eye(n_way)[labels], transported(cdist(q, centres) ** 2, 3.0)])
        new = p.T @ np.concatenate([s, q]) / p.sum(axis=0)[:, None]
        centres += 0.2 * (new - centres)
    found = np.exp(scores(pt_map(PtMapOptions(sharpness=3.0)), euclidean(), *task))
    # Five rounds of Sinkhorn's algorithm a move are not its end.
    assert np.allclose(found, transported(cdist(q, centres) ** 2, 3.0), atol=2e-2)


# ----------------------------------------------------------------------------------- feat


@few
@given(task=tasks(), seed=st.integers(0, 2**31))
def test_feat_is_attention_among_prototypes(task: Any, seed: int) -> None:
    support, labels, query, n_way = task
    mx.random.seed(seed)
    d = support.shape[1]
    head = feat(embedding_dim=d)
    assert head.module is not None
    w = {n: np.array(array, np.float64) for n, array in tree_flatten(head.module.parameters())}
    x = means(support.astype(np.float64), labels, n_way)
    asked, keys, values = (x @ w[f"{name}.weight"].T for name in ("query", "key", "value"))
    seen = softmax(asked @ keys.T / np.sqrt(d), axis=1) @ values
    x = x + seen @ w["out.weight"].T + w["out.bias"]
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    expected = -cdist(query.astype(np.float64), x, "sqeuclidean")
    assert np.allclose(scores(head, sqeuclidean(), *task), expected, rtol=1e-3, atol=1e-2)


def test_feat_tells_one_class_by_another() -> None:
    """Adapted prototypes of a class depend on what else there is; plain ones do not."""
    support, labels, query, _ = drawn(0)
    kept = labels < 2
    mx.random.seed(0)
    for head, same in ((nearest_prototype(), True), (feat(embedding_dim=6), False)):
        here = scores(head, euclidean(), support, labels, query, 3)[:, :2]
        there = scores(head, euclidean(), support[kept], labels[kept], query, 2)
        assert np.allclose(here, there, atol=1e-5) == same

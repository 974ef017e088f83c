"""The built-in heads against float64 NumPy; what every head keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import REGISTRY, make

from fewshot.parts.heads.learned import RelationOptions, relation
from fewshot.parts.heads.nearest import NearestSupportOptions, nearest_support
from fewshot.parts.heads.prototypes import LdaOptions, lda, nearest_prototype
from fewshot.parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from fewshot.testing import tasks
from fewshot.testing.heads import scores
from fewshot.testing.laws import ULP

Array = NDArray[Any]

# Distances between small integers are the same float32 number in any order of summation, so that
# ties are ties. The metrics that keep to them:
EXACT = {"sqeuclidean": sqeuclidean(), "cityblock": manhattan(), "euclidean": euclidean()}
exact = pytest.mark.parametrize("scipys", EXACT)
METRICS = pytest.mark.parametrize("metric", [euclidean(), cosine()], ids=["euclidean", "cosine"])


# ------------------------------------------------------------------- nearest prototype


@exact
@given(task=tasks(ties=False))
def test_nearest_prototype_scores_minus_the_distance_to_class_means(scipys: str, task: Any) -> None:
    support, labels, query, n_way = task
    means = np.array([support[labels == c].mean(axis=0, dtype=np.float64) for c in range(n_way)])
    expected = -cdist(query.astype(np.float64), means, scipys)
    found = scores(nearest_prototype(), EXACT[scipys], *task)
    assert np.allclose(found, expected, rtol=100 * ULP, atol=100 * ULP)


@exact
@given(task=tasks())
def test_one_support_each_makes_all_heads_of_a_metric_answer_alike(scipys: str, task: Any) -> None:
    support, labels, query, n_way = task
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(n_way)])
    answers = [
        scores(make(entry), EXACT[scipys], support[first], np.arange(n_way), query, n_way)
        for entry in REGISTRY.all("head")
        if entry.provider == "builtin" and entry.name in ("nearest-prototype", "nearest-support")
    ]
    assert all(np.array_equal(a.argmax(-1), answers[0].argmax(-1)) for a in answers)


@given(seed=st.integers(0, 2**32 - 1), lead=st.sampled_from([(3,), (2, 2)]))
def test_the_state_of_nearest_prototype_is_the_class_means(seed: int, lead: Any) -> None:
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(*lead, 9, 4)).astype(np.float32)
    labels = rng.permuted(np.broadcast_to(np.arange(9) % 3, (*lead, 9)), axis=-1)
    found = np.array(nearest_prototype().fit(mx.array(support), mx.array(labels), euclidean(), 3))
    for e in np.ndindex(*lead):
        means = [support[e][labels[e] == c].mean(axis=0, dtype=np.float64) for c in range(3)]
        assert np.allclose(found[e], means, atol=100 * ULP)


# --------------------------------------------------------------------- nearest support


def by_vote(distances: Array, labels: Array, n_way: int, k: int) -> list[int]:
    """Classes, best first: more votes, then the nearer image, then class order.

    Of images equally far, those of the earlier class vote.
    """
    voters = sorted(range(len(labels)), key=lambda i: (distances[i], labels[i]))[:k]
    votes = [sum(labels[i] == c for i in voters) for c in range(n_way)]
    nearest = [distances[labels == c].min() for c in range(n_way)]
    return sorted(range(n_way), key=lambda c: (-votes[c], nearest[c], c))


@exact
@given(task=tasks(), k=st.integers(1, 15))
def test_nearest_support_ranks_by_votes_then_nearness_then_class_order(
    scipys: str, task: Any, k: int
) -> None:
    support, labels, query, n_way = task
    table = cdist(query.astype(np.float64), support.astype(np.float64), scipys)
    found = scores(nearest_support(NearestSupportOptions(k)), EXACT[scipys], *task)
    for row, distances in zip(found, table, strict=True):
        assert np.argsort(-row, kind="stable").tolist() == by_vote(distances, labels, n_way, k)
        assert len(set(row.tolist())) == n_way  # ranks leave no tie to the reader


@exact
@given(
    rows=arrays(np.int64, (3, 12, 2), elements=st.integers(-2, 2)),
    n_way=st.integers(2, 4),
    k=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_ties_are_broken_in_every_episode_of_a_block(
    scipys: str, rows: Array, n_way: int, k: int, seed: int
) -> None:
    rows, rng = rows.astype(np.float32), np.random.default_rng(seed)
    labels = rng.permuted(np.broadcast_to(np.arange(8) % n_way, (3, 8)), axis=-1)
    head = nearest_support(NearestSupportOptions(k))
    block = scores(head, EXACT[scipys], rows[:, :8], labels, rows[:, 8:], n_way)
    for answers, row, of in zip(block, rows.astype(np.float64), labels, strict=True):
        for found, distances in zip(answers, cdist(row[8:], row[:8], scipys), strict=True):
            expected = by_vote(distances, of, n_way, k)
            assert np.argsort(-found, kind="stable").tolist() == expected


@METRICS
@given(task=tasks(ties=False), k=st.integers(1, 15))
def test_votes_are_the_whole_of_a_score_but_a_fraction_below_half_a_vote(
    metric: Any, task: Any, k: int
) -> None:
    support, labels, query, n_way = task
    k_used = min(k, len(labels))
    table = np.array(metric.table(mx.array(query), mx.array(support)))
    votes = np.array(
        [np.bincount(labels[np.argsort(row)[:k_used]], minlength=n_way) for row in table]
    )
    rest = scores(nearest_support(NearestSupportOptions(k)), metric, *task) * k_used - votes
    assert (rest > 0).all()
    assert (rest <= 0.5 + 100 * ULP).all()


@METRICS
@given(task=tasks(ties=False), extra=st.integers(0, 20))
def test_more_neighbours_than_support_images_means_that_all_vote(
    metric: Any, task: Any, extra: int
) -> None:
    s = len(task[1])
    all_vote = scores(nearest_support(NearestSupportOptions(s)), metric, *task)
    more = scores(nearest_support(NearestSupportOptions(s + extra)), metric, *task)
    assert np.array_equal(more, all_vote)


@pytest.mark.parametrize("neighbours", [0, -1])
def test_no_neighbour_at_all_is_refused(neighbours: int) -> None:
    with pytest.raises(ValueError, match="neighbours"):
        NearestSupportOptions(neighbours)


# ------------------------------------------------------------ linear discriminant analysis


@given(
    seed=st.integers(0, 2**32 - 1),
    k_shot=st.integers(2, 6),
    d=st.integers(1, 30),
    shrinkage=st.floats(0.01, 1),
)
def test_lda_scores_minus_the_squared_mahalanobis_distance(
    seed: int, k_shot: int, d: int, shrinkage: float
) -> None:
    rng, n_way = np.random.default_rng(seed), 3
    labels = rng.permutation(np.repeat(np.arange(n_way), k_shot))
    support, query = (
        rng.normal(size=(n, d)).astype(np.float32) @ np.diag(rng.uniform(0.1, 3, d)).astype("f4")
        for n in (len(labels), 5)
    )
    means = np.array([support[labels == c].mean(axis=0, dtype=np.float64) for c in range(n_way)])
    covariance = np.cov((support - means[labels]).T.astype(np.float64).reshape(d, -1), bias=True)
    covariance = covariance.reshape(d, d)
    covariance *= d / np.trace(covariance)
    inverse = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * np.eye(d))
    expected = -(cdist(query.astype(np.float64), means, "mahalanobis", VI=inverse) ** 2)
    head = lda(LdaOptions(shrinkage))
    found = scores(head, cosine(), support, labels, query, n_way)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    middle = means.mean(axis=0, keepdims=True)
    shares = np.sqrt(-expected) / cdist(query.astype(np.float64), middle, "mahalanobis", VI=inverse)
    assert head.distances is not None
    state: Any = head.fit(mx.array(support), mx.array(labels), cosine(), n_way)
    for given_ in (state, tuple(map(np.array, state))):  # of either kind
        of_kind: Any = query if isinstance(given_[0], np.ndarray) else mx.array(query)
        asked = head.scores(given_, of_kind, cosine())
        assert np.allclose(head.distances(given_, of_kind, asked), shares, rtol=2e-2, atol=1e-3)


@given(task=tasks(ties=False))
def test_lda_without_spread_or_wholly_shrunk_is_the_nearest_prototype(task: Any) -> None:
    support, labels, query, n_way = task
    nearest = scores(nearest_prototype(), sqeuclidean(), *task)
    assert np.allclose(scores(lda(LdaOptions(1.0)), euclidean(), *task), nearest, atol=1e-4)
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(n_way)])
    for times in (1, 3):
        twice = (np.repeat(support[first], times, axis=0), np.repeat(np.arange(n_way), times))
        found = scores(lda(), euclidean(), *twice, query, n_way)
        again = scores(nearest_prototype(), sqeuclidean(), *twice, query, n_way)
        assert np.allclose(found, again, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------- relation


@given(task=tasks(), hidden=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_relation_is_a_network_of_prototype_and_query_side_by_side(
    task: Any, hidden: int, seed: int
) -> None:
    support, labels, query, n_way = task
    mx.random.seed(seed)
    head = relation(RelationOptions(hidden), embedding_dim=support.shape[1])
    assert head.module is not None
    weights = {
        name: np.array(array, np.float64) for name, array in tree_flatten(head.module.parameters())
    }
    beside = np.concatenate([weights["prototype.weight"], weights["query.weight"]], axis=1)
    expected = np.empty((len(query), n_way))

    def at_length(x: Array) -> Array:
        length = np.linalg.norm(x)
        return x * (np.sqrt(len(x)) / length if length > 1e-12 else 0.0)

    for i, x in enumerate(query.astype(np.float64)):
        for c in range(n_way):
            mean = support[labels == c].astype(np.float64).mean(axis=0)
            pair = np.concatenate([at_length(mean), at_length(x)])
            inner = np.maximum(beside @ pair + weights["prototype.bias"], 0)
            expected[i, c] = (weights["score.weight"] @ inner + weights["score.bias"]).item()
    assert np.allclose(scores(head, euclidean(), *task), expected, rtol=1e-4, atol=1e-5)


def test_a_relation_head_learns_what_no_distance_tells() -> None:
    """Only the first of eight coordinates is the class, and it is the smallest."""
    rng = np.random.default_rng(0)
    mx.random.seed(0)
    head, labels = relation(embedding_dim=8), np.tile(np.arange(3), 10)

    def episode() -> tuple[mx.array, mx.array]:
        rows = rng.normal(size=(60, 8)) * 3
        rows[:, 0] = np.tile(rng.permutation(3), 20) * 2 + 0.2 * rng.normal(size=60)
        return mx.array(rows[:30].astype("f4")), mx.array(rows[30:].astype("f4"))

    def loss(support: mx.array, query: mx.array) -> mx.array:
        found = head(support, mx.array(labels), query, euclidean(), 3)
        return nn.losses.cross_entropy(found, mx.array(labels), reduction="mean")

    assert head.module is not None
    step, optimizer = nn.value_and_grad(head.module, loss), optimizers.Adam(3e-3)
    for _ in range(300):
        _, gradients = step(*episode())
        optimizer.update(head.module, gradients)
        mx.eval(head.module.parameters(), optimizer.state)
    rights = [
        [
            np.mean(np.array(each(s, mx.array(labels), q, euclidean(), 3)).argmax(-1) == labels)
            for each in (head, nearest_prototype())
        ]
        for s, q in (episode() for _ in range(20))
    ]
    ours, nearest = np.mean(rights, axis=0)
    assert ours > nearest + 0.1

"""What is true of every few-shot classifier, against float64 NumPy where it has a twin."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import REGISTRY, ULP, every, make

from fewshot.heads import NearestSupportOptions, nearest_prototype, nearest_support
from fewshot.metrics import cosine, euclidean, manhattan, sqeuclidean

Array = NDArray[Any]

# Distances between small integers are the same float32 number in any order of summation, so that
# ties are ties. The metrics that keep to them:
EXACT = {"sqeuclidean": sqeuclidean(), "cityblock": manhattan(), "euclidean": euclidean()}
exact = pytest.mark.parametrize("scipys", EXACT)
METRICS = pytest.mark.parametrize("metric", [euclidean(), cosine()], ids=["euclidean", "cosine"])


@st.composite
def tasks(draw: st.DrawFn, ties: bool = True) -> tuple[Array, Array, Array, int]:
    """Support (s, d), labels (s,), queries (q, d), n_way: on a grid with ties, or without any."""
    n_way, q = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    d = draw(st.integers(1 if ties else 2, 4))
    more = draw(st.lists(st.integers(0, n_way - 1), max_size=8))
    labels = np.array(draw(st.permutations([*range(n_way), *more])))
    shape = (len(labels) + q, d)
    if ties:
        rows = draw(arrays(np.int64, shape, elements=st.integers(-3, 3)))
    else:
        rows = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).normal(size=shape)
    rows = rows.astype(np.float32)
    support, query = rows[: len(labels)], rows[len(labels) :]
    if not ties:
        for name in ("euclidean", "cosine"):
            assume(np.diff(np.sort(cdist(query, support, name)), axis=1).min() > 1e-5)
    return support, labels, query, n_way


def ask(head: Any, metric: Any, support: Array, labels: Array, query: Array, n_way: int) -> Array:
    scores = head.scores(mx.array(support), mx.array(labels), mx.array(query), metric, n_way)
    return np.array(scores)


def heads_of(entry: Any) -> list[Any]:
    """The component at its default options, and the built-in k-nearest at other k too."""
    heads = [make(entry)]
    if entry.component.options is NearestSupportOptions:
        heads += [entry.component.factory(NearestSupportOptions(k)) for k in (2, 3, 5, 50)]
    return heads


def same(a: Array, b: Array) -> bool:
    return np.allclose(a, b, rtol=100 * ULP, atol=1e-4 * ULP + 100 * ULP)


# ------------------------------------------------------------------------- every head


@every("head")
@METRICS
@given(task=tasks())
def test_scores_are_finite_one_per_query_and_class(entry: Any, metric: Any, task: Any) -> None:
    for head in heads_of(entry):
        scores = ask(head, metric, *task)
        assert scores.shape == (len(task[2]), task[3])
        assert np.isfinite(scores).all()


@every("head")
@exact
@given(task=tasks(), data=st.data())
def test_the_order_of_the_support_does_not_matter(
    entry: Any, scipys: str, task: Any, data: Any
) -> None:
    support, labels, query, n_way = task
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    for head in heads_of(entry):
        shuffled = ask(head, EXACT[scipys], support[order], labels[order], query, n_way)
        assert same(shuffled, ask(head, EXACT[scipys], *task))


@every("head")
@METRICS
@given(task=tasks(ties=False), data=st.data())
def test_renaming_the_classes_renames_the_scores(
    entry: Any, metric: Any, task: Any, data: Any
) -> None:
    support, labels, query, n_way = task
    new = np.array(data.draw(st.permutations(range(n_way))))
    for head in heads_of(entry):
        renamed = ask(head, metric, support, new[labels], query, n_way)
        assert same(renamed[:, new], ask(head, metric, *task))


@every("head")
@METRICS
@given(task=tasks(ties=False), data=st.data())
def test_one_query_is_answered_as_among_many_and_in_any_order(
    entry: Any, metric: Any, task: Any, data: Any
) -> None:
    support, labels, query, n_way = task
    order = np.array(data.draw(st.permutations(range(len(query)))))
    for head in heads_of(entry):
        together = ask(head, metric, *task)
        alone = [ask(head, metric, support, labels, row[None], n_way)[0] for row in query]
        assert same(np.array(alone), together)
        shuffled = ask(head, metric, support, labels, query[order], n_way)
        assert same(shuffled, together[order])


@every("head")
@METRICS
@given(task=tasks())
def test_asked_twice_a_head_says_the_same(entry: Any, metric: Any, task: Any) -> None:
    for head in heads_of(entry):
        assert np.array_equal(ask(head, metric, *task), ask(head, metric, *task))


@every("head")
@METRICS
@given(
    seed=st.integers(0, 2**32 - 1),
    lead=st.sampled_from([(1,), (3,), (2, 2)]),
    n_way=st.integers(2, 4),
)
def test_leading_axes_equal_the_loop_over_episodes(
    entry: Any, metric: Any, seed: int, lead: Any, n_way: int
) -> None:
    rng = np.random.default_rng(seed)
    support = rng.normal(size=(*lead, 2 * n_way, 3)).astype(np.float32)
    query = rng.normal(size=(*lead, 5, 3)).astype(np.float32)
    labels = rng.permuted(
        np.broadcast_to(np.arange(2 * n_way) % n_way, support.shape[:-1]), axis=-1
    )
    for head in heads_of(entry):
        together = ask(head, metric, support, labels, query, n_way)
        assert together.shape == (*lead, 5, n_way)
        for e in np.ndindex(*lead):
            assert same(together[e], ask(head, metric, support[e], labels[e], query[e], n_way))


@every("head")
@METRICS
@given(tasks=st.lists(tasks(), min_size=1, max_size=3))
def test_a_condensed_support_is_no_larger_and_has_the_same_scores(
    entry: Any, metric: Any, tasks: Any
) -> None:
    for head in heads_of(entry):
        if head.condense is None:
            continue
        for support, labels, query, n_way in tasks:
            less, of = head.condense(mx.array(support), mx.array(labels), n_way)
            assert less.shape[0] == of.shape[0] <= len(labels)
            scores = np.array(head.scores(less, of, mx.array(query), metric, n_way))
            assert same(scores, ask(head, metric, support, labels, query, n_way))


@given(seed=st.integers(0, 2**32 - 1), lead=st.sampled_from([(3,), (2, 2)]))
def test_condensing_episodes_equals_the_loop(seed: int, lead: Any) -> None:
    rng, condense = np.random.default_rng(seed), nearest_prototype().condense
    assert condense is not None
    support = rng.normal(size=(*lead, 9, 4)).astype(np.float32)
    labels = rng.permuted(np.broadcast_to(np.arange(9) % 3, (*lead, 9)), axis=-1)
    found, of = (np.array(x) for x in condense(mx.array(support), mx.array(labels), 3))
    assert np.array_equal(of, np.broadcast_to(np.arange(3), (*lead, 3)))
    for e in np.ndindex(*lead):
        means = [support[e][labels[e] == c].mean(axis=0, dtype=np.float64) for c in range(3)]
        assert np.allclose(found[e], means, atol=100 * ULP)


@every("head")
@METRICS
@given(seed=st.integers(0, 2**32 - 1), n_way=st.integers(2, 6), k_shot=st.integers(1, 6))
def test_clusters_that_are_far_apart_are_told_apart(
    entry: Any, metric: Any, seed: int, n_way: int, k_shot: int
) -> None:
    # Corners of a simplex, 10·√2 apart, and points within 0.5 in every coordinate.
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_way), k_shot))
    answers = rng.integers(n_way, size=9)
    support, query = (
        10 * np.eye(n_way)[y] + rng.uniform(-0.5, 0.5, (len(y), n_way)) for y in (labels, answers)
    )
    head = make(entry)
    support, query = support.astype(np.float32), query.astype(np.float32)
    scores = ask(head, metric, support, labels, query, n_way)
    assert np.array_equal(scores.argmax(axis=-1), answers)


@every("head")
@given(seed=st.integers(0, 2**32 - 1))
def test_a_differentiable_head_has_finite_gradients_that_are_not_all_zero(
    entry: Any, seed: int
) -> None:
    head, rng = make(entry), np.random.default_rng(seed)
    if not head.differentiable:
        return
    labels = mx.array(np.arange(6) % 3)
    rows = mx.array(rng.normal(size=(10, 4)).astype(np.float32))
    weights = mx.array(rng.normal(size=(4, 3)).astype(np.float32))

    def total(rows: mx.array) -> mx.array:
        return (weights * head.scores(rows[:6], labels, rows[6:], euclidean(), 3)).sum()

    gradient = np.array(mx.grad(total)(rows))
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=1) > 0).all()
    assert np.isfinite(np.array(mx.grad(total)(mx.zeros((10, 4))))).all()


# ------------------------------------------------------------------- nearest prototype


@exact
@given(task=tasks(ties=False))
def test_nearest_prototype_scores_minus_the_distance_to_class_means(scipys: str, task: Any) -> None:
    support, labels, query, n_way = task
    means = np.array([support[labels == c].mean(axis=0, dtype=np.float64) for c in range(n_way)])
    expected = -cdist(query.astype(np.float64), means, scipys)
    found = ask(nearest_prototype(), EXACT[scipys], *task)
    assert np.allclose(found, expected, rtol=100 * ULP, atol=100 * ULP)


@exact
@given(task=tasks())
def test_one_support_each_makes_all_heads_answer_alike(scipys: str, task: Any) -> None:
    support, labels, query, n_way = task
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(n_way)])
    answers = [
        ask(make(entry), EXACT[scipys], support[first], np.arange(n_way), query, n_way)
        for entry in REGISTRY.all("head")
        if entry.provider == "builtin"
    ]
    assert all(np.array_equal(a.argmax(-1), answers[0].argmax(-1)) for a in answers)


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
    found = ask(nearest_support(NearestSupportOptions(k)), EXACT[scipys], *task)
    for scores, distances in zip(found, table, strict=True):
        assert np.argsort(-scores, kind="stable").tolist() == by_vote(distances, labels, n_way, k)
        assert len(set(scores.tolist())) == n_way  # ranks leave no tie to the reader


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
    block = ask(head, EXACT[scipys], rows[:, :8], labels, rows[:, 8:], n_way)
    for scores, row, of in zip(block, rows.astype(np.float64), labels, strict=True):
        for found, distances in zip(scores, cdist(row[8:], row[:8], scipys), strict=True):
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
    rest = ask(nearest_support(NearestSupportOptions(k)), metric, *task) * k_used - votes
    assert (rest > 0).all()
    assert (rest <= 0.5 + 100 * ULP).all()


@METRICS
@given(task=tasks(ties=False), extra=st.integers(0, 20))
def test_more_neighbours_than_support_images_means_that_all_vote(
    metric: Any, task: Any, extra: int
) -> None:
    s = len(task[1])
    all_vote = ask(nearest_support(NearestSupportOptions(s)), metric, *task)
    more = ask(nearest_support(NearestSupportOptions(s + extra)), metric, *task)
    assert np.array_equal(more, all_vote)


@pytest.mark.parametrize("neighbours", [0, -1])
def test_no_neighbour_at_all_is_refused(neighbours: int) -> None:
    with pytest.raises(ValueError, match="neighbours"):
        NearestSupportOptions(neighbours)

"""The laws of a head, with the distances euclidean, cosine and, where ties matter, manhattan."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from ..core.interfaces import Head, Metric
from ..core.options import NoOptions
from ..parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from .laws import Kind, fail, first, law, laws_of, told
from .strategies import Array, seeds, shuffled, tasks

_metrics = st.sampled_from(["euclidean", "cosine"])
# Distances between small integers are the same float32 number in any order of summation, so that
# ties are ties. The metrics that keep to them:
_exact = st.sampled_from(["manhattan", "sqeuclidean", "euclidean"])
_METRICS = {
    "euclidean": euclidean(), "cosine": cosine(),
    "manhattan": manhattan(), "sqeuclidean": sqeuclidean(),
}  # fmt: skip

Task = tuple[Array, Array, Array, int]


def check_head(factory: Callable[[Any], Head], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a head."""
    KIND.check(factory, options)


def scores(
    head: Head, metric: Metric, support: Array, labels: Array, query: Array, n_way: int
) -> Array:
    """The head's scores of arrays."""
    found = head.scores(mx.array(support), mx.array(labels), mx.array(query), metric, n_way)
    return np.array(found)


def same_scores(a: Array, b: Array) -> bool:
    """But for the rounding of a head that fits inside the call."""
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5)


def _told(task: Task) -> str:
    support, labels, query, _ = task
    return told(support=support, labels=labels, query=query)


def _balanced(
    seed: int, n_way: int, k_shot: int, q: int, lead: tuple[int, ...] = (), d: int = 3
) -> Task:
    """Random points of d numbers, k_shot for each class, in no order."""
    rng = np.random.default_rng(seed)
    labels = np.broadcast_to(np.repeat(np.arange(n_way), k_shot), (*lead, n_way * k_shot))
    points = [rng.normal(size=(*lead, n, d)).astype(np.float32) for n in (n_way * k_shot, q)]
    return points[0], rng.permuted(labels, axis=-1), points[1], n_way


@law()
def made(head: Any) -> None:
    """The factory makes a `Head` that says whether it is `differentiable`."""
    if not isinstance(head, Head):
        fail(f"the factory returned {head!r}, which is no Head")
    if not isinstance(head.differentiable, bool):
        fail(f"differentiable is {head.differentiable!r}: True or False is due")


@law()
def shape(head: Head) -> None:
    """One score per query and class: (s, d), (s,), (q, d) -> (q, n_way), float32."""
    task = _balanced(0, n_way=4, k_shot=2, q=5)
    found = scores(head, euclidean(), *task)
    if found.shape != (5, 4) or found.dtype != np.float32:
        fail(f"5 queries and 4 classes -> {found.dtype} {found.shape}, float32 (5, 4) is due")


@law(n_way=st.integers(2, 5), k_shot=st.integers(1, 3), seed=seeds)
def one_query(head: Head, n_way: int, k_shot: int, seed: int) -> None:
    """A single query is answered."""
    found = scores(head, euclidean(), *_balanced(seed, n_way, k_shot, q=1))
    if found.shape != (1, n_way) or not np.isfinite(found).all():
        fail(f"the scores are {found.tolist()}")


@law(task=tasks(), metric=_metrics)
def any_counts(head: Head, task: Task, metric: str) -> None:
    """Classes may have one support image or many, in any order; coincident images too."""
    found = scores(head, _METRICS[metric], *task)
    due = (len(task[2]), task[3])
    if found.shape != due:
        fail(f"scores of shape {found.shape}, where {due} is due, for {_told(task)}")
    at = first(~np.isfinite(found))
    if at:
        fail(f"the score of query {at[0]} for class {at[1]} is {found[at]} for {_told(task)}")


@law(seed=seeds, n_way=st.integers(2, 6), k_shot=st.integers(1, 6), metric=_metrics)
def tells_apart(head: Head, seed: int, n_way: int, k_shot: int, metric: str) -> None:
    """Of clusters that are far apart, a query's own class has the highest score."""
    # Corners of a simplex, 10·√2 apart, and points within 0.5 in every coordinate.
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(n_way), k_shot))
    answers = np.arange(2 * n_way) % n_way
    support, query = (
        (10 * np.eye(n_way)[y] + rng.uniform(-0.5, 0.5, (len(y), n_way))).astype(np.float32)
        for y in (labels, answers)
    )
    found = scores(head, _METRICS[metric], support, labels, query, n_way)
    at = first(found.argmax(axis=-1) != answers)
    if at:
        fail(
            f"a query amid class {answers[at]} has the scores {told(scores=found[at])} "
            f"for {told(n_way=n_way, k_shot=k_shot, metric=metric)}"
        )


@law(task=tasks(), metric=_exact, seed=seeds)
def support_order(head: Head, task: Task, metric: str, seed: int) -> None:
    """The order of the support does not matter, also where distances tie."""
    support, labels, query, n_way = task
    order = shuffled(len(labels), seed)
    here = scores(head, _METRICS[metric], *task)
    there = scores(head, _METRICS[metric], support[order], labels[order], query, n_way)
    if not same_scores(here, there):
        fail(
            f"{_differ(here, there)} with the support in the order {order.tolist()}, "
            f"for {_told(task)}"
        )


def _differ(here: Array, there: Array) -> str:
    if here.shape != there.shape:
        return f"scores {here.shape}, but {there.shape}"
    at = first(~np.isclose(here, there, rtol=1e-4, atol=1e-5))
    assert at is not None
    return f"a score is {here[at]}, but {there[at]}"


@law(task=tasks(ties=False), metric=_metrics, seed=seeds)
def class_names(head: Head, task: Task, metric: str, seed: int) -> None:
    """Which label a class has does not matter: renamed classes have the same scores."""
    support, labels, query, n_way = task
    new = shuffled(n_way, seed)
    here = scores(head, _METRICS[metric], *task)
    renamed = scores(head, _METRICS[metric], support, new[labels], query, n_way)[:, new]
    if not same_scores(here, renamed):
        fail(f"{_differ(here, renamed)} with classes renamed to {new.tolist()}, for {_told(task)}")


@law(task=tasks(ties=False), metric=_metrics, seed=seeds)
def query_alone(head: Head, task: Task, metric: str, seed: int) -> None:
    """A query is answered alone as among others, in any order (no transduction)."""
    support, labels, query, n_way = task
    order = shuffled(len(query), seed)
    together = scores(head, _METRICS[metric], *task)
    for rows in (*np.arange(len(query))[:, None], order):
        found = scores(head, _METRICS[metric], support, labels, query[rows], n_way)
        if not same_scores(together[rows], found):
            fail(
                f"{_differ(together[rows], found)} where the queries are {rows.tolist()} of "
                f"{_told(task)}"
            )


@law(task=tasks(), other=tasks(), metric=_metrics)
def asked_twice(head: Head, task: Task, other: Task, metric: str) -> None:
    """Asked twice, with another task between, the head says the same."""
    once = scores(head, _METRICS[metric], *task)
    scores(head, _METRICS[metric], *other)
    again = scores(head, _METRICS[metric], *task)
    if not np.array_equal(once, again):
        fail(f"scores are {told(once=once, again=again)} for {_told(task)}")


@law(
    seed=seeds,
    lead=st.sampled_from([(1,), (3,), (2, 2)]),
    n_way=st.integers(2, 4),
    d=st.sampled_from([3, 20]),
)
def episodes(head: Head, seed: int, lead: tuple[int, ...], n_way: int, d: int) -> None:
    """Leading axes are episodes: the scores equal those of the loop over them."""
    support, labels, query, _ = _balanced(seed, n_way, 2, 5, lead, d)
    for name in ("euclidean", "cosine"):
        metric = _METRICS[name]
        together = scores(head, metric, support, labels, query, n_way)
        if together.shape != (*lead, 5, n_way):
            fail(f"{lead} episodes -> {together.shape}, where {(*lead, 5, n_way)} is due")
        for e in np.ndindex(*lead):
            alone = scores(head, metric, support[e], labels[e], query[e], n_way)
            if not same_scores(together[e], alone):
                fail(f"{_differ(together[e], alone)} for episode {e} of {lead} alone")


@law()
def inputs_untouched(head: Head) -> None:
    """Support, labels and queries are not changed."""
    *arrays, n_way = _balanced(0, n_way=3, k_shot=2, q=4)
    support, labels, query = (mx.array(a) for a in arrays)
    mx.eval(head.scores(support, labels, query, euclidean(), n_way))
    pairs = zip(
        ("support", "support_labels", "query"), (support, labels, query), arrays, strict=True
    )
    for name, after, before in pairs:
        if not np.array_equal(np.array(after), before):
            fail(f"{name} is another after scores(…): write x = x - y, not x -= y")


@law(when=lambda head: head.differentiable, seed=seeds)
def trains(head: Head, seed: int) -> None:
    """Where `differentiable`, the gradient reaches every embedding, and is finite, at 0 too."""
    rng = np.random.default_rng(seed)
    labels = mx.array(np.arange(6) % 3)
    rows = mx.array(rng.normal(size=(10, 4)).astype(np.float32))
    weights = mx.array(rng.normal(size=(4, 3)).astype(np.float32))

    def total(rows: mx.array) -> mx.array:
        return (weights * head.scores(rows[:6], labels, rows[6:], euclidean(), 3)).sum()

    for where, points in (("random embeddings", rows), ("embeddings that are all 0", 0 * rows)):
        gradient = np.array(mx.grad(total)(points))
        if not np.isfinite(gradient).all():
            fail(f"the gradient is {gradient[~np.isfinite(gradient)][0]} at {where}")
        if where == "random embeddings" and not np.abs(gradient).max(axis=1).all():
            fail("the gradient of an embedding is 0: say differentiable=False")


# ---------------------------------------------------------------------- condense, where it has one


def _condenses(head: Head) -> bool:
    return head.condense is not None


@law(when=_condenses, task=tasks(), metric=_metrics)
def condensed(head: Head, task: Task, metric: str) -> None:
    """A condensed support is no larger and has the same scores."""
    assert head.condense is not None
    support, labels, query, n_way = task
    less, of = (np.array(a) for a in head.condense(mx.array(support), mx.array(labels), n_way))
    if not len(less) == len(of) <= len(labels):
        fail(f"{len(labels)} images became {len(less)} with {len(of)} labels, for {_told(task)}")
    here = scores(head, _METRICS[metric], *task)
    after = scores(head, _METRICS[metric], less, of, query, n_way)
    if not same_scores(here, after):
        fail(f"{_differ(here, after)} after condense, for {_told(task)}")


@law(when=_condenses, seed=seeds, lead=st.sampled_from([(3,), (2, 2)]))
def condensed_episodes(head: Head, seed: int, lead: tuple[int, ...]) -> None:
    """Condensing episodes together equals the loop over them."""
    assert head.condense is not None
    support, labels, _, n_way = _balanced(seed, 3, 3, 1, lead)
    together = [np.array(a) for a in head.condense(mx.array(support), mx.array(labels), n_way)]
    for e in np.ndindex(*lead):
        alone = head.condense(mx.array(support[e]), mx.array(labels[e]), n_way)
        for whole, part in zip(together, alone, strict=True):
            if not same_scores(whole[e], np.array(part)):
                fail(f"{_differ(whole[e], np.array(part))} for episode {e} of {lead} alone")


KIND = Kind("head", lambda factory, options: factory(options), laws_of(globals()))

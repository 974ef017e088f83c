"""The laws of a head, with the distances euclidean, cosine and, where ties matter, manhattan."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from ..core.interfaces import Head, Metric
from ..core.options import NoOptions
from ..parts.heads.prototypes import prototypes
from ..parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from .laws import Kind, fail, first, law, laws_of, made_by, require_made, told
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
    found = head(mx.array(support), mx.array(labels), mx.array(query), metric, n_way)
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
    """The factory makes a `Head` that says whether it is `differentiable`, and how it is asked."""
    if not isinstance(head, Head):
        fail(f"the factory returned {head!r}, which is no Head")
    if not isinstance(head.differentiable, bool):
        fail(f"differentiable is {head.differentiable!r}: True or False is due")
    if head.queries not in ("alone", "together"):
        fail(f"queries is {head.queries!r}: 'alone' or 'together' is due")
    if not isinstance(head.module, nn.Module | None):
        fail(f"module is {head.module!r}, which is no Module")
    if not isinstance(head.names, bool):
        fail(f"names is {head.names!r}: True or False is due")


def _is_learned(head: Head) -> bool:
    return head.module is not None


def _asks(queries: str) -> Callable[[Head], bool]:
    return lambda head: head.queries == queries


@law(when=_is_learned)  # before any law that calls it
def made_whole(head: Head) -> None:
    """Its parameters are there when it is made: the same before and after a call."""
    assert head.module is not None
    task = _balanced(0, n_way=2, k_shot=2, q=3)
    require_made(head.module, lambda: scores(head, euclidean(), *task))


@law()
def shape(head: Head) -> None:
    """One score per query and class: (s, d), (s,), (q, d) -> (q, n_way), float32."""
    task = _balanced(0, n_way=4, k_shot=2, q=5)
    found = scores(head, euclidean(), *task)
    if found.shape != (5, 4) or found.dtype != np.float32:
        fail(f"5 queries and 4 classes -> {found.dtype} {found.shape}, float32 (5, 4) is due")


def _measures(head: Head) -> bool:
    return head.distances is not None


@law(when=_measures, n_way=st.integers(1, 5), k_shot=st.integers(1, 3), seed=seeds)
def distances(head: Head, n_way: int, k_shot: int, seed: int) -> None:
    """Its own distances: (q, n_way), none below 0, finite also for an image of the support."""
    support, labels, query, _ = _balanced(seed, n_way, k_shot, q=4)
    asked = mx.array(np.concatenate([query, support]))
    state = head.fit(mx.array(support), mx.array(labels), euclidean(), n_way)
    assert head.distances is not None
    found = np.array(head.distances(state, asked, head.scores(state, asked, euclidean())))
    if found.shape != (len(asked), n_way) or not (np.isfinite(found) & (found >= 0)).all():
        fail(f"distances {found.tolist()} of {len(asked)} queries to {n_way} classes")


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


@law(
    when=lambda head: head.module is None,  # another has yet to learn it
    seed=seeds, n_way=st.integers(2, 6), k_shot=st.integers(1, 6), metric=_metrics,
)  # fmt: skip
def tells_apart(head: Head, seed: int, n_way: int, k_shot: int, metric: str) -> None:
    """Among clusters that lie far apart, a query's own class has the highest score."""
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
    if head.queries == "together":
        # Without ties: where classes are exactly alike it may stand on a ridge, and rounding tips
        # it to one side.
        rng = np.random.default_rng(seed)
        support, query = (rng.normal(size=(len(x), 3)).astype(np.float32) for x in (support, query))
    order = shuffled(len(labels), seed)
    here = scores(head, _METRICS[metric], support, labels, query, n_way)
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


@law(when=_asks("alone"), task=tasks(ties=False), metric=_metrics, seed=seeds)
def query_alone(head: Head, task: Task, metric: str, seed: int) -> None:
    """Where `queries` is "alone", a query is answered alone as among others, in any order."""
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


@law(when=_asks("together"), task=tasks(ties=False), metric=_metrics, seed=seeds)
def query_order(head: Head, task: Task, metric: str, seed: int) -> None:
    """Where `queries` is "together", their scores move with them when their order changes."""
    support, labels, query, n_way = task
    order = shuffled(len(query), seed)
    here = scores(head, _METRICS[metric], *task)[order]
    there = scores(head, _METRICS[metric], support, labels, query[order], n_way)
    if not same_scores(here, there):
        fail(f"{_differ(here, there)} with queries in the order {order.tolist()} of {_told(task)}")


@law(task=tasks(), other=tasks(), metric=_metrics)
def asked_twice(head: Head, task: Task, other: Task, metric: str) -> None:
    """Asked twice, with another task between, the head says the same, fitted once or anew."""
    support, labels, query = (mx.array(a) for a in task[:3])
    state = head.fit(support, labels, _METRICS[metric], task[3])
    once = np.array(head.scores(state, query, _METRICS[metric]))
    scores(head, _METRICS[metric], *other)
    again = np.array(head.scores(state, query, _METRICS[metric]))
    anew = scores(head, _METRICS[metric], *task)
    if not np.array_equal(once, again) or not np.array_equal(once, anew):
        fail(f"scores are {told(once=once, again=again, anew=anew)} for {_told(task)}")


@law(seed=seeds, lead=st.sampled_from([(), (3,), (2, 2)]))
def state(head: Head, seed: int, lead: tuple[int, ...]) -> None:
    """`fit` gives arrays, alone or in a tuple, with the leading axes of the support."""
    support, labels, _, n_way = _balanced(seed, 3, 2, 1, lead)
    found = head.fit(mx.array(support), mx.array(labels), euclidean(), n_way)
    for _, array in _leaves(found):
        if not isinstance(array, mx.array):
            fail(f"the state holds {array!r}, which is no mx.array")
        if array.shape[: len(lead)] != lead:
            fail(f"of {lead} episodes, the state has an array {array.shape}")


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
    """Support, labels and queries are not changed, nor is the state by being asked."""
    *arrays, n_way = _balanced(0, n_way=3, k_shot=2, q=4)
    support, labels, query = (mx.array(a) for a in arrays)
    fitted = head.fit(support, labels, euclidean(), n_way)
    before = [np.array(array) for _, array in _leaves(fitted)]
    mx.eval(head.scores(fitted, query, euclidean()))
    if not all(np.array_equal(a, b) for a, (_, b) in zip(before, _leaves(fitted), strict=True)):
        fail("the state is another after scores(…): write x = x - y, not x -= y")
    pairs = zip(
        ("support", "support_labels", "query"), (support, labels, query), arrays, strict=True
    )
    for name, after, given in pairs:
        if not np.array_equal(np.array(after), given):
            fail(f"{name} is another after fit(…) and scores(…): write x = x - y, not x -= y")


@law(when=lambda head: head.differentiable, seed=seeds)
def trains(head: Head, seed: int) -> None:
    """Where `differentiable`, the gradient reaches every embedding, and is finite, at 0 too."""
    rng = np.random.default_rng(seed)
    labels = mx.array(np.arange(6) % 3)
    rows = mx.array(rng.normal(size=(12, 4)).astype(np.float32))
    weights = mx.array(rng.normal(size=(6, 3)).astype(np.float32))

    def total(rows: mx.array) -> mx.array:
        return (weights * head(rows[:6], labels, rows[6:], euclidean(), 3)).sum()

    for where, points in (("random embeddings", rows), ("embeddings that are all 0", 0 * rows)):
        gradient = np.array(mx.grad(total)(points))
        if not np.isfinite(gradient).all():
            fail(f"the gradient is {gradient[~np.isfinite(gradient)][0]} at {where}")
        if where == "random embeddings" and not np.abs(gradient).max(axis=1).all():
            fail("the gradient of an embedding is 0: say differentiable=False")


@law(when=_is_learned, seed=seeds)
def learned_parts(head: Head, seed: int) -> None:
    """The gradient for every learned part of `module` is finite, and not 0 for all of them."""
    assert head.module is not None
    support, labels, query, n_way = _balanced(seed, 3, 2, 6)
    weights = mx.array(np.random.default_rng(seed).normal(size=(6, n_way)).astype(np.float32))

    def total() -> mx.array:
        found = head(mx.array(support), mx.array(labels), mx.array(query), euclidean(), n_way)
        return (weights * found).sum()

    _, found = nn.value_and_grad(head.module, total)()
    leaves: Any = tree_flatten(found)
    for name, gradient in leaves:
        if not np.isfinite(np.array(gradient)).all():
            fail(f"the gradient by {name} is not finite")
    if not any(np.array(gradient).any() for _, gradient in leaves):
        fail("no learned part of `module` has a gradient: it is not what makes the scores")


def _leaves(state: Any) -> Any:
    return tree_flatten(state)


def _subject(factory: Callable[..., Head], options: Any) -> Head:
    """What the factory makes, in eval mode; one for each length of embeddings, where it is given.

    Learned parts are those of 3 numbers. Of a head that reads names, the name of a class is the
    mean of its support, and where classes have one image each, these are the names alone.
    """

    @cache
    def of(d: int) -> Head:
        head = made_by(factory, options, d)
        if isinstance(getattr(head, "module", None), nn.Module):
            head.module.eval()
        return _with_names(head) if isinstance(head, Head) and head.names is True else head

    head = of(3)
    if not isinstance(head, Head) or "embedding_dim" not in inspect.signature(factory).parameters:
        return head
    return evolve(
        head,
        fit=lambda support, *others: of(support.shape[-1]).fit(support, *others),
        scores=lambda state, query, metric: of(query.shape[-1]).scores(state, query, metric),
    )


def _with_names(head: Head) -> Head:
    def fit(support: mx.array, labels: mx.array, metric: Metric, n_way: int) -> Any:
        names = prototypes(support, labels, n_way)
        first = mx.broadcast_to(mx.arange(n_way), names.shape[:-1])
        if support.shape[-2] == n_way:
            return head.fit(names, first, metric, n_way)
        rows = mx.concatenate([names, support], axis=-2)
        return head.fit(rows, mx.concatenate([first, labels], axis=-1), metric, n_way)

    return evolve(head, fit=fit)


KIND = Kind("head", _subject, laws_of(globals()))

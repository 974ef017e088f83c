"""The laws of a metric."""

import itertools
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any, get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from ..compute.modules import parameter_count
from ..core import interfaces
from ..core.interfaces import Metric
from ..core.options import NoOptions
from .laws import ULP, Kind, evaluated, fail, first, law, laws_of, made_by, require_made, told
from .strategies import Array, lattices, points

_DECLARED = get_args(interfaces.Law)

# From where squares vanish in float32 to where they are large.
_powers = st.sampled_from([0, -45, -40, -30, -20, -15, -10, -5, 5, 8])

# Factors of x and of y.
_scales = st.sampled_from(
    [(2.0, 1.0), (1.0, 2.0), (3.0, 3.0), (1 / 64, 64.0), (64.0, 1 / 64), (0.7, 1.3), (9.1, 0.03)]
)


def check_metric(factory: Callable[[Any], Metric], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a metric."""
    KIND.check(factory, options)


def distance(metric: Metric, x: Array, y: Array) -> Array:
    """The metric of float32 arrays."""
    return np.array(metric.fn(mx.array(x, mx.float32), mx.array(y, mx.float32)))


def slack(metric: Metric, *vectors: Array) -> float:
    """Rounding of a few sums of d terms, relative to the largest distance among them."""
    d = vectors[0].shape[-1]
    table = [distance(metric, x, y) for x, y in itertools.combinations(vectors, 2)]
    return 4 * (d + 4) * ULP * max(1.0, *(float(np.max(t, initial=0)) for t in table))


def gradients(of: Callable[[mx.array, mx.array], mx.array], x: Array, y: Array) -> list[Array]:
    """The gradients of the sum of `of(x, y)` by x and by y."""
    both = mx.grad(lambda x, y: of(x, y).sum(), argnums=(0, 1))
    return [np.array(g) for g in both(mx.array(x, mx.float32), mx.array(y, mx.float32))]


def _declares(name: str) -> Callable[[Metric], bool]:
    return lambda metric: name in metric.laws


def _module(metric: Metric, d: int = 3) -> nn.Module | None:
    """What it learns, for embeddings of d numbers."""
    fn = metric.fn.made_for(d).fn if isinstance(metric.fn, _ByLength) else metric.fn
    return fn if isinstance(fn, nn.Module) else None


def _is_learned(metric: Metric) -> bool:
    return _module(metric) is not None


def _is_trained(metric: Metric) -> bool:
    module = _module(metric)
    return module is not None and parameter_count(module) > 0


def _has_matrix(metric: Metric) -> bool:
    return metric.matrix is not None


@law()
def made(metric: Any) -> None:
    """The factory makes a `Metric` whose `laws` are known ones and whose `upper(d)` is above 0."""
    if not isinstance(metric, Metric):
        fail(f"the factory returned {metric!r}, which is no Metric")
    unknown = sorted(set(metric.laws) - set(_DECLARED))
    if unknown:
        fail(f"declares '{unknown[0]}', which is no law: the laws are {', '.join(_DECLARED)}")
    for d in (1, 2, 128):
        if not metric.upper(d) > 0:
            fail(f"upper({d}) = {metric.upper(d)!r}, where a number above 0 is due (inf: none)")


@law(when=_is_learned)  # before any law that calls it
def made_whole(metric: Metric) -> None:
    """Its parameters are there when it is made: the same before and after a call."""
    module = _module(metric)
    assert module is not None
    require_made(module, lambda: module(mx.ones((2, 3)), mx.zeros((2, 3))))


@law()
def shape(metric: Metric) -> None:
    """The last axis goes, all others broadcast: (…, d), (…, d) -> (…)."""
    for left, right in (((), ()), ((3,), (3,)), ((3, 1), (4,)), ((2, 3, 1), (1, 4)), ((), (4,))):
        x, y = np.ones((*left, 5)), np.zeros((*right, 5))
        found, due = distance(metric, x, y).shape, np.broadcast_shapes(left, right)
        if found != due:
            fail(f"{x.shape}, {y.shape} -> {found}, where {due} is due")


@law()
def float32(metric: Metric) -> None:
    """float32 in, float32 out."""
    found = metric.fn(mx.ones((2, 3)), mx.zeros((2, 3)))
    if found.dtype != mx.float32:
        fail(f"{found.dtype} came out")


@law(xy=points(8), power=_powers, other=_powers)
def finite(metric: Metric, xy: Array, power: int, other: int) -> None:
    """A distance is finite, however small or large the vectors."""
    x, y = _scaled(xy, power, other)
    found = distance(metric, x, y)
    at = first(~np.isfinite(found))
    if at:
        fail(f"d(x, y) = {found[at]} for {told(x=x[at], y=y[at])}")


@law(xy=points(8), power=_powers)
def never_negative(metric: Metric, xy: Array, power: int) -> None:
    """A distance is never below 0."""
    x, y = _scaled(xy, power, power)
    found = distance(metric, x, y)
    at = first(found < 0)
    if at:
        fail(f"d(x, y) = {found[at]} for {told(x=x[at], y=y[at])}")


def _scaled(xy: Array, power: int, other: int) -> tuple[Array, Array]:
    x, y = xy[:4].astype(np.float64) * 10.0**power, xy[4:].astype(np.float64) * 10.0**other
    return x.astype(np.float32), y.astype(np.float32)


@law()
def nearer_to_itself(metric: Metric) -> None:
    """Smaller is closer: on average a point is nearer to itself than to another (no similarity)."""
    x, y = np.random.default_rng(0).normal(size=(2, 400, 8))
    own, others = distance(metric, x, x).mean(), distance(metric, x, y).mean()
    if not own < others:
        fail(f"of random points, d(x, x) is {own:.4g} on average and d(x, y) {others:.4g}")


@law(when=_declares("identity"), x=points(6))
def identity(metric: Metric, x: Array) -> None:
    """d(x, x) = 0 exactly, where declared."""
    found = distance(metric, x, x)
    at = first(found != 0)
    if at:
        fail(f"d(x, x) = {found[at]} for {told(x=x[at])}")


@law(when=_declares("symmetry"), xy=points(8))
def symmetry(metric: Metric, xy: Array) -> None:
    """d(x, y) = d(y, x), where declared."""
    x, y = xy[:4], xy[4:]
    there, back = distance(metric, x, y), distance(metric, y, x)
    at = first(np.abs(there - back) > slack(metric, x, y))
    if at:
        fail(
            f"not symmetric: d(x, y) = {there[at]} but d(y, x) = {back[at]} "
            f"for {told(x=x[at], y=y[at])}"
        )


@law(when=_declares("triangle"))
def triangle(metric: Metric) -> None:
    """d(x, z) <= d(x, y) + d(y, z), where declared: of all triples of small lattices."""
    for lattice in lattices():
        x, y = lattice[:, None], lattice[None]
        table = distance(metric, x, y)
        at = first(table[:, None] > table[:, :, None] + table[None] + slack(metric, x, y))
        if at:
            i, j, k = at
            fail(
                f"the way by y is shorter: d(x, z) = {table[i, k]} but d(x, y) + d(y, z) = "
                f"{table[i, j]} + {table[j, k]} "
                f"for {told(x=lattice[i], y=lattice[j], z=lattice[k])}"
            )


@law(when=_declares("scale_free"), xy=points(8), scales=_scales)
def scale_free(metric: Metric, xy: Array, scales: tuple[float, float]) -> None:
    """d(a·x, b·y) = d(x, y) for a, b > 0, where declared."""
    (x, y), (a, b) = (xy[:4], xy[4:]), scales
    here, scaled = distance(metric, x, y), distance(metric, np.float32(a) * x, np.float32(b) * y)
    at = first(np.abs(here - scaled) > slack(metric, x, y))
    if at:
        fail(
            f"d(x, y) = {here[at]} but d(a·x, b·y) = {scaled[at]} "
            f"for {told(x=x[at], y=y[at], a=a, b=b)}"
        )


@law(when=_declares("cosine"), xy=points(8))
def cosine(metric: Metric, xy: Array) -> None:
    """d(x, y) = 1 − cos(x, y) of vectors that are not 0, where declared."""
    x, y = xy[:4].astype(np.float64), xy[4:].astype(np.float64)
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    due = 1 - (x * y).sum(axis=-1) / np.where(lengths > 0, lengths, 1)
    found = distance(metric, xy[:4], xy[4:])
    at = first((np.abs(found - due) > slack(metric, xy[:4], xy[4:])) & (lengths > 0))
    if at:
        fail(
            f"d(x, y) = {found[at]}, and 1 - cos is {due[at]}, "
            f"for {told(x=xy[:4][at], y=xy[4:][at])}"
        )


@law(xy=points(8))
def upper_bound(metric: Metric, xy: Array) -> None:
    """No two vectors of length 1 are farther apart than `upper(d)`."""
    d = xy.shape[1]
    lengths = np.linalg.norm(xy.astype(np.float64), axis=1, keepdims=True)
    units = np.where(lengths > 0, xy / np.where(lengths > 0, lengths, 1), np.eye(1, d)[0])
    ends = np.concatenate([units, [np.full(d, d**-0.5)]])  # a corner of the cube, too
    x = np.concatenate([units[:4], ends]).astype(np.float32)
    y = np.concatenate([units[4:], -ends]).astype(np.float32)
    found, bound = distance(metric, x, y), metric.upper(d)
    at = first(found > bound * (1 + 8 * (d + 4) * ULP))
    if at:
        fail(f"upper({d}) = {bound} but d(x, y) = {found[at]} for {told(x=x[at], y=y[at])}")


@law(xy=points(8), power=_powers)
def finite_gradient(metric: Metric, xy: Array, power: int) -> None:
    """The gradient is finite everywhere: where x = y, at 0, and for tiny vectors too."""
    x, y = _scaled(xy, power, power)
    zero, beside = np.zeros_like(x), np.nextafter(x, np.float32(np.inf))
    for a, b in ((x, y), (x, x), (x, beside), (x, zero), (zero, zero)):
        _require_finite(gradients(metric.fn, a, b), a, b)


def _require_finite(found: list[Array], x: Array, y: Array) -> None:
    for name, gradient, other in zip("xy", found, (x, y), strict=True):
        assert gradient.shape == other.shape
        at = first(~np.isfinite(gradient))
        if at:
            row = at[0]
            where = "coincident points, " if np.array_equal(x[row], y[row]) else ""
            fail(f"the gradient by {name} is {gradient[at]} at {where}{told(x=x[row], y=y[row])}")


@law(x=points(3, 4), y=points(5, 4))
def pair_alone(metric: Metric, x: Array, y: Array) -> None:
    """A pair's distance is the same alone and broadcast among others."""
    table = distance(metric, x[:, None], y[None])
    alone = np.array([[distance(metric, a, b) for b in y] for a in x])
    at = first(np.abs(table - alone) > slack(metric, x[:1], y))
    if at:
        fail(
            f"d(x, y) = {alone[at]} alone but {table[at]} in a table of {table.shape}, "
            f"for {told(x=x[at[0]], y=y[at[1]])}"
        )


@law(xy=points(8))
def asked_twice(metric: Metric, xy: Array) -> None:
    """Asked twice, the metric says the same."""
    x, y = xy[:4], xy[4:]
    once, again = distance(metric, x, y), distance(metric, x, y)
    at = first(once != again)
    if at:
        fail(f"d(x, y) = {once[at]}, then {again[at]}, for {told(x=x[at], y=y[at])}")


@law()
def inputs_untouched(metric: Metric) -> None:
    """The vectors given are not changed."""
    x, y = mx.ones((2, 3)), mx.full((2, 3), 2.0)
    mx.eval(metric.fn(x, y))
    if not (mx.array_equal(x, mx.ones((2, 3))) and mx.array_equal(y, mx.full((2, 3), 2.0))):
        fail("x and y are others after fn(x, y): write x = x - y, not x -= y")


@law(when=_is_trained, xy=points(8))
def learned_parts(metric: Metric, xy: Array) -> None:
    """The gradient for every learned part of `fn` is finite."""
    module, (x, y) = _module(metric, xy.shape[-1]), (xy[:4], xy[4:])
    assert module is not None
    _, found = nn.value_and_grad(module, lambda x, y: module(x, y).sum())(mx.array(x), mx.array(y))
    leaves: Any = tree_flatten(found)
    for name, gradient in leaves:
        if not np.isfinite(np.array(gradient)).all():
            fail(f"the gradient by {name} is not finite for {told(x=x, y=y)}")


# ------------------------------------------------------------------------ matrix, where it has one


@law(when=_has_matrix)
def matrix_shape(metric: Metric) -> None:
    """`matrix`: (…, q, d), (…, p, d) -> (…, q, p), leading axes broadcast, equal to the loop."""
    assert metric.matrix is not None
    rng = np.random.default_rng(0)
    for left, right in (((), ()), ((2,), (2,)), ((2, 1), (3,)), ((), (2,)), ((1,), ())):
        query = rng.normal(size=(*left, 3, 4)).astype(np.float32)
        support = rng.normal(size=(*right, 5, 4)).astype(np.float32)
        axes = np.broadcast_shapes(left, right)
        found, due = np.array(metric.matrix(mx.array(query), mx.array(support))), (*axes, 3, 5)
        if found.shape != due:
            fail(f"{query.shape}, {support.shape} -> {found.shape}, where {due} is due")
        queries, supports = (np.broadcast_to(v, (*axes, *v.shape[-2:])) for v in (query, support))
        for place in np.ndindex(*axes):
            q, p = queries[place], supports[place]
            alone = np.array(metric.matrix(mx.array(q), mx.array(p)))
            if not np.allclose(found[place], alone, rtol=100 * ULP, atol=_cancels(metric, q, p)):
                fail(f"episode {place} of {axes} has other distances alone than among all")


@law(when=_has_matrix, both=st.integers(1, 12).flatmap(lambda d: points(9, d)))
def matrix_agrees(metric: Metric, both: Array) -> None:
    """`matrix` gives the distances of `fn`, less exact near 0, and none below 0."""
    assert metric.matrix is not None
    both = both * np.float32(0.7)  # so that products round, as they do of most numbers
    query, support = both[:4], both[4:]
    found = np.array(metric.matrix(mx.array(query), mx.array(support)))
    direct = distance(metric, query[:, None], support[None])
    tolerance = _cancels(metric, query, support) + (both.shape[1] + 8) * ULP * np.abs(direct)
    at = first(~(np.abs(found - direct) <= tolerance) | (found < 0))
    if at:
        fail(
            f"matrix gives {found[at]} where fn gives {direct[at]}, "
            f"for {told(x=query[at[0]], y=support[at[1]])}"
        )


def _cancels(metric: Metric, query: Array, support: Array) -> float:
    """How far products may be off: |q|² + |p|² - 2qp rounds by its terms, not by their difference.

    A root turns an error e near 0 into √e; relative to the distances of random vectors as long.
    """
    d = query.shape[-1]
    length = max(1.0, float(np.linalg.norm(np.concatenate([query, support]), axis=-1).max()))
    x, y = np.random.default_rng(0).normal(size=(2, 50, d))
    x, y = (length * v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y))
    reach = max(distance(metric, x, y).max(), distance(metric, x, -x).max())
    return float(reach) * (4 * (d + 8) * ULP) ** 0.5


@law(when=_has_matrix, x=points(4, 3), power=_powers)
def matrix_gradient(metric: Metric, x: Array, power: int) -> None:
    """The gradient of `matrix` is finite, also where points coincide or almost do."""
    assert metric.matrix is not None
    x = _scaled(np.concatenate([x, x]), power, power)[0]
    for y in (x, np.nextafter(x, np.float32(np.inf))):
        for gradient in gradients(metric.matrix, x, y):
            if not np.isfinite(gradient).all():
                fail(f"a gradient is {gradient[~np.isfinite(gradient)][0]} for {told(x=x, y=y)}")


@frozen
class _ByLength:
    """The distance of a metric that is made for one length of embeddings, whatever their length."""

    made_for: Callable[[int], Metric]

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return self.made_for(max(x.shape[-1], y.shape[-1])).fn(x, y)


def _subject(factory: Callable[..., Metric], options: Any) -> Metric:
    """What the factory makes, in eval mode; one for each length, where it is given lengths."""

    @cache
    def made_for(d: int) -> Metric:
        return evaluated(made_by(factory, options, d))

    metric = made_for(3)
    if not isinstance(metric, Metric) or "embedding_dim" not in signature(factory).parameters:
        return metric

    def matrix(query: mx.array, points: mx.array) -> mx.array:
        by_products = made_for(query.shape[-1]).matrix
        assert by_products is not None
        return by_products(query, points)

    return evolve(
        metric,
        fn=_ByLength(made_for),
        upper=lambda d: made_for(d).upper(d),
        matrix=metric.matrix and matrix,
    )


KIND = Kind("metric", _subject, laws_of(globals()))

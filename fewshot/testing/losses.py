"""The laws of a loss."""

from collections.abc import Callable
from typing import Any, get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from ..core.draws import Layout
from ..core.interfaces import Loss
from ..core.options import NoOptions
from .laws import ULP, Kind, evaluated, fail, first, law, laws_of, require_made, told
from .strategies import Array, compared_pairs, distances, scored_queries, seeds, shuffled

_LAYOUTS = get_args(Layout)
_INPUTS = {
    "pairs": ("distances", "same"),
    "triplets": ("to_positive", "to_negative"),
    "episode": ("scores", "labels"),
}


def check_loss(factory: Callable[[Any], Loss], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a loss."""
    KIND.check(factory, options)


def values(loss: Loss, *inputs: Array) -> Array:
    """The loss of arrays."""
    return np.array(loss.fn(*map(mx.array, inputs)))


def _inputs(loss: Loss) -> Any:
    """A strategy for both inputs of a loss of this layout."""
    if loss.layout == "triplets":
        return distances(2).map(tuple)
    return {"pairs": compared_pairs(), "episode": scored_queries()}[loss.layout]


def _gradients(loss: Loss, inputs: tuple[Array, Array]) -> list[Array]:
    one, two = map(mx.array, inputs)
    if loss.layout == "triplets":
        found = mx.grad(lambda a, b: loss.fn(a, b).mean(), argnums=(0, 1))(one, two)
        return [np.array(g) for g in found]
    return [np.array(mx.grad(lambda a: loss.fn(a, two).mean())(one))]


def _told(loss: Loss, inputs: tuple[Array, Array]) -> str:
    return told(**dict(zip(_INPUTS[loss.layout], inputs, strict=True)))


def _compared(inputs: tuple[Array, Array]) -> float:
    """Rounding of a few operations on numbers as large as these, squared."""
    return 20 * ULP * max(1.0, float(np.abs(inputs[0]).max()) ** 2)


@law()
def made(loss: Any) -> None:
    """The factory makes a `Loss` of a known layout; a margin is a distance above 0."""
    if not isinstance(loss, Loss):
        fail(f"the factory returned {loss!r}, which is no Loss")
    if loss.layout not in _LAYOUTS:
        fail(f"layout is '{loss.layout}': it is one of {', '.join(_LAYOUTS)}")
    if loss.margin is not None and not 0 < loss.margin < np.inf:
        fail(f"margin = {loss.margin}: a finite distance above 0 is due, or None")


def _is_learned(loss: Loss) -> bool:
    return isinstance(loss.fn, nn.Module)


@law(when=_is_learned)  # before any law that calls it
def made_whole(loss: Loss) -> None:
    """Its parameters are there when it is made: the same before and after a call."""
    assert isinstance(loss.fn, nn.Module)
    require_made(loss.fn, lambda: loss.fn(*_one(loss)))


def _one(loss: Loss) -> tuple[mx.array, mx.array]:
    """One pair, triplet or query."""
    second = {"pairs": mx.array([True]), "triplets": mx.zeros(1), "episode": mx.array([0])}
    return mx.zeros((1, 2)) if loss.layout == "episode" else mx.zeros(1), second[loss.layout]


@law(inputs=_inputs)
def one_value_each(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """One value for every pair, triplet or query: training averages them, the loss does not."""
    found, due = values(loss, *inputs).shape, inputs[1].shape
    if found != due:
        fail(f"{inputs[0].shape}, {inputs[1].shape} -> {found}, where {due} is due")


@law()
def float32(loss: Loss) -> None:
    """float32 in, float32 out."""
    found = loss.fn(*_one(loss))
    if found.dtype != mx.float32:
        fail(f"{found.dtype} came out")


@law(inputs=_inputs)
def finite(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """Every value is finite: at distance 0, of one pair, of pairs of one kind."""
    found = values(loss, *inputs)
    at = first(~np.isfinite(found))
    if at:
        fail(f"the value at {list(at)} is {found[at]} for {_told(loss, inputs)}")


@law(inputs=_inputs)
def finite_gradient(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """The gradient of the mean is finite: at distance 0, at the margin, where distances tie."""
    for gradient in _gradients(loss, inputs):
        if not np.isfinite(gradient).all():
            fail(f"a gradient is {gradient[~np.isfinite(gradient)][0]} for {_told(loss, inputs)}")


@law(inputs=_inputs, step=st.floats(0.5, 4, width=32))
def direction(loss: Loss, inputs: tuple[Array, Array], step: float) -> None:
    """What is alike may be no farther for less, what is not no nearer; right answers cost less."""
    one, two = inputs
    here, more = values(loss, one, two), np.float32(step)
    if loss.layout == "pairs":
        moved = values(loss, np.where(two, one + more, one), two)
        _no_less(here, moved, f"same pairs {step} farther apart", loss, inputs)
        moved = values(loss, np.where(two, one, one + more), two)
        _no_less(moved, here, f"different pairs {step} nearer than {step} farther", loss, inputs)
    elif loss.layout == "triplets":
        moved = values(loss, one + more, two)
        _no_less(here, moved, f"the positive {step} farther", loss, inputs)
        moved = values(loss, one, two + more)
        _no_less(moved, here, f"the negative {step} nearer than {step} farther", loss, inputs)
    else:
        others = one.copy()
        np.put_along_axis(others, two[..., None], -np.inf, axis=-1)
        best = others.max(axis=-1)[..., None]
        ahead, behind = one.copy(), one.copy()
        np.put_along_axis(ahead, two[..., None], best + more, axis=-1)
        np.put_along_axis(behind, two[..., None], best - more, axis=-1)
        less, great = values(loss, ahead, two), values(loss, behind, two)
        _no_less(less, great, f"the right score {step} behind the best, not ahead", loss, inputs)


def _no_less(low: Array, high: Array, what: str, loss: Loss, inputs: tuple[Array, Array]) -> None:
    at = first(high < low - _compared(inputs))
    if at:
        fail(f"with {what} the loss is {high[at]}, not {low[at]} or more: {_told(loss, inputs)}")


@law()
def teaches(loss: Loss) -> None:
    """Somewhere it pulls what is alike together, and somewhere pushes what is not apart."""
    steps = np.linspace(0, 4, 33, dtype=np.float32)
    if loss.layout == "pairs":
        pull = _gradients(loss, (steps, np.ones(33, bool)))[0]
        push = _gradients(loss, (steps, np.zeros(33, bool)))[0]
    elif loss.layout == "triplets":
        near, far = (v.ravel() for v in np.meshgrid(steps, steps))
        pull, push = _gradients(loss, (near, far))
    else:
        scores = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        gradient = _gradients(loss, (scores, np.arange(40) % 4))[0]
        push = np.take_along_axis(gradient, (np.arange(40) % 4)[:, None], axis=-1)
        pull = np.take_along_axis(gradient, ((np.arange(40) + 1) % 4)[:, None], axis=-1)
    if not pull.max() > 0:
        fail("nothing pulls: no same pair, positive or wrong score has a gradient above 0")
    if not push.min() < 0:
        fail("nothing pushes: no different pair, negative or right score has a gradient below 0")


def _has_margin(loss: Loss) -> bool:
    return loss.margin is not None and loss.layout != "episode"


@law(when=_has_margin, near=st.sampled_from([0.0, 0.5, 2.0]))
def margin(loss: Loss, near: float) -> None:
    """Different pairs count up to `margin` and no farther; negatives so far behind positives."""
    length = loss.margin or 0.0

    def at(times: float) -> float:
        far = np.array([times * length], np.float32)
        if loss.layout == "pairs":
            return float(values(loss, far, np.array([False]))[0])
        before = np.array([near], np.float32)
        return float(values(loss, before, before + far)[0])

    inside, edge, beyond = at(0.9), at(1.01), at(3)
    if abs(edge - beyond) > 1e-6 * max(1.0, abs(edge)):
        fail(f"margin = {loss.margin}, yet the loss is {edge} just beyond it and {beyond} far off")
    if not inside > edge:
        fail(f"margin = {loss.margin}, yet the loss is {inside} at 0.9 of it and {edge} beyond")


@law(inputs=_inputs, seed=seeds)
def order(loss: Loss, inputs: tuple[Array, Array], seed: int) -> None:
    """Pairs, triplets or queries in another order have the same values."""
    one, two = inputs
    order = shuffled(two.shape[-1], seed)
    moved = values(loss, np.take(one, order, axis=two.ndim - 1), two[..., order])
    here = values(loss, one, two)[..., order]
    at = first(np.abs(moved - here) > _compared(inputs))
    if at:
        fail(
            f"a value is {here[at]}, and {moved[at]} in the order {order.tolist()}: "
            f"{_told(loss, inputs)}"
        )


@law(when=lambda loss: loss.layout == "episode", inputs=_inputs, seed=seeds)
def class_names(loss: Loss, inputs: tuple[Array, Array], seed: int) -> None:
    """Which label a class has does not matter: renamed classes have the same values."""
    scores, labels = inputs
    new = shuffled(scores.shape[-1], seed)
    here, renamed = values(loss, *inputs), values(loss, scores[..., np.argsort(new)], new[labels])
    at = first(np.abs(renamed - here) > _compared(inputs))
    if at:
        fail(
            f"a value is {here[at]}, and {renamed[at]} with classes renamed to {new.tolist()}: "
            f"{_told(loss, inputs)}"
        )


@law(inputs=_inputs)
def asked_twice(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """Asked twice, the loss says the same."""
    once, again = values(loss, *inputs), values(loss, *inputs)
    at = first(once != again)
    if at:
        fail(f"a value is {once[at]}, then {again[at]}, for {_told(loss, inputs)}")


@law(inputs=_inputs)
def inputs_untouched(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """The distances or scores given are not changed."""
    given = [mx.array(v) for v in inputs]
    mx.eval(loss.fn(*given))
    if not all(np.array_equal(np.array(g), v) for g, v in zip(given, inputs, strict=True)):
        fail(f"they are others afterwards (write d = d - m, not d -= m): {_told(loss, inputs)}")


@law(when=_is_learned, inputs=_inputs)
def learned_parts(loss: Loss, inputs: tuple[Array, Array]) -> None:
    """The gradient by every learned part of `fn` is finite."""
    module = loss.fn
    assert isinstance(module, nn.Module)
    by_parts = nn.value_and_grad(module, lambda a, b: module(a, b).mean())
    leaves: Any = tree_flatten(by_parts(*map(mx.array, inputs))[1])
    for name, gradient in leaves:
        if not np.isfinite(np.array(gradient)).all():
            fail(f"the gradient by {name} is not finite for {_told(loss, inputs)}")


KIND = Kind("loss", lambda factory, options: evaluated(factory(options)), laws_of(globals()))

"""The laws of a loss."""

from collections.abc import Callable
from typing import Any, get_args

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from ..compute.compiling import compiling
from ..compute.modules import parameter_count
from ..core.draws import Layout
from ..core.interfaces import Law, Loss, Metric
from ..core.options import NoOptions
from ..engine.objective import LAYOUTS
from ..parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from .batches import against_others
from .laws import ULP, Kind, evaluated, fail, first, law, laws_of, made_by, require_made, told
from .strategies import (
    Array,
    compared_batches,
    compared_pairs,
    distances,
    points,
    scored_queries,
    seeds,
    shuffled,
)

_LAYOUTS = get_args(Layout)
_INPUTS = {
    "pairs": ("distances", "same"),
    "triplets": ("to_positive", "to_negative"),
    "episode": ("scores", "labels"),
    "batch": ("distances", "labels", "others"),
}
Inputs = tuple[Array, ...]


def check_loss(factory: Callable[[Any], Loss], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a loss."""
    KIND.check(factory, options)


def values(loss: Loss, *inputs: Array) -> Array:
    """The loss of arrays."""
    return np.array(loss.fn(*map(mx.array, inputs)))


def _inputs(loss: Loss) -> Any:
    """A strategy for the inputs of a loss of this layout."""
    found: Any = {
        "pairs": compared_pairs(),
        "triplets": distances(2).map(tuple),
        "episode": scored_queries(),
        "batch": compared_batches().map(lambda batch: against_others(*batch)),
    }[loss.layout]
    return found.map(lambda inputs: (_in_reach(loss, inputs[0]), *inputs[1:]))


def _in_reach(loss: Loss, found: Array) -> Array:
    """Distances, or scores, that the metric can give: under "cosine" none is beyond 2."""
    return np.clip(found, -2, 2) if "cosine" in loss.requires else found


def _gradients(loss: Loss, inputs: Inputs) -> list[Array]:
    arrays = [mx.array(v) for v in inputs]
    by = (0, 1) if loss.layout == "triplets" else 0
    found = mx.grad(lambda *given: loss.fn(*given).mean(), argnums=by)(*arrays)
    return [np.array(g) for g in (found if by else [found])]


def _told(loss: Loss, inputs: Inputs) -> str:
    return told(**dict(zip(_INPUTS[loss.layout], inputs, strict=True)))


def _compared(inputs: Inputs, *found: Array) -> float:
    """Rounding of a few operations on numbers as large as these, and the inputs' squares."""
    largest = max([1.0, *(float(np.abs(v).max(initial=0)) for v in found)])
    return 20 * ULP * max(largest, float(np.abs(inputs[0]).max(initial=0)) ** 2)


def _is_batch(loss: Loss) -> bool:
    return loss.layout == "batch"


@law()
def made(loss: Any) -> None:
    """The factory makes a `Loss` of a known layout; its draws, margin and `requires` are valid."""
    if not isinstance(loss, Loss):
        fail(f"the factory returned {loss!r}, which is no Loss")
    if loss.layout not in _LAYOUTS:
        fail(f"layout is '{loss.layout}': it is one of {', '.join(_LAYOUTS)}")
    if loss.margin is not None and not 0 < loss.margin < np.inf:
        fail(f"margin = {loss.margin}: a finite distance above 0 is due, or None")
    serving = LAYOUTS[loss.layout].fed_by
    if loss.draws is not None and loss.draws not in serving:
        fail(f"draws is '{loss.draws}': '{loss.layout}' is served by {' or '.join(serving)}")
    if loss.soft and loss.layout != "episode":
        fail(f"soft, of '{loss.layout}': targets are for a loss of \"episode\"")
    if loss.memory < 0 or (loss.memory and loss.layout == "episode"):
        fail(f"memory = {loss.memory} of '{loss.layout}': >= 0 is due, 0 for a loss of scores")
    unknown = sorted(loss.requires - set(get_args(Law)))
    if unknown:
        fail(f"requires '{unknown[0]}', no law of a metric: these are {', '.join(get_args(Law))}")


def _is_learned(loss: Loss) -> bool:
    return isinstance(loss.fn, nn.Module)


def _is_trained(loss: Loss) -> bool:
    return isinstance(loss.fn, nn.Module) and parameter_count(loss.fn) > 0


@law(when=_is_learned)  # before any law that calls it
def made_whole(loss: Loss) -> None:
    """Its parameters are there when it is made: the same before and after a call."""
    assert isinstance(loss.fn, nn.Module)
    require_made(loss.fn, lambda: loss.fn(*_one(loss)))


def _one(loss: Loss) -> tuple[mx.array, ...]:
    """One pair, triplet or query, or a batch of two images of a class."""
    return {
        "pairs": (mx.zeros(1), mx.array([True])),
        "triplets": (mx.zeros(1), mx.zeros(1)),
        "episode": (mx.zeros((1, 2)), mx.array([0])),
        "batch": (mx.zeros((2, 1)), mx.zeros(2, mx.int32), mx.zeros((2, 1), mx.int32)),
    }[loss.layout]


@law(inputs=_inputs)
def traced(loss: Loss, inputs: Inputs) -> None:
    """It can be compiled: no `if`, `.item()` or NumPy on a number; its values keep one shape."""
    try:
        with compiling():
            found = mx.compile(lambda *given: loss.fn(*given))(*map(mx.array, inputs)).shape
    except ValueError as error:
        fail(f"mx.compile(fn): {error}")
    if 0 in found:
        fail(f"{' and '.join(str(v.shape) for v in inputs)} -> {found}: no value")


@law(when=lambda loss: not _is_batch(loss), inputs=_inputs)
def one_value_each(loss: Loss, inputs: Inputs) -> None:
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
def finite(loss: Loss, inputs: Inputs) -> None:
    """Every value is finite: at distance 0, of one pair, of pairs of one kind."""
    found = values(loss, *inputs)
    at = first(~np.isfinite(found))
    if at:
        fail(f"the value at {list(at)} is {found[at]} for {_told(loss, inputs)}")


@law(inputs=_inputs)
def finite_gradient(loss: Loss, inputs: Inputs) -> None:
    """The gradient of the mean is finite: at distance 0, at the margin, where distances tie."""
    for gradient in _gradients(loss, inputs):
        if not np.isfinite(gradient).all():
            fail(f"a gradient is {gradient[~np.isfinite(gradient)][0]} for {_told(loss, inputs)}")


def _has_auxiliary(loss: Loss) -> bool:
    return loss.auxiliary is not None


class _Means(nn.Module):
    """A backbone: 8 weighted sums of the means of the channels of images (b, h, w, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = mx.ones((3, 8))

    def __call__(self, images: mx.array) -> mx.array:
        return images.mean(axis=(1, 2)) @ self.weight


@law(when=_has_auxiliary)
def auxiliary(loss: Loss) -> None:
    """What `auxiliary` adds is finite, of any number of images; the backbone's gradient, too."""
    backbone = _Means()

    def mean(images: mx.array) -> mx.array:
        assert loss.auxiliary is not None
        return loss.auxiliary(backbone, images).mean()

    for b in (1, 2, 9):
        images = np.random.default_rng(b).random((b, 4, 4, 3), np.float32)
        value, gradient = nn.value_and_grad(backbone, mean)(mx.array(images))
        for name, found in (("value", value), ("gradient", gradient["weight"])):
            if not np.isfinite(np.array(found)).all():
                fail(f"the {name} is {found} for {b} images")


def _fitting(loss: Loss) -> Metric | None:
    """A built-in metric that keeps what the loss requires."""
    found = (euclidean(), cosine(), sqeuclidean(), manhattan())
    return next((metric for metric in found if loss.requires <= metric.laws), None)


@law(when=lambda loss: _fitting(loss) is not None, x=points(5, 3))
def through_a_metric(loss: Loss, x: Array) -> None:
    """With a metric that it requires, gradients are finite; coinciding images have one too."""
    metric = _fitting(loss)
    assert metric is not None
    labels = np.arange(8) % 3

    def total(embeddings: mx.array) -> mx.array:
        table = metric.table(embeddings, embeddings)
        if loss.layout == "pairs":
            return loss.fn(table[0, 1:], mx.array(labels[1:] == labels[0])).mean()
        if loss.layout == "triplets":
            return loss.fn(table[0, 1:], table[1, :-1]).mean()
        if loss.layout == "episode":
            return loss.fn(-table[3:, :3], mx.array(labels[3:])).mean()
        places, _, others = map(mx.array, against_others(np.arange(64).reshape(8, 8), labels))
        return loss.fn(table.flatten()[places], mx.array(labels), others).mean()

    every = np.concatenate([x, x[:2], -x[:1]])
    gradient = np.array(mx.grad(total)(mx.array(every)))
    at = first(~np.isfinite(gradient))
    if at:
        fail(f"the gradient is {gradient[at]} for embeddings {every.tolist()}")


@law(inputs=_inputs, step=st.floats(0.5, 4, width=32))
def direction(loss: Loss, inputs: Inputs, step: float) -> None:
    """Alike pairs farther apart, or others nearer, never cost less; right answers cost less."""
    one, two = inputs[:2]
    here, more = values(loss, *inputs), np.float32(step)
    if loss.layout == "batch":  # by slopes: weights without a gradient do not count
        same, slope = inputs[2] == two[:, None], _gradients(loss, inputs)[0]
        if slope[same].sum() < -_slack(slope):
            fail(f"with all positives farther the loss falls: {_told(loss, inputs)}")
        if slope[~same].sum() > _slack(slope):
            fail(f"with all negatives nearer the loss falls: {_told(loss, inputs)}")
    elif loss.layout == "pairs":
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
        ahead, behind = _in_reach(loss, np.minimum(ahead, 0)), _in_reach(loss, behind)
        less, great = values(loss, ahead, two), values(loss, behind, two)
        _no_less(less, great, f"the right score {step} behind the best, not ahead", loss, inputs)


def _slack(slope: Array) -> float:
    return 20 * ULP * float(np.abs(slope).sum())


def _no_less(low: Array, high: Array, what: str, loss: Loss, inputs: Inputs) -> None:
    at = first(high < low - _compared(inputs, low, high))
    if at:
        fail(f"with {what} the loss is {high[at]}, not {low[at]} or more: {_told(loss, inputs)}")


@law(when=lambda loss: loss.centres is not None, distances=distances(3), seed=seeds)
def centres(loss: Loss, distances: Array, seed: int) -> None:
    """`centres` is between the nearest and the farthest, whatever their order, with a gradient."""
    assert loss.centres is not None
    given = np.concatenate([_in_reach(loss, distances), 0 * distances[:1]])
    found = np.array(loss.centres(mx.array(given)))
    if found.shape != given.shape[:-1]:
        fail(f"{given.shape} -> {found.shape}, where {given.shape[:-1]} is due")
    slack = 20 * ULP * max(1.0, float(given.max()))
    at = first((found < given.min(axis=-1) - slack) | (found > given.max(axis=-1) + slack))
    if at:
        fail(f"{found[at]} of {given[at].tolist()}")
    order = shuffled(given.shape[-1], seed)
    moved = np.array(loss.centres(mx.array(given[:, order])))
    at = first(np.abs(moved - found) > slack)
    if at:
        fail(f"{found[at]}, and {moved[at]} in the order {order.tolist()}, of {given[at].tolist()}")
    slope = np.array(mx.grad(lambda d: loss.centres(d).sum())(mx.array(given)))  # type: ignore[misc]
    if not np.isfinite(slope).all():
        fail(f"a gradient is not finite for {told(distances=given)}")


@law()
def teaches(loss: Loss) -> None:
    """Somewhere it pulls what is alike together, and somewhere pushes what is not apart."""
    steps = np.linspace(0, 4, 33, dtype=np.float32)
    if loss.layout == "pairs":
        pull = _gradients(loss, (steps, np.ones(33, bool)))[0]
        push = _gradients(loss, (steps, np.zeros(33, bool)))[0]
    elif loss.layout == "batch":
        points = np.random.default_rng(0).random((12, 12), np.float32)
        inputs = against_others(points + points.T, np.arange(12) % 4)
        gradient = _gradients(loss, inputs)[0]
        same = inputs[2] == inputs[1][:, None]
        pull, push = gradient[same], gradient[~same]
    elif loss.layout == "triplets":
        near, far = (v.ravel() for v in np.meshgrid(steps, steps))
        pull, push = _gradients(loss, (near, far))
    else:
        scores = -2 * np.random.default_rng(0).random((40, 4), np.float32)
        gradient = _gradients(loss, (scores, np.arange(40) % 4))[0]
        push = np.take_along_axis(gradient, (np.arange(40) % 4)[:, None], axis=-1)
        pull = np.take_along_axis(gradient, ((np.arange(40) + 1) % 4)[:, None], axis=-1)
    if not pull.max() > 0:
        fail("nothing pulls: no same pair, positive or wrong score has a gradient above 0")
    if not push.min() < 0:
        fail("nothing pushes: no different pair, negative or right score has a gradient below 0")


def _has_margin(loss: Loss) -> bool:
    return loss.margin is not None and loss.layout in ("pairs", "triplets")


@law(when=_has_margin, near=st.sampled_from([0.0, 0.5, 2.0]))
def margin(loss: Loss, near: float) -> None:
    """Different pairs cost up to `margin`, not beyond; negatives, so far behind positives."""
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


@law(when=_is_batch, batch=compared_batches(), seed=seeds)
def batch_order(loss: Loss, batch: tuple[Array, Array], seed: int) -> None:
    """Images of a batch in another order have the same mean."""
    table, labels = batch
    table, order = _in_reach(loss, table), shuffled(len(labels), seed)
    here = against_others(table, labels)
    moved = against_others(table[order][:, order], labels[order])
    _same_mean(loss, here, moved, f"in the order {order.tolist()}")


@law(when=_is_batch, inputs=_inputs, seed=seeds)
def batch_class_names(loss: Loss, inputs: Inputs, seed: int) -> None:
    """Which label a class of a batch has does not matter: renamed classes have the same mean."""
    distances, labels, others = inputs
    new = shuffled(int(labels.max()) + 2, seed)
    _same_mean(loss, inputs, (distances, new[labels], new[others]), f"named {new.tolist()}")


def _same_mean(loss: Loss, inputs: Inputs, moved: Inputs, how: str) -> None:
    here, there = values(loss, *inputs), values(loss, *moved)
    if abs(here.mean() - there.mean()) > _compared(inputs, here, there):
        fail(f"the mean is {here.mean()}, and {there.mean()} {how}: {_told(loss, inputs)}")


@law(when=lambda loss: not _is_batch(loss), inputs=_inputs, seed=seeds)
def order(loss: Loss, inputs: Inputs, seed: int) -> None:
    """Pairs, triplets or queries in another order have the same values."""
    one, two = inputs
    order = shuffled(two.shape[-1], seed)
    moved = values(loss, np.take(one, order, axis=two.ndim - 1), two[..., order])
    here = values(loss, one, two)[..., order]
    at = first(np.abs(moved - here) > _compared(inputs, here))
    if at:
        fail(
            f"a value is {here[at]}, and {moved[at]} in the order {order.tolist()}: "
            f"{_told(loss, inputs)}"
        )


@law(when=lambda loss: loss.layout == "episode", inputs=_inputs, seed=seeds)
def class_names(loss: Loss, inputs: Inputs, seed: int) -> None:
    """Which label a class has does not matter: renamed classes have the same values."""
    scores, labels = inputs
    new = shuffled(scores.shape[-1], seed)
    here, renamed = values(loss, *inputs), values(loss, scores[..., np.argsort(new)], new[labels])
    at = first(np.abs(renamed - here) > _compared(inputs, here))
    if at:
        fail(
            f"a value is {here[at]}, and {renamed[at]} with classes renamed to {new.tolist()}: "
            f"{_told(loss, inputs)}"
        )


def _is_soft(loss: Loss) -> bool:
    return loss.soft and loss.layout == "episode"


@law(when=_is_soft, inputs=_inputs)
def soft_labels(loss: Loss, inputs: Inputs) -> None:
    """One-hot targets in the place of labels cost what the labels cost."""
    scores, labels = inputs
    targets = np.eye(scores.shape[-1], dtype=np.float32)[labels]
    here, soft = values(loss, *inputs), values(loss, scores, targets)
    if soft.shape != here.shape:
        fail(f"{scores.shape}, {targets.shape} -> {soft.shape}, where {here.shape} is due")
    at = first(~(np.abs(soft - here) <= _compared(inputs, here)))
    if at:
        fail(f"a value is {here[at]} by labels, {soft[at]} by targets: {_told(loss, inputs)}")


@law(when=_is_soft, inputs=_inputs, seed=seeds)
def soft_targets(loss: Loss, inputs: Inputs, seed: int) -> None:
    """Any targets >= 0 whose rows sum to 1 have finite values, and a finite gradient."""
    scores, labels = inputs
    rng = np.random.default_rng(seed)
    one, other = np.eye(scores.shape[-1], dtype=np.float32)[[labels, np.roll(labels, 1, -1)]]
    part = rng.choice([0.5, 0.0, 0.3, 1e-7], (*labels.shape, 1)).astype(np.float32)
    targets = one + (other - one) * part
    found = values(loss, scores, targets)
    for what, numbers in (("value", found), ("gradient", _gradients(loss, (scores, targets))[0])):
        if not np.isfinite(numbers).all():
            fail(f"a {what} is {numbers[~np.isfinite(numbers)][0]} for {told(targets=targets)}")
    if found.shape != labels.shape:
        fail(f"{scores.shape}, {targets.shape} -> {found.shape}, where {labels.shape} is due")


@law(when=_is_soft)
def soft_teaches(loss: Loss) -> None:
    """Of equal scores, the one of the class with the larger share of the target is raised more."""
    targets = np.array([[0.6, 0.4, 0]], np.float32)
    (gradient,) = _gradients(loss, (np.full((1, 3), -1, np.float32), targets))[0]
    if not gradient[0] < gradient[1] < gradient[2]:
        fail(f"the gradient is {gradient.tolist()} for {told(targets=targets)}")


@law(inputs=_inputs)
def asked_twice(loss: Loss, inputs: Inputs) -> None:
    """Asked twice, the loss says the same."""
    once, again = values(loss, *inputs), values(loss, *inputs)
    at = first(once != again)
    if at:
        fail(f"a value is {once[at]}, then {again[at]}, for {_told(loss, inputs)}")


@law(inputs=_inputs)
def inputs_untouched(loss: Loss, inputs: Inputs) -> None:
    """The distances or scores given are not changed."""
    given = [mx.array(v) for v in inputs]
    mx.eval(loss.fn(*given))
    if not all(np.array_equal(np.array(g), v) for g, v in zip(given, inputs, strict=True)):
        fail(f"they are others afterwards (write d = d - m, not d -= m): {_told(loss, inputs)}")


@law(when=_is_trained, inputs=_inputs)
def learned_parts(loss: Loss, inputs: Inputs) -> None:
    """The gradient for every learned part of `fn` is finite."""
    module = loss.fn
    assert isinstance(module, nn.Module)
    by_parts = nn.value_and_grad(module, lambda *given: module(*given).mean())
    leaves: Any = tree_flatten(by_parts(*map(mx.array, inputs))[1])
    for name, gradient in leaves:
        if not np.isfinite(np.array(gradient)).all():
            fail(f"the gradient by {name} is not finite for {_told(loss, inputs)}")


KIND = Kind(
    "loss", lambda factory, options: evaluated(made_by(factory, options)), laws_of(globals())
)

"""The laws of an optimizer, on a few parameters of every number of axes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..compute.compiling import compiling
from ..core.interfaces import Optimizer
from ..core.options import NoOptions
from .laws import Kind, fail, law, laws_of

_RATE = 0.01


def check_optimizer(factory: Callable[[Any, Any], Optimizer], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options, learning_rate)` breaks a law of an optimizer."""
    KIND.check(factory, options)


@frozen
class Tried:
    """`make(learning_rate)`: a new optimizer."""

    make: Callable[[Any], Any]


def _tried(factory: Callable[[Any, Any], Any], options: Any) -> Tried:
    factory(options, _RATE)  # an error of its own is told once
    return Tried(lambda rate: factory(options, rate))


class Small(nn.Module):
    """A few parameters, some of them frozen, and a layer without any."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.layers = [nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm(3)]
        self.scale = mx.array(1.0)
        drawn = partial(rng.normal, 1, 0.2)
        self.update(tree_map(lambda p: mx.array(drawn(p.shape), p.dtype), self.parameters()))
        self.layers[2].freeze(keys=["bias"])
        mx.eval(self.parameters())


def flat(tree: Any) -> dict[str, Any]:
    """Its arrays by name."""
    return dict(tree_flatten(tree))


def copied(array: mx.array) -> mx.array:
    """As it comes back from a file."""
    return mx.array(np.array(array))


def weights(module: nn.Module) -> dict[str, bytes]:
    """Parameters by name, bit for bit."""
    return {name: bytes(np.array(array)) for name, array in flat(module.parameters()).items()}


def step(optimizer: Any, module: nn.Module, number: int, gradients: Any = None) -> None:
    """One update, by the gradients of half the sum of squares where none are given."""
    mx.random.seed(number)
    optimizer.update(module, module.trainable_parameters() if gradients is None else gradients)
    mx.eval(module.parameters(), optimizer.state)


def noise(module: nn.Module, seed: int, scale: float = 1.0) -> Any:
    """Gradients that are drawn."""
    rng = np.random.default_rng(seed)
    return tree_map(
        lambda p: mx.array(scale * rng.normal(size=p.shape), p.dtype), module.trainable_parameters()
    )


def falling(number: mx.array) -> mx.array:
    """A rate of its own at every step."""
    return _RATE / (1 + number.astype(mx.float32))


@law()
def made(tried: Tried) -> None:
    """The factory makes an `Optimizer`: `init`, `update` and `state`."""
    for rate in (_RATE, falling):
        optimizer = tried.make(rate)
        if not isinstance(optimizer, Optimizer):
            fail(f"the factory returned {optimizer!r}, which is no Optimizer")


@law()
def the_rate(tried: Tried) -> None:
    """It asks for the rate at every step: at 0 weights stay, then all move down the slope."""
    module = Small()
    before, start = weights(module), module.trainable_parameters()
    optimizer = tried.make(lambda number: mx.where(number < 2, 0.0, 0.1))
    optimizer.init(start)
    for number in (1, 2, 3):
        step(optimizer, module, number)
        if number < 3 and weights(module) != before:
            fail(f"weights are others after update {number} at a rate of 0")
    ends = flat(module.trainable_parameters())
    for name, old in flat(start).items():
        new = ends[name]
        if not ((old - new) * old).sum().item() > 0:
            fail(f"{name} {list(old.shape)} stays or moves uphill at a rate of 0.1 after two of 0")


@law()
def downhill(tried: Tried) -> None:
    """Twenty steps at a small rate make the sum of squares of all parameters smaller."""
    module = Small()
    optimizer = tried.make(_RATE)
    optimizer.init(module.trainable_parameters())
    heights = []
    for number in range(21):
        squares = [np.square(array).sum() for array in flat(module.trainable_parameters()).values()]
        heights.append(sum(squares))
        step(optimizer, module, number)
    if not heights[-1] < heights[0]:
        fail(f"it was {heights[0]:.4g}, and is {heights[-1]:.4g}")


@law()
def finite(tried: Tried) -> None:
    """Gradients of 0, tiny and large ones leave weights finite."""
    for scale in (0.0, 1e-12, 1e8):
        module = Small()
        optimizer = tried.make(_RATE)
        optimizer.init(module.trainable_parameters())
        for number in (1, 2):
            step(optimizer, module, number, noise(module, number, scale))
        for name, array in flat(module.parameters()).items():
            found = np.array(array).flatten()
            if not np.isfinite(found).all():
                fail(f"{name} is {found[:4].tolist()} … after gradients of {scale:g}")


def _like(state: Any) -> dict[str, Any]:
    """Shapes and types by name; what is no array as it is."""
    return {
        name: (array.shape, array.dtype) if isinstance(array, mx.array) else array
        for name, array in flat(state).items()
    }


@law()
def state(tried: Tried) -> None:
    """From `init` on, it is a tree of arrays of the same names, shapes and types."""
    for rate in (_RATE, falling):
        module = Small()
        optimizer = tried.make(rate)
        optimizer.init(module.trainable_parameters())
        before = _like(optimizer.state)
        step(optimizer, module, 1)
        after = _like(optimizer.state)
        other = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        plain = sorted(n for n, found in after.items() if not isinstance(found, tuple))
        if other:
            fail(f"{other[0]} comes, goes or changes shape or type at the first update")
        if plain:
            fail(f"{plain[0]} is {after[plain[0]]!r}, which is no array")


@law()
def in_place(tried: Tried) -> None:
    """An update changes the state that was taken before it: compiled steps rely on that."""
    module = Small()
    optimizer = tried.make(falling)
    optimizer.init(module.trainable_parameters())
    held = optimizer.state
    step(optimizer, module, 1)
    now = flat(optimizer.state)
    for name, array in flat(held).items():
        if not np.array_equal(np.array(array), np.array(now[name])):
            fail(f"{name} is another array in a new tree")


@law()
def going_on(tried: Tried) -> None:
    """A new one that takes up its state, written and read, goes on bit for bit."""
    for before in (0, 1, 3):
        module, other = Small(), Small()
        optimizer, again = tried.make(falling), tried.make(falling)
        optimizer.init(module.trainable_parameters())
        for number in range(before):
            step(optimizer, module, number, noise(module, number))
        kept = [(name, copied(array)) for name, array in flat(optimizer.state).items()]
        other.update(tree_map(copied, module.parameters()))
        again.init(other.trainable_parameters())
        again.state = tree_unflatten(kept)
        again.init(other.trainable_parameters())
        for number in range(before, before + 2):
            step(optimizer, module, number, noise(module, number))
            step(again, other, number, noise(other, number))
            if weights(module) != weights(other):
                fail(f"weights are others at step {number + 1}, gone on with after {before}")


@law()
def anew(tried: Tried) -> None:
    """Every call of the factory makes a new one, at its start, whatever others have done."""
    ends = []
    for _ in range(2):
        module = Small()
        optimizer = tried.make(falling)
        optimizer.init(module.trainable_parameters())
        for number in range(2):
            step(optimizer, module, number, noise(module, number))
        ends.append(weights(module))
    if ends[0] != ends[1]:
        fail("the second one's weights are others after the same gradients")


@law()
def the_rest_stays(tried: Tried) -> None:
    """Frozen parameters, buffers and gradients stay, and so do names, shapes and types."""
    module = Small()
    optimizer = tried.make(_RATE)
    optimizer.init(module.trainable_parameters())
    before, like, trained = weights(module), _like(module.parameters()), noise(module, 0)
    given = {name: bytes(np.array(array)) for name, array in flat(trained).items()}
    step(optimizer, module, 1, trained)
    if _like(module.parameters()) != like:
        fail("names, shapes or types of parameters are others")
    after = weights(module)
    moved = [name for name in before if after[name] != before[name] and name not in given]
    if moved:
        fail(f"{moved[0]}, which has no gradient, is another")
    for name, array in flat(trained).items():
        if bytes(np.array(array)) != given[name]:
            fail(f"the gradient of {name} is another (write g = g + x, not g += x)")


@law()
def traceable(tried: Tried) -> None:
    """It evaluates nothing, so that a step can be compiled."""
    module = Small()
    optimizer = tried.make(falling)
    optimizer.init(module.trainable_parameters())
    inputs = [module.state, optimizer.state, mx.random.state]
    try:
        with compiling():  # traced, not computed
            mx.compile(lambda g: optimizer.update(module, g), inputs=inputs, outputs=inputs)(
                noise(module, 0)
            )
    except Exception as error:
        fail(f"traced, it raises {type(error).__name__}: {' '.join(str(error).split())}")


KIND = Kind("optimizer", _tried, laws_of(globals()))

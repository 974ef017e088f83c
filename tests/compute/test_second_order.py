"""Gradients of our layers' gradients are those of MLX's own layers.

The oracle is the stock layer in float64. What float32 may lose on a network and a batch is seen on
the stock layer in float32: ours may err several times as much, as it sums in another order and
convolves by sums and differences of pixels.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

import fewshot as fs
from fewshot.compute import runtime

seeds = st.integers(0, 2**32 - 1)
EPS = float(np.finfo(np.float32).eps)

Found = dict[str, Any]
Layers = Callable[[Any, Callable[[int], nn.Module], Callable[[], nn.Module]], nn.Module]


def fused(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(norm(3), pool())


def fused_over_relu(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(norm(3), nn.ReLU(), pool())


def apart(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(pool(), norm(3))


def alone(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(norm(3))


def only_pool(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(pool(), nn.Linear(3, 2))


def flat(kind: Any, norm: Any, pool: Any) -> nn.Module:
    return kind(fs.Flatten(), nn.Linear(4 * 6 * 3, 5), norm(5), nn.Tanh())


def convolved(kind: Any, norm: Any, pool: Any) -> nn.Module:
    """The inner convolution is fast, both ways."""
    ends = [nn.Conv2d(3, 16, 1), nn.Tanh(), nn.Conv2d(16, 17, 3, padding=1), nn.Tanh()]
    return kind(*ends, nn.Conv2d(17, 2, 1))


def deep(kind: Any, norm: Any, pool: Any) -> nn.Module:
    """Every layer of a backbone, with and without a ReLU between batch norm and pool."""
    first = [nn.Conv2d(3, 16, 3, padding=1, bias=False), norm(16), nn.ReLU(), pool()]
    second = [nn.Conv2d(16, 17, 3, padding=1), nn.ReLU(), norm(17), pool()]
    third = [nn.Conv2d(17, 16, 3, padding=1), norm(16), nn.Tanh(), fs.Flatten()]
    return kind(*first, *second, *third, nn.Linear(16 * 16, 4))


def pair(layers: Layers, weights: np.random.Generator) -> list[tuple[nn.Module, Any]]:
    """Ours, the stock layers, and these in float64, at the same weights of either sign."""
    ours = layers(fs.Sequential, fs.BatchNorm, fs.MaxPool2x2)
    stock, exact = (layers(nn.Sequential, nn.BatchNorm, lambda: nn.MaxPool2d(2)) for _ in range(2))
    names: Any = tree_flatten(ours.parameters())
    values = []
    for name, array in names:
        drawn = weights.normal(size=array.shape) / np.sqrt(array[0].size)
        if array.ndim == 1:  # no scale near 0, and no variance
            drawn = weights.uniform(0.5, 1.5, array.shape)
            drawn *= 1 if "running" in name else weights.choice([-1, 1], array.shape)
        values.append((name, drawn.astype(np.float32)))
    kinds = (mx.float32, mx.float32, mx.float64)
    for network, kind in zip((ours, stock, exact), kinds, strict=True):
        network.load_weights([(name, mx.array(value, kind)) for name, value in values])
    return list(zip((ours, stock, exact), kinds, strict=True))


def numbers(tree: Any) -> Found:
    flat_tree: Any = tree_flatten(tree)
    return {name: np.array(array, np.float64) for name, array in flat_tree}


def agree(ours: Found, stock: Found, exact: Found) -> None:
    """Every array is as near the exact one as float32 lets the stock layers come."""
    assert ours.keys() == stock.keys() == exact.keys()
    for kind in {name.partition(".")[0] for name in exact}:
        names = [name for name in exact if name.partition(".")[0] == kind]
        scale = max(np.abs(exact[name]).max() for name in names)
        lost = max(np.abs(stock[name] - exact[name]).max() for name in names)
        assert lost < 1e-3 * scale, "so ill-conditioned that nothing is shown"
        allowed = 16 * lost + 64 * EPS * scale
        for name in names:
            np.testing.assert_allclose(ours[name], exact[name], rtol=0, atol=allowed, err_msg=name)


def products(network: nn.Module, kind: Any, x: Any, draw: Any) -> Found:
    """Value, gradient and Hessian times a vector, by weights and images, of a random objective."""
    rng = np.random.default_rng(draw)
    pull = mx.array(rng.normal(size=network(mx.array(x, kind)).shape), kind)

    def value(given: Any) -> mx.array:
        network.update(given["weights"])
        out = network(given["images"])
        return (mx.square(out) * pull).mean() + (out * mx.cos(pull)).mean()

    at: Any = {"weights": network.trainable_parameters(), "images": mx.array(x, kind)}
    along: Any = tree_map(lambda a: mx.array(rng.normal(size=a.shape), kind), at)

    def directional(given: Any) -> tuple[mx.array, Any]:
        found, gradient = mx.value_and_grad(value)(given)
        pairs = zip(tree_flatten(gradient), tree_flatten(along), strict=True)
        return sum(((g * v).sum() for (_, g), (_, v) in pairs), mx.zeros((), kind)), found

    gradient = mx.grad(value)(at)
    (slope, found), product = mx.value_and_grad(directional)(at)
    network.update(at["weights"])
    first, second = {"value": found, "by": gradient}, {"value": slope, "by": product}
    return numbers({"gradient": first, "product": second})


def adapted(network: nn.Module, kind: Any, x: Any, draw: int) -> Found:
    """A step of MAML (Finn et al. 2017, equation 1): the gradient through two steps of SGD.

    The last of them in another mode, so that running statistics have their part, too.
    """
    rng = np.random.default_rng(draw)
    pull = mx.array(rng.normal(size=network(mx.array(x, kind)).shape), kind)
    images, start, mode = mx.array(x, kind), network.parameters(), network.training
    step = nn.value_and_grad(network, lambda images: mx.square(network(images) - pull).mean())

    def outer(weights: Any) -> mx.array:
        network.update(start)
        network.update(weights)
        for _ in range(2):
            _, gradients = step(images)
            here = network.trainable_parameters()
            network.update(tree_map(lambda w, g: w - 0.2 * g, here, gradients))
        network.train(False)
        return (network(images[::-1]) * pull).mean()

    value, gradient = mx.value_and_grad(outer)(network.trainable_parameters())
    running = [a for name, a in tree_flatten(network.parameters()) if "running" in name]
    network.train(mode)
    network.update(start)
    return numbers({"gradient": {"value": value, "by": gradient}, "running": running})


def check(networks: Any, streams: int, of: Callable[..., Found], *rest: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "streams", lambda: streams)
        with mx.stream(mx.cpu):  # where there is float64
            agree(*(of(network, kind, *rest) for network, kind in networks))


SINGLE = [alone, apart, fused, fused_over_relu, only_pool, flat]
laws = pytest.mark.parametrize("of", [products, adapted])


@laws
@pytest.mark.parametrize("layers", SINGLE)
@given(seed=seeds, batch=st.integers(8, 14), streams=st.integers(1, 3), training=st.booleans())
def test_gradients_of_a_layers_gradient_are_those_of_mlxs(
    layers: Layers, of: Any, seed: int, batch: int, streams: int, training: bool
):
    rng = np.random.default_rng(seed)
    # Whole numbers, so that float32 and float64 find the same largest one; many ties.
    x = rng.integers(-4, 5, (batch, 4, 6, 3)).astype(np.float32)
    networks = pair(layers, rng)
    for network, _ in networks:
        network.train(training)
    check(networks, streams, of, x, seed)


@laws
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("layers", [convolved, deep])
def test_gradients_of_a_networks_gradient_are_those_of_mlxs(
    layers: Layers, of: Any, streams: int, training: bool
):
    rng = np.random.default_rng(1)
    networks = pair(layers, rng)
    for network, _ in networks:
        network.train(training)
    check(networks, streams, of, rng.normal(size=(13, 16, 16, 3)).astype(np.float32), 1)

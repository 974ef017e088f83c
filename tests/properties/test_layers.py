"""A divided batch is the undivided one, and batch norm's gradient is the true one."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot import runtime

seeds = st.integers(0, 2**32 - 1)


class AboutTheBatch(nn.Module):
    """A layer of a third party that mixes the images of a batch."""

    def __call__(self, x: mx.array) -> mx.array:
        return x - x.mean(axis=0, keepdims=True)


def layers(norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    convolutions = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), norm(3), nn.MaxPool2d(2)]
    rest = [AboutTheBatch(), fs.Flatten(), nn.Dropout(0.4), nn.Linear(12, 5), norm(5), nn.GELU()]
    return [*convolutions, *rest]


def outcome(network: nn.Module, images: mx.array, weights: Any) -> dict[str, Any]:
    """Everything that a step and the evaluation after it can see."""
    network.load_weights(weights)
    network.train()
    mx.random.seed(5)

    def loss(x: mx.array) -> mx.array:
        out = network(x)
        return (out * mx.cos(mx.arange(out.size).reshape(out.shape))).mean()

    value, gradients = nn.value_and_grad(network, loss)(images)
    seen: Any = {"loss": value, **dict(tree_flatten(gradients))}
    seen |= {k: v for k, v in tree_flatten(network.parameters()) if "running" in k}
    network.eval()
    return {k: np.array(v) for k, v in (seen | {"evaluated": network(images)}).items()}


def close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        scale = max(float(np.abs(v).max()) for v in a.values())
        np.testing.assert_allclose(a[name], b[name], atol=2e-5 * scale, err_msg=name)


@given(seed=seeds, batch=st.integers(2, 25), streams=st.integers(2, 6))
def test_a_divided_batch_gives_what_mlx_makes_of_the_whole(seed: int, batch: int, streams: int):
    mx.random.seed(seed)
    ours, theirs = fs.Sequential(*layers(fs.BatchNorm)), nn.Sequential(*layers(nn.BatchNorm))
    images = mx.random.normal((batch, 4, 4, 2))
    weights: Any = tree_flatten(ours.parameters())
    found = []
    for count in (1, streams):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime, "streams", lambda count=count: count)
            found.append(outcome(ours, images, weights))
    expected = outcome(theirs, images, weights)
    close(expected, found[0])
    close(expected, found[1])


def test_the_parts_lie_on_streams_of_their_own(monkeypatch: pytest.MonkeyPatch):
    used: list[Any] = []

    class Watching(nn.ReLU):
        def __call__(self, x: mx.array) -> mx.array:
            used.append((x.shape[0], mx.default_stream(mx.cpu)))
            return super().__call__(x)

    for streams, sizes in ((1, [19]), (2, [10, 9]), (3, [7, 6, 6]), (16, [5, 5, 5, 4])):
        used.clear()
        monkeypatch.setattr(runtime, "streams", lambda streams=streams: streams)
        mx.eval(fs.Sequential(Watching())(mx.zeros((19, 3))))
        assert [size for size, _ in used] == sizes
        assert len({str(stream) for _, stream in used}) == len(sizes)


@given(seed=seeds, n=st.integers(2, 12), c=st.integers(1, 4))
def test_batch_norms_gradient_is_that_of_finite_differences(seed: int, n: int, c: int):
    rng = np.random.default_rng(seed)
    x, pull = rng.normal(2, 1, (n, c)), rng.normal(size=(n, c))
    weight, bias = rng.normal(1, 0.3, c), rng.normal(size=c)
    layer = fs.BatchNorm(c)

    def exact(x: Any, weight: Any, bias: Any) -> float:
        normalised = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + layer.eps)
        return float(((normalised * weight + bias) * pull).sum())

    def value(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
        layer.weight, layer.bias = weight, bias
        return (layer(x) * mx.array(pull, mx.float32)).sum()

    arguments = [x, weight, bias]
    gradients: Any = mx.grad(value, argnums=(0, 1, 2))(
        *(mx.array(a, mx.float32) for a in arguments)
    )
    spread = x.std(axis=0).min()
    for which, gradient in enumerate(gradients):
        expected = np.zeros_like(arguments[which])
        for at in np.ndindex(expected.shape):
            moved = [[a.copy() for a in arguments] for _ in range(2)]
            h = 1e-5 * spread
            moved[0][which][at] += h
            moved[1][which][at] -= h
            expected[at] = (exact(*moved[0]) - exact(*moved[1])) / (2 * h)
        scale = np.abs(expected).max() + 1 + 1 / spread**2
        np.testing.assert_allclose(np.array(gradient), expected, atol=1e-4 * scale)


def test_batch_norm_cannot_train_on_one_value_a_channel():
    with pytest.raises(ValueError, match="one value a channel"):
        fs.BatchNorm(2)(mx.zeros((1, 2)))


@given(seed=seeds, h=st.integers(2, 7), w=st.integers(2, 7), levels=st.integers(1, 5))
def test_the_pool_and_its_gradient_are_mlxs_ties_included(seed: int, h: int, w: int, levels: int):
    rng = np.random.default_rng(seed)
    x = mx.array(rng.integers(levels, size=(2, h, w, 3)), mx.float32)  # few levels: many ties
    pull = mx.array(rng.normal(size=(2, h // 2, w // 2, 3)), mx.float32)
    (ours,), (gradient,) = mx.vjp(fs.MaxPool2x2(), [x], [pull])
    (theirs,), (expected,) = mx.vjp(nn.MaxPool2d(2), [x], [pull])
    assert mx.array_equal(ours, theirs)
    np.testing.assert_allclose(np.array(gradient), np.array(expected), atol=1e-6)

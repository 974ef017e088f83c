"""A divided batch is the undivided one, and gradients of our own are the true ones."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot.compute import depthwise, runtime, winograd
from fewshot.compute.compiling import compiling

seeds = st.integers(0, 2**32 - 1)


class AboutTheBatch(nn.Module):
    """A layer of a third party that mixes the images of a batch."""

    def __call__(self, x: mx.array) -> mx.array:
        return x - x.mean(axis=0, keepdims=True)


def layers(norm: Callable[[int], nn.Module], pool: nn.Module) -> list[nn.Module]:
    """Batch norm after and before a ReLU, a pool after either; 16 channels are convolved fast."""
    first = [nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), norm(16), pool]
    second = [nn.Conv2d(16, 17, 3, padding=1), norm(17), nn.ReLU(), pool]
    rest = [AboutTheBatch(), fs.Flatten(), nn.Dropout(0.4), nn.Linear(68, 5), norm(5), nn.GELU()]
    second[0].bias = mx.linspace(-1, 1, 17)
    return [*first, *second, *rest]


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
    ours = fs.Sequential(*layers(fs.BatchNorm, fs.MaxPool2x2()))
    theirs = nn.Sequential(*layers(nn.BatchNorm, nn.MaxPool2d(2)))
    images = mx.random.normal((batch, 11, 8, 2))
    weights: Any = tree_flatten(ours.parameters())
    found = []
    for count in (1, streams):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runtime, "streams", lambda count=count: count)
            found.append(outcome(ours, images, weights))
    expected = outcome(theirs, images, weights)
    close(expected, found[0])
    close(expected, found[1])


@given(
    seed=seeds,
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3)]),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
)
def test_a_depthwise_convolution_and_its_gradient_are_those_of_its_definition(
    seed: int, kernel: Any, stride: Any, padding: Any, bias: bool
):
    mx.random.seed(seed)
    layer = nn.Conv2d(3, 3, kernel, stride, padding, groups=3, bias=bias)
    x = mx.random.normal((2, 7, 6, 3))
    assert depthwise.fits(layer, x)
    dense = mx.zeros((3, *kernel, 3))
    for channel in range(3):
        dense[channel, ..., channel] = layer.weight[channel, ..., 0]

    def ours(x: mx.array, weight: mx.array) -> mx.array:
        layer.weight = weight
        return depthwise.convolved(layer, x)

    def theirs(x: mx.array, weight: mx.array) -> mx.array:
        out = mx.conv2d(x, weight, stride, padding)
        return out + layer.bias if bias else out

    (found,), gradients = mx.vjp(ours, [x, layer.weight], [mx.ones(ours(x, layer.weight).shape)])
    (expected,), others = mx.vjp(theirs, [x, dense], [mx.ones(found.shape)])
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=1e-5)
    np.testing.assert_allclose(np.array(gradients[0]), np.array(others[0]), atol=1e-4)
    own = np.stack([np.array(others[1])[c, ..., c] for c in range(3)])
    np.testing.assert_allclose(np.array(gradients[1])[..., 0], own, atol=1e-4)


class Padded(nn.Module):
    def __call__(self, x: mx.array) -> mx.array:
        x = mx.concatenate([x, mx.zeros_like(x[:, :1])], axis=1)
        return mx.concatenate([mx.zeros_like(x[:, :, :2]), x], axis=2)


class Skipped(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def __call__(self, x: mx.array) -> mx.array:
        return x + mx.clip(self.branch(x), 0, 6)


@settings(max_examples=5)
@given(seed=seeds, batch=st.integers(1, 9), streams=st.integers(1, 3))
def test_layers_around_a_branch_and_the_mean_of_all_places(seed: int, batch: int, streams: int):
    mx.random.seed(seed)
    one, other = nn.Conv2d(3, 4, 1, 2), nn.Conv2d(3, 4, 3, 2, 1)
    images = mx.random.normal((batch, 6, 8, 3))
    expected = (np.array(one(images)) + np.array(other(images))).mean(axis=(1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "streams", lambda: streams)
        network = fs.Sequential(fs.Residual(other, around=[one]), fs.MeanPool())
        np.testing.assert_allclose(np.array(network(images)), expected, atol=1e-5)
    np.testing.assert_allclose(
        np.array(network.layers[0](images)).mean((1, 2)), expected, atol=1e-5
    )


@settings(max_examples=10)
@given(seed=seeds, batch=st.integers(2, 9), streams=st.integers(1, 3))
def test_nested_and_residual_layers_are_what_mlx_makes_of_the_whole(
    seed: int, batch: int, streams: int
):
    mx.random.seed(seed)
    branch = fs.Residual(nn.Conv2d(4, 4, 1), fs.BatchNorm(4), fs.ReLU6())
    first = [fs.Pad(0, 1, 2, 0), nn.Conv2d(3, 4, 3)]
    ours = fs.Sequential(*first, fs.Sequential(branch, fs.Flatten()))
    skipped = Skipped(nn.Conv2d(4, 4, 1), nn.BatchNorm(4))
    theirs = nn.Sequential(Padded(), nn.Conv2d(3, 4, 3), nn.Sequential(skipped, fs.Flatten()))
    weights: Any = tree_flatten(ours.parameters())
    images = 9 * mx.random.normal((batch, 5, 6, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "streams", lambda: streams)
        found = outcome(ours, images, weights)
        folded = np.array(fs.folded(ours)(images))
    close(outcome(theirs, images, weights), found)
    np.testing.assert_allclose(
        folded, found["evaluated"], atol=1e-5 * np.abs(found["evaluated"]).max()
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="mx.compile on the CPU wants g++")
def test_a_compiled_gradient_is_the_plain_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "streams", lambda: 2)
    mx.random.seed(1)
    network = fs.Sequential(nn.Conv2d(16, 16, 3, padding=1), fs.BatchNorm(16), fs.MaxPool2x2())
    images = mx.random.normal((8, 6, 6, 16))

    def gradients(x: mx.array) -> Any:
        return nn.value_and_grad(network, lambda x: mx.square(network(x) - 1).mean())(x)[1]

    compiled = mx.compile(gradients, inputs=[network.state], outputs=[network.state])
    with compiling():
        found = [dict(tree_flatten(function(images))) for function in (gradients, compiled)]
        close(*({name: np.array(array) for name, array in each.items()} for each in found))


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


def test_a_function_per_image_gets_the_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "streams", lambda: 2)
    sizes: list[int] = []

    def squared(x: mx.array) -> mx.array:
        sizes.append(len(x))
        return x * x

    images = mx.random.normal((9, 3))
    found = fs.Sequential(fs.PerImage(squared))(images)
    assert sizes == [5, 4]
    np.testing.assert_array_equal(found, images * images)


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


def test_batch_norm_of_many_equal_numbers_is_its_bias():
    layer = fs.BatchNorm(3)
    layer.bias = mx.array([0.0, 1.0, 2.0])
    out = layer(mx.full((64, 32, 32, 3), 10.1))
    # Their mean is summed in float32 and divided by the root of eps.
    np.testing.assert_allclose(np.array(out - layer.bias), 0, atol=2e-2)


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


@given(
    seed=seeds,
    levels=st.integers(2, 50),
    shape=st.tuples(st.integers(2, 5), st.integers(2, 4), st.integers(1, 3)),
    least=st.sampled_from([-1.0, -0.3, 0.1, 0.2]),
    rectified=st.booleans(),
)
def test_batch_norm_and_the_pool_after_it_are_mlxs_ties_and_signs_included(
    seed: int, levels: int, shape: tuple[int, int, int], least: float, rectified: bool
):
    h, w, c = shape
    rng = np.random.default_rng(seed)
    x = mx.array(rng.integers(1, levels, size=(3, h, w, c)), mx.float32)  # few levels: many ties
    pull = mx.array(rng.normal(size=(3, h // 2, w // 2, c)), mx.float32)
    scale = np.where(rng.random(c) < 0.1, least, rng.uniform(least, 1, c))
    weights = [("0.weight", scale), ("0.bias", rng.uniform(0.1, 1, c))]
    between = [nn.ReLU()] if rectified else []
    found = []
    for kind, norm, pool in (
        (fs.Sequential, fs.BatchNorm(c), fs.MaxPool2x2()),
        (nn.Sequential, nn.BatchNorm(c), nn.MaxPool2d(2)),
    ):
        network = kind(norm, *between, pool)
        network.load_weights(
            [(f"layers.{name}", mx.array(value, mx.float32)) for name, value in weights],
            strict=False,
        )

        def value(x: mx.array, network: nn.Module = network) -> mx.array:
            return (network(x) * pull).sum()

        out, gradients = nn.value_and_grad(network, value)(x)
        seen = {**dict(tree_flatten(gradients)), "images": mx.grad(value)(x), "value": out}
        found.append({name: np.array(array) for name, array in seen.items()})
    close(*found)


@given(seed=seeds)
def test_of_weights_of_zero_before_a_pool_the_gradient_is_that_from_above(seed: int):
    rng = np.random.default_rng(seed)
    x, pull = (mx.array(rng.normal(size=(3, side, side, 2)), mx.float32) for side in (4, 2))
    found = []
    for kind, norm, pool, weight in (
        (fs.Sequential, fs.BatchNorm(2), fs.MaxPool2x2(), 0.0),
        (nn.Sequential, nn.BatchNorm(2), nn.MaxPool2d(2), 1e-3),
    ):
        network, norm.weight = kind(norm, pool), mx.full((2,), weight)
        _, gradients = nn.value_and_grad(network, lambda n=network: (n(x) * pull).sum())()
        found.append({k: np.array(v) for k, v in tree_flatten(gradients)})
    close(*found)


@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_the_fast_convolution_and_its_gradients_are_those_of_the_definition(
    seed: int, size: tuple[int, int], channels: tuple[int, int], parts: list[int]
):
    (h, w), (c, o) = size, channels
    rng = np.random.default_rng(seed)
    x, weight = rng.normal(size=(sum(parts), h, w, c)), rng.normal(size=(o, 3, 3, c))
    pull = rng.normal(size=(sum(parts), h, w, o))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    of_padded, of_weight = np.zeros_like(padded), np.zeros_like(weight)
    expected = np.zeros_like(pull)
    for i, j in np.ndindex(3, 3):
        at = np.s_[:, i : i + h, j : j + w]
        expected += padded[at] @ weight[:, i, j].T
        of_padded[at] += pull @ weight[:, i, j]
        of_weight[:, i, j] = np.einsum("bhwo,bhwc->oc", pull, padded[at])

    def split(array: Any) -> list[mx.array]:
        return mx.split(mx.array(array, mx.float32), np.cumsum(parts)[:-1].tolist())

    given_ = [*split(x), mx.array(weight, mx.float32)]
    out, gradients = mx.vjp(
        lambda *args: winograd.convolved(list(args[:-1]), args[-1]), given_, split(pull)
    )
    close(
        {"out": expected, "images": of_padded[:, 1:-1, 1:-1], "weights": of_weight},
        {
            "out": np.concatenate([np.array(part) for part in out]),
            "images": np.concatenate([np.array(part) for part in gradients[:-1]]),
            "weights": np.array(gradients[-1]),
        },
    )


@pytest.mark.parametrize(
    ("fast", "layer"),
    [
        (True, nn.Conv2d(16, 16, 3, padding=1)),
        (True, nn.Conv2d(40, 20, 3, padding=1, bias=False)),
        (False, nn.Conv2d(16, 15, 3, padding=1)),
        (False, nn.Conv2d(3, 16, 3, padding=1)),
        (False, nn.Conv2d(16, 16, 3)),
        (False, nn.Conv2d(16, 16, 3, padding=1, stride=2)),
        (False, nn.Conv2d(16, 16, 3, padding=1, dilation=2)),
        (False, nn.Conv2d(16, 32, 3, padding=1, groups=2)),
        (False, nn.Conv2d(16, 16, 1)),
        (False, nn.Conv2d(16, 16, 5, padding=2)),
        (False, nn.ConvTranspose2d(16, 16, 3, padding=1)),
    ],
)
def test_only_a_plain_convolution_of_many_channels_is_fast(fast: bool, layer: Any):
    assert winograd.fits(layer, mx.zeros((4, 8, 8, 16))) == fast
    assert not winograd.fits(layer, mx.zeros((4, 8, 3, 16)))
    assert not winograd.fits(layer, mx.zeros((4, 8, 8, 16), mx.float16))


def test_a_layer_of_another_type_is_called(monkeypatch: pytest.MonkeyPatch):
    class Half(fs.MaxPool2x2):
        def __call__(self, x: mx.array) -> mx.array:
            return super().__call__(x) / 2

    class Shifted(fs.BatchNorm):
        def __call__(self, x: mx.array) -> mx.array:
            return super().__call__(x) + 1

    monkeypatch.setattr(runtime, "streams", lambda: 2)
    x = mx.random.normal((8, 4, 4, 3))
    expected = fs.MaxPool2x2()(fs.BatchNorm(3)(x) + 1) / 2
    assert mx.allclose(fs.Sequential(Shifted(3), Half())(x), expected, atol=1e-6)


def test_a_divided_batch_may_come_from_any_thread():
    code = """
import threading
import fewshot
from fewshot.compute import runtime
runtime.streams = lambda: 2
import mlx.core as mx, mlx.nn as nn
network = fewshot.Sequential(nn.Conv2d(2, 3, 3))
mx.eval(network.parameters())
def embed():
    mx.eval(network(mx.zeros((8, 5, 5, 2))))
    print("done", flush=True)
embed()
thread = threading.Thread(target=embed)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["done", "done"], done.stderr


@settings(max_examples=10)
@given(seed=seeds, batch=st.integers(1, 7), streams=st.integers(1, 3))
def test_covariances_beside_means_are_numpys(seed: int, batch: int, streams: int):
    maps = np.random.default_rng(seed).normal(size=(batch, 4, 3, 5)) + 1
    maps[0] = 0
    network = fs.Sequential(
        fs.Concatenated(
            fs.Sequential(nn.AvgPool2d((4, 3)), fs.Flatten()),
            fs.Sequential(fs.Covariance(5), fs.RootUnit()),
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "streams", lambda: streams)
        found = np.array(network(mx.array(maps.astype(np.float32))))
    for row, image in zip(found, maps.reshape(batch, 12, 5), strict=True):
        second = np.cov(image.T, bias=True)[np.triu_indices(5)]
        roots = np.sign(second) * np.sqrt(np.abs(second))
        length = np.linalg.norm(roots)
        expected = [*image.mean(axis=0), *(roots / length if length else roots)]
        np.testing.assert_allclose(row, expected, atol=1e-5)


@given(x=st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=5))
def test_a_root_of_unit_length_has_a_gradient_at_zeros(x: list[float]):
    gradient = mx.grad(lambda x: fs.RootUnit()(x).sum())(mx.array([x]))
    assert bool(mx.isfinite(gradient).all())

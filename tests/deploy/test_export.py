"""Exported networks compute what the classifier's own computes, and say what they cannot be."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.core.options import NoOptions
from fewshot.deploy.classifier import _of_recipe
from fewshot.deploy.recipe import Recipe
from fewshot.experiments.config import Chosen
from fewshot.parts.backbones import Beside
from fewshot.parts.embedder import EmbeddingOptions
from fewshot.parts.transforms import BlurOptions

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

CHANNELS = 3
SHAPE = (9, 8, CHANNELS)  # an odd side: pools cut it


class Network(nn.Module):
    """Any layers, as a plugin's backbone has them."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = fs.Sequential(*layers)
        self.embedding_dim = int(self(mx.zeros((2, *SHAPE))).shape[1])

    def __call__(self, images: mx.array) -> mx.array:
        return self.layers(images)


class Twice(Network):
    """Does more than its layers say."""

    def __call__(self, images: mx.array) -> mx.array:
        return 2 * super().__call__(images)


class Own(nn.Module):
    """A layer with a gradient of its own."""

    def __call__(self, x: mx.array) -> mx.array:
        @mx.custom_function
        def same(x: mx.array) -> mx.array:
            return 1 * x

        @same.vjp
        def back(x: mx.array, slope: mx.array, _: mx.array) -> mx.array:
            return slope

        return same(x)


def classifier(
    make: Callable[[], nn.Module],
    normalize: Any = "none",
    preprocess: tuple[Chosen, ...] = (Chosen("normalise", fs.NormaliseOptions()),),
    **after: Any,
) -> tuple[fs.Classifier, Registry]:
    """A classifier with this backbone, its norms as training leaves them, and who knows it."""
    registry = build_registry()[0]
    part = fs.Component("net", lambda options, shape: make())
    registry.add([Registered("backbone", part, "test", "1.0")])
    backbone = make()
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm):
            layer.running_mean = mx.random.normal(layer.running_mean.shape)
            layer.running_var = mx.random.uniform(0.2, 3, layer.running_var.shape)
    none = NoOptions()
    recipe = Recipe(
        shape=SHAPE,
        backbone=Chosen("test/net", none),
        preprocess=preprocess,
        embedding=EmbeddingOptions(normalize, **after),
        metric=Chosen("euclidean", none),
        head=Chosen("nearest-prototype", none),
        components={},
        weights={f"backbone.{k}": np.array(v) for k, v in tree_flatten(backbone.parameters())},
    )
    return _of_recipe(recipe, registry), registry


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "strided": lambda: nn.Conv2d(CHANNELS, CHANNELS, (3, 1), stride=(1, 2), padding=(1, 0)),
    "grouped, dilated": lambda: nn.Conv2d(
        CHANNELS, CHANNELS, 3, padding=2, dilation=2, groups=CHANNELS, bias=False
    ),
    "norm": lambda: fs.BatchNorm(CHANNELS),
    "mlx's norm": lambda: nn.BatchNorm(CHANNELS, affine=False),
    "relu": nn.ReLU,
    "pool": fs.MaxPool2x2,
    "mlx's pool": lambda: nn.MaxPool2d(3, 1, 1),
    "mean pool": lambda: nn.AvgPool2d(3, 1, 1),
    "dropout": lambda: nn.Dropout(0.5),
    "identity": nn.Identity,
    "pad": lambda: fs.Pad(0, 1, 2, 0),
    "relu6": fs.ReLU6,
    "depthwise": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS),
    "residual": lambda: fs.Residual(nn.Conv2d(CHANNELS, CHANNELS, 1), fs.BatchNorm(CHANNELS)),
    "around": lambda: fs.Residual(
        nn.Conv2d(CHANNELS, CHANNELS, 1), around=[nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU()]
    ),
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "nested": lambda: nn.Sequential(nn.ReLU(), nn.Identity()),
}


def network(names: list[str]) -> Network:
    """At most two pools and one stride, flattened, and two linear layers."""
    kept = [n for i, n in enumerate(names) if n not in ("pool", "strided") or n not in names[:i]]
    layers = [LAYERS[name]() for name in kept]
    features = Network([*layers, fs.Flatten()]).embedding_dim
    ends = [nn.Linear(features, 5), fs.BatchNorm(5), nn.Linear(5, 4, bias=False)]
    return Network([*layers, fs.Flatten(), *ends])


def test_pools_side_by_side_are_exported(tmp_path: Path):
    def make() -> Network:
        mean = fs.Sequential(nn.ReLU(), nn.AvgPool2d(SHAPE[:2]), fs.Flatten(), fs.RootUnit())
        depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1, groups=CHANNELS)
        second = fs.Sequential(depthwise, fs.Covariance(CHANNELS), fs.RootUnit())
        return Network([fs.Concatenated(mean, second)])

    for suffix in ("onnx", "mlxfn"):
        ours, registry = classifier(make, "l2")
        assert fs.export(ours, tmp_path / f"net.{suffix}", registry) <= 1e-4


@settings(max_examples=12)
@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), max_size=5),
    normalize=st.sampled_from(["none", "l2"]),
    crops=st.sampled_from(["one", "five"]),
    mirror=st.booleans(),
    power=st.sampled_from([1.0, 0.5]),
)
@pytest.mark.parametrize("suffix", ["onnx", "mlxfn"])
def test_an_exported_network_computes_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    names: list[str],
    normalize: str,
    crops: str,
    mirror: bool,
    power: float,
):
    path = tmp_path_factory.mktemp("export") / f"net.{suffix}"
    after = {"crops": crops, "mirror": mirror, "power": power}
    ours, registry = classifier(lambda: network(names), normalize, **after)
    assert fs.export(ours, path, registry) <= 1e-4
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    images = pixels.astype(np.float32) / np.float32(255)
    expected = np.array(ours._embeddings(pixels))
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(path)
        assert [each.name for each in session.get_inputs()] == ["images"]
        (found,) = session.run(["embeddings"], {"images": images})
    else:
        function: Any = mx.import_function(str(path))
        found = np.concatenate(
            [np.array(function(mx.array(images[i : i + 1]))[0]) for i in range(3)]
        )
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


# Other plugins test their own.
BACKBONES = [
    each
    for each in build_registry()[0].all("backbone")
    if each.provider in ("builtin", "asl") and each.name != "beside"  # which has none by itself
]


@pytest.mark.parametrize("entry", BACKBONES, ids=lambda entry: entry.qualified)
def test_every_backbone_there_is_can_be_exported(entry: Registered, tmp_path: Path):
    def make() -> Any:
        return entry.component.factory(entry.component.options(), (32, 32, 3))

    ours, registry = classifier(make, "l2")
    assert ours.recipe is not None
    recipe = evolve(ours.recipe, shape=(32, 32, 3))
    ours = _of_recipe(recipe, registry)
    for suffix in ("onnx", "mlxfn"):
        assert fs.export(ours, tmp_path / f"net.{suffix}", registry) <= 1e-4


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda: Network([nn.GELU(), fs.Flatten()]), "net.onnx", "layer GELU cannot be exported"),
        (lambda: Twice([fs.Flatten()]), "net.onnx", "do more than its `layers`"),
        (lambda: Network([Own(), fs.Flatten()]), "net.mlxfn", "Network: MLX cannot write it"),
        (lambda: Network([fs.Flatten()]), "net.pt", r"no format '\.pt'"),
        (lambda: Network([fs.Flatten()]), "none/net.onnx", "cannot be written"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_no_file(
    tmp_path: Path, make: Callable[[], nn.Module], name: str, message: str
):
    ours, registry = classifier(make)
    with pytest.raises(fs.FewshotError, match=message):
        fs.export(ours, tmp_path / name, registry)
    assert list(tmp_path.iterdir()) == []


def test_other_layers_and_deeds_can_be_exported_for_mlx(tmp_path: Path):
    def beside() -> Beside:
        return Beside({name: Network([fs.MaxPool2x2(), fs.Flatten()]) for name in "ab"})

    for make in (
        lambda: Network([nn.GELU(), fs.Flatten()]),
        lambda: Twice([fs.Flatten()]),
        beside,
    ):
        ours, registry = classifier(make)
        assert fs.export(ours, tmp_path / "net.mlxfn", registry) <= 1e-4


def test_a_transform_without_counterpart_is_named(tmp_path: Path):
    blur = (Chosen("blur", BlurOptions()),)
    ours, registry = classifier(lambda: Network([fs.Flatten()]), preprocess=blur)
    for suffix in ("onnx", "mlxfn"):
        with pytest.raises(fs.ConfigError, match="transform 'blur' cannot be exported"):
            fs.export(ours, tmp_path / f"net.{suffix}", registry)


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    ours, registry = classifier(lambda: Network([fs.Flatten()]))
    with pytest.raises(fs.ConfigError, match=r"pip install 'fewshot\[onnx\]'"):
        fs.export(ours, tmp_path / "net.onnx", registry)

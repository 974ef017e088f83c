"""An ONNX file computes the embeddings, whatever its layout, and is kept with what uses it."""

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot import ConfigError, DataError
from fewshot.catalogue.loading import build_registry
from fewshot.compute.compiling import compiling
from fewshot.experiments.config import resolve
from fewshot.experiments.run import run, trained
from fewshot.testing import check_backbone

pytest.importorskip("fewshot_pretrained", reason="the plugin fewshot-pretrained is not installed")

from fewshot_pretrained.networks import onnx_file
from fewshot_pretrained.networks.onnx_file import OnnxOptions

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(5, 3)).astype(np.float32)
BATCH = RNG.normal(size=(5, 6, 4, 3)).astype(np.float32)
MEANS = BATCH.mean(axis=(1, 2)) @ WEIGHT.T


def graph(
    path: Path,
    *,
    nhwc: bool = False,
    batch: Any = "batch",
    sides: Any = (6, 4),
    kind: str = "FLOAT",
    end: str = "mean",
    inputs: int = 1,
) -> OnnxOptions:
    """A 1x1 convolution by WEIGHT, and then the mean, tokens (positions in a row) or the map."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    value = partial(helper.make_tensor_value_info, elem_type=getattr(onnx.TensorProto, kind))
    shape = [batch, *sides, 3] if nhwc else [batch, 3, *sides]
    nodes = [helper.make_node("Cast", ["images"], ["cast"], to=onnx.TensorProto.FLOAT)]
    if nhwc:
        nodes.append(helper.make_node("Transpose", ["cast"], ["first"], perm=[0, 3, 1, 2]))
    nodes.append(helper.make_node("Conv", ["first" if nhwc else "cast", "weight"], ["map"]))
    constants = [numpy_helper.from_array(WEIGHT[:, :, None, None], "weight")]
    out: list[Any] = [batch, 5]
    if end == "mean":
        constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
        nodes.append(helper.make_node("ReduceMean", ["map", "axes"], ["out"], keepdims=0))
    elif end == "map":
        nodes.append(helper.make_node("Identity", ["map"], ["out"]))
        out = [batch, 5, None, None]
    else:
        constants.append(numpy_helper.from_array(np.array([0, 5, -1]), "shape"))
        nodes.append(helper.make_node("Reshape", ["map", "shape"], ["row"]))
        nodes.append(helper.make_node("Transpose", ["row"], ["out"], perm=[0, 2, 1]))
        out = [batch, None, 5]
    given = [value("images", shape=shape)] + [
        value(f"more{i}", shape=[1]) for i in range(1, inputs)
    ]
    outputs = [
        helper.make_tensor_value_info("map", onnx.TensorProto.FLOAT, [batch, 5, None, None]),
        helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, out),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "net", given, outputs[1:] if end == "map" else outputs, constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(made, str(path))
    return OnnxOptions(path=str(path))


def backbone(options: OnnxOptions, shape: Any = (6, 4, 3), **changed: Any) -> Any:
    import attrs

    return onnx_file.onnx(attrs.evolve(options, **changed), shape)


FORMS: dict[str, dict[str, Any]] = {
    "channels first": {},
    "channels last": {"nhwc": True},
    "any size": {"sides": ("h", "w")},
    "one at a time": {"batch": 1},
    "two at a time": {"batch": 2},
    "halves": {"kind": "FLOAT16"},
    "doubles": {"kind": "DOUBLE"},
}


@pytest.mark.parametrize("form", FORMS)
def test_input_and_output_are_found(form: str, tmp_path: Path):
    net = backbone(graph(tmp_path / "net.onnx", **FORMS[form]))
    assert net.embedding_dim == 5
    found = np.array(net(mx.array(BATCH)))
    np.testing.assert_allclose(found, MEANS, atol=5e-3 if form == "halves" else 1e-5)


def test_outputs_of_positions_are_pooled(tmp_path: Path):
    at_first = BATCH[:, 0, 0] @ WEIGHT.T
    for end, usual in (("map", MEANS), ("tokens", at_first)):
        options = graph(tmp_path / "net.onnx", end=end)
        for pool, expected in (("auto", usual), ("mean", MEANS), ("first", at_first)):
            changed = {"output": "out"} if end == "tokens" else {}
            found = backbone(options, pool=pool, **changed)(mx.array(BATCH))
            np.testing.assert_allclose(np.array(found), expected, atol=1e-5)
    named = backbone(graph(tmp_path / "net.onnx"), output="map", pool="first")
    np.testing.assert_allclose(np.array(named(mx.array(BATCH))), at_first, atol=1e-5)


def test_levels_are_rounded(tmp_path: Path):
    net = backbone(graph(tmp_path / "net.onnx", kind="UINT8"))
    found = np.array(net(mx.array(40 * BATCH)))
    levels = np.clip(np.round(40 * BATCH), 0, 255)
    np.testing.assert_allclose(found, levels.mean(axis=(1, 2)) @ WEIGHT.T, rtol=1e-4, atol=1e-3)


def test_grey_images_are_equal_red_green_and_blue(tmp_path: Path):
    net = backbone(graph(tmp_path / "net.onnx"), (6, 4, 1))
    grey = BATCH[..., :1]
    expected = np.repeat(grey, 3, axis=-1).mean(axis=(1, 2)) @ WEIGHT.T
    np.testing.assert_allclose(np.array(net(mx.array(grey))), expected, atol=1e-5)


def test_it_keeps_the_laws_of_a_backbone(tmp_path: Path):
    check_backbone(onnx_file.onnx, graph(tmp_path / "net.onnx", sides=(32, 32)))


def test_what_does_not_fit_is_said_in_a_line(tmp_path: Path):
    options = graph(tmp_path / "net.onnx")
    two = graph(tmp_path / "two.onnx", inputs=2)
    (tmp_path / "none.onnx").write_bytes(b"no model")

    def traced() -> None:
        with compiling():
            mx.compile(backbone(options))(mx.array(BATCH))

    cases: list[tuple[Any, str]] = [
        (lambda: backbone(OnnxOptions()), "--set backbone.path"),
        (lambda: backbone(OnnxOptions("no.onnx")), "No such file"),
        (lambda: backbone(OnnxOptions(str(tmp_path / "none.onnx"))), "cannot run it"),
        (lambda: backbone(options, (8, 8, 3)), "6x4, these are 8x8"),
        (lambda: backbone(options, (6, 4, 2)), "3 channels, these have 2"),
        (lambda: backbone(options, input="x"), "no input 'x': it has images"),
        (lambda: backbone(options, output="x"), r"no output 'x' to take: map \(4 axes\), out"),
        (lambda: backbone(two), "backbone.input=NAME"),
        (lambda: backbone(two, input="images"), "only images can be given"),
        (traced, "cannot trace it"),
        (lambda: backbone(OnnxOptions("hf://owner/file.onnx")), "is not hf://OWNER/REPOSITORY"),
    ]
    for ask, match in cases:
        with pytest.raises(ConfigError, match=match) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch):
    """With huggingface_hub it does not answer, without it the extra is named."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ConfigError, DataError), match=r"hub\]'|cannot be had") as caught:
        backbone(OnnxOptions("hf://owner/repository/file.onnx"))
    assert "\n" not in str(caught.value)


def test_runs_and_classifiers_need_the_file_no_longer(tmp_path: Path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (36, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.repeat(np.arange(6), 6))
    options = graph(tmp_path / "net.onnx", sides=(8, 8))
    registry = build_registry()[0]
    tree = {
        "dataset": {"name": "arrays", "path": str(tmp_path / "data.npz")},
        "backbone": {"name": "onnx", "path": options.path},
        "split": {"test": ["0", "1"]},
        "head": {"name": "nearest-prototype"},
        "training": {"steps": 0},
        "evaluation": {"k_shot": [1], "n_query": 2, "episodes": 3, "n_way": [2]},
    }
    config = resolve(registry, [tree])
    folder = run(config, registry, tmp_path / "run")
    network = trained(folder, registry).embedder.backbone
    expected = np.array(network(mx.array(images[:3].astype(np.float32))))
    classifier = fs.Classifier.load(folder).enrol({"a": images[:3], "b": images[6:9]})
    classifier.save(tmp_path / "mine.fewshot")
    told = [each.facts() for each in classifier.predict(images[9:14])]

    (tmp_path / "net.onnx").rename(tmp_path / "elsewhere.onnx")
    again = fs.Classifier.load(tmp_path / "mine.fewshot")
    assert [each.facts() for each in again.predict(images[9:14])] == told
    network = trained(folder, registry).embedder.backbone
    assert np.array_equal(np.array(network(mx.array(images[:3].astype(np.float32)))), expected)
    assert not tree_flatten(network.trainable_parameters())
    fs.Classifier.load(folder).enrol({"c": images[12:15]})


@pytest.mark.parametrize("engine", ["auto", "onnx", "mlx"])
def test_no_other_engine_is_looked_for(engine, tmp_path):
    options = graph(tmp_path / "net.onnx")
    embedder = fs.Embedder(onnx_file.onnx(options, (6, 4, 3)), preprocess=(), normalize="none")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 3), np.uint8)
    data = fs.from_arrays(pixels, np.zeros(3, int))
    due = (pixels / np.float32(255)).mean(axis=(1, 2)) @ WEIGHT.T
    np.testing.assert_allclose(fs.embed(embedder, data, engine=engine), due, atol=1e-5)
    images = {name: pixels[i : i + 1] for i, name in enumerate("abc")}
    assert attrs.evolve(fs.Classifier.of(embedder, images), engine=engine).ready() == ""

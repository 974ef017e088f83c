"""An embedding network for other programs: as ONNX, or as an MLX function.

Both take images (batch, h, w, c) float32 in [0, 1], upright and scaled to h x w, and give
embeddings (batch, d); `preprocess`, five crops, the centre and l2 normalisation are part of them.
"""

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ..catalogue.loading import build_registry
from ..catalogue.registry import Registry
from ..compute.layers import BatchNorm, Flatten, MaxPool2x2, Pad, ReLU6, Residual, Sequential
from ..core.errors import ConfigError, OutputError, choose_from
from ..core.files import replacing
from ..core.seeding import generator
from ..parts.embedder import Embedder, crop_matrices
from ..parts.transforms import NormaliseOptions
from .classifier import Classifier
from .recipe import Recipe, remade

TOLERANCE = 1e-4  # of the largest number in an embedding

BATCHES = (1, 32)  # that an MLX function is written for: its shapes are fixed

_OPSET, _IR = 17, 8  # ONNX 1.12: what current and older runtimes read


def export(classifier: Classifier, path: str | Path, registry: Registry | None = None) -> float:
    """Write the embedding network as `.onnx` or `.mlxfn`; the largest error found in it.

    Written, run on a few images, compared with the network, and only then given its name. `.onnx`
    needs the extra `onnx`. Raises ConfigError for another suffix, and a layer or transform that has
    no counterpart; OutputError where the file cannot be written or computes something else.
    """
    path = Path(path)
    writers = {".onnx": _write_onnx, ".mlxfn": _write_mlxfn}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: no format '{path.suffix}': {choose_from(path.suffix, writers)}")
    if classifier.recipe is None:
        raise ConfigError("this classifier was made of parts without names: load one from a run")
    recipe = classifier.recipe
    registry = build_registry()[0] if registry is None else registry
    embedder = remade(recipe, registry)[0]
    embedder.backbone.eval()
    images = generator(0, "export").random((BATCHES[-1], *recipe.shape), np.float32)
    expected = np.array(embedder(mx.array(_normalised(recipe, images))))
    try:
        with replacing(path) as temporary:
            run = writers[path.suffix](embedder, recipe, temporary)
            found = np.concatenate([run(images[:1]), run(images)[1:]])
            error = float(np.abs(found - expected).max() / np.abs(expected).max())
            if not error <= TOLERANCE:
                raise OutputError(
                    f"{path}: not written: its embeddings are {error:.1e} away from the network's; "
                    "does the backbone do more than its `layers`?"
                )
    except OSError as problem:
        raise OutputError(f"{path}: cannot be written: {problem.strerror}") from problem
    return error


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _normalisations(recipe: Recipe) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean and standard deviation, (c,) or (1,), of every transform of `preprocess`."""
    for chosen in recipe.preprocess:
        if not isinstance(chosen.options, NormaliseOptions):
            raise ConfigError(f"transform '{chosen.name}' cannot be exported, only normalise can")
        yield np.array(chosen.options.mean, np.float32), np.array(chosen.options.std, np.float32)


def _normalised(recipe: Recipe, images: Any) -> Any:
    for mean, std in _normalisations(recipe):
        images = (images - mean) / std
    return images


# ---------------------------------------------------------------------------------- MLX


def _write_mlxfn(embedder: Embedder, recipe: Recipe, path: Path) -> Run:
    plain = evolve(embedder, backbone=_plain(embedder.backbone))

    def embed(images: mx.array) -> mx.array:
        for mean, std in _normalisations(recipe):
            images = (images - mx.array(mean)) / mx.array(std)
        return plain(images)

    with mx.exporter(str(path), embed) as exporter:
        for batch in BATCHES:
            exporter(mx.zeros((batch, *recipe.shape)))
    function: Any = mx.import_function(str(path))
    return lambda images: np.array(function(mx.array(images))[0])


def _plain(module: Any) -> Any:
    """The same layers without what MLX cannot write: our own gradient, and streams."""
    if isinstance(module, MaxPool2x2):
        return nn.MaxPool2d(2)
    if isinstance(module, Sequential):
        return nn.Sequential(*map(_plain, module.layers)).eval()
    mine = copy(module)
    for name, child in module.children().items():
        if isinstance(child, nn.Module):
            mine[name] = _plain(child)
    return mine


# --------------------------------------------------------------------------------- ONNX


def _write_onnx(embedder: Embedder, recipe: Recipe, path: Path) -> Run:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "ONNX needs the extra `onnx`: pip install 'fewshot[onnx]' (or export .mlxfn)"
        ) from error
    layers = getattr(embedder.backbone, "layers", None)
    if not isinstance(layers, nn.Sequential):
        raise ConfigError(
            f"backbone '{recipe.backbone.name}' is not one Sequential called `layers`: it cannot "
            "be exported as ONNX (.mlxfn can)"
        )
    graph = _Graph(onnx, "images")
    for mean, std in _normalisations(recipe):
        graph.add("Sub", graph.constant(mean))
        graph.add("Div", graph.constant(std))
    graph.add("Transpose", perm=[0, 3, 1, 2])
    height, width, channels = recipe.shape
    d = embedder.backbone.embedding_dim

    def reshape(*shape: int) -> None:
        graph.add("Reshape", graph.constant(np.array(shape, np.int64)))

    def scale() -> None:
        if embedder.normalize == "l2":
            graph.add("LpNormalization", axis=-1, p=2)

    five = embedder.crops == "five"
    if five:
        down, across = crop_matrices(height, False), crop_matrices(width, True)
        graph.add("MatMul", graph.constant(across.swapaxes(1, 2)[:, None, None]))
        graph.add("MatMul", graph.constant(down[:, None, None]), last=True)
        reshape(-1, channels, height, width)
    _layers(graph, layers)
    if embedder.centre is not None:
        graph.add("Sub", graph.constant(embedder.centre.mean))
    scale()
    if five:
        reshape(5, -1, d)
        graph.add("ReduceMean", axes=[0], keepdims=0)
        scale()
    graph.add("Identity", output="embeddings")
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "embedder",
            [value("images", shape=["batch", *recipe.shape])],
            [value("embeddings", shape=["batch", d])],
            graph.constants,
            doc_string="images (batch, h, w, c) in [0, 1], upright, scaled to h x w",
        ),
        producer_name="fewshot",
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


class _Graph:
    """Nodes in a row, each taking what the last one gave."""

    def __init__(self, onnx: Any, value: str) -> None:
        self.onnx, self.value = onnx, value
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(array), name))
        return name

    def add(
        self,
        kind: str,
        *more: str,
        output: str | None = None,
        last: bool = False,
        **attributes: Any,
    ) -> None:
        """`last`: what the last node gave comes after `more`, not before."""
        output = output or f"v{len(self.nodes)}"
        inputs = [*more, self.value] if last else [self.value, *more]
        node = self.onnx.helper.make_node(kind, inputs, [output], **attributes)
        self.nodes.append(node)
        self.value = output


def _layers(graph: _Graph, sequence: nn.Sequential) -> None:
    for layer in sequence.layers:
        if isinstance(layer, nn.Sequential):
            _layers(graph, layer)
        elif isinstance(layer, Residual):
            before = graph.value
            _layers(graph, layer.branch)
            graph.add("Add", before)
        elif type(layer) in _COUNTERPARTS:
            _COUNTERPARTS[type(layer)](graph, layer)
        else:
            names = ", ".join(sorted({kind.__name__ for kind in _COUNTERPARTS}))
            raise ConfigError(
                f"layer {type(layer).__name__} cannot be exported as ONNX (.mlxfn can); valid: "
                f"{names}"
            )


def _convolution(graph: _Graph, layer: Any) -> None:
    """Weights (o, h, w, i) here, (o, i, h, w) there."""
    constants = [graph.constant(mx.moveaxis(layer.weight, -1, 1))]
    constants += [graph.constant(layer.bias)] if "bias" in layer else []
    graph.add(
        "Conv",
        *constants,
        strides=_pair(layer.stride),
        pads=2 * _pair(layer.padding),
        dilations=_pair(layer.dilation),
        group=layer.groups,
    )


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _norm(graph: _Graph, layer: Any) -> None:
    ones = mx.ones_like(layer.running_mean)
    parts = (layer.get("weight", ones), layer.get("bias", 0 * ones))
    constants = map(graph.constant, (*parts, layer.running_mean, layer.running_var))
    graph.add("BatchNormalization", *constants, epsilon=layer.eps)


def _pool(kind: str, graph: _Graph, layer: Any) -> None:
    pads = [side for _, side in layer._padding]
    options: dict[str, Any] = {} if kind == "MaxPool" else {"count_include_pad": 1}
    graph.add(
        kind,
        kernel_shape=list(layer._kernel_size),
        strides=list(layer._stride),
        pads=[low for low, _ in layer._padding] + pads,
        **options,
    )


def _pad(graph: _Graph, layer: Any) -> None:
    _, (above, below), (left, right), _ = layer.widths
    pads = np.array([0, 0, above, left, 0, 0, below, right], np.int64)
    graph.add("Pad", graph.constant(pads))


def _relu6(graph: _Graph, _: Any) -> None:
    graph.add("Clip", *(graph.constant(np.float32(bound)) for bound in (0, 6)))


def _flatten(graph: _Graph, _: Any) -> None:
    """Channels last, as the linear layer after it was trained."""
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Flatten")


def _linear(graph: _Graph, layer: Any) -> None:
    bias = [graph.constant(layer.bias)] if "bias" in layer else []
    graph.add("Gemm", graph.constant(layer.weight), *bias, transB=1)


_COUNTERPARTS: dict[type, Callable[[_Graph, Any], None]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm: _norm,
    BatchNorm: _norm,
    nn.ReLU: lambda graph, _: graph.add("Relu"),
    nn.ReLU6: _relu6,
    ReLU6: _relu6,
    Pad: _pad,
    MaxPool2x2: lambda graph, _: graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    nn.MaxPool2d: partial(_pool, "MaxPool"),
    nn.AvgPool2d: partial(_pool, "AveragePool"),
    Flatten: _flatten,
    nn.Linear: _linear,
    nn.Dropout: lambda graph, _: None,
    nn.Identity: lambda graph, _: None,
}

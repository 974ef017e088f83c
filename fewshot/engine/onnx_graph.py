"""An embedder as an ONNX model, layer by layer, and what ONNX Runtime makes of it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from ..compute.layers import (
    Affine,
    BatchNorm,
    Concatenated,
    Covariance,
    FixedLinear,
    Flatten,
    MaxPool2x2,
    MeanPool,
    Pad,
    ReLU6,
    Residual,
    RootUnit,
    upper,
)
from ..core.errors import ConfigError
from ..data.images import Shape
from ..parts.embedder import Embedder

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

_OPSET, _IR = 17, 8  # ONNX 1.12: what current and older runtimes read


def session(model: bytes, threads: int = 0) -> Run:
    """ONNX Runtime's function of a model's images, on the CPU; 0 threads: as it chooses."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
    return lambda images: made.run(None, {"images": images})[0]


def onnx_model(
    embedder: Embedder, shape: Shape, normalisations: Sequence[tuple[Any, Any]] = ()
) -> bytes:
    """An embedder in eval mode, of images of `shape` (h, w, c), as the bytes of an ONNX file.

    `normalisations`: mean and deviation of each that images in [0, 1] get first; without any they
    come prepared. Raises ConfigError for a layer that has no counterpart, ImportError without the
    extra `onnx`.
    """
    import onnx

    layers = getattr(embedder.backbone, "layers", None)
    if not isinstance(layers, nn.Sequential):
        raise ConfigError(
            f"backbone {type(embedder.backbone).__name__} is not one Sequential called `layers`: "
            "it cannot be exported as ONNX (.mlxfn can)"
        )
    graph = _Graph(onnx, "images")
    for mean, std in normalisations:
        graph.add("Sub", graph.constant(mean))
        graph.add("Div", graph.constant(std))
    graph.add("Transpose", perm=[0, 3, 1, 2])
    height, width, channels = shape
    d = embedder.backbone.embedding_dim

    def reshape(*shape: int) -> None:
        graph.add("Reshape", graph.constant(np.array(shape, np.int64)))

    def scale() -> None:
        if embedder.normalize == "l2":
            graph.add("LpNormalization", axis=-1, p=2)

    if embedder.views > 1:
        down, across = embedder.view_matrices(height, width)
        graph.add("MatMul", graph.constant(across.swapaxes(1, 2)[:, None, None]))
        graph.add("MatMul", graph.constant(down[:, None, None]), last=True)
        reshape(-1, channels, height, width)
    _layers(graph, layers)
    if embedder.power != 1:
        signed = graph.value
        graph.add("Sign")
        sign, graph.value = graph.value, signed
        graph.add("Abs")
        graph.add("Pow", graph.constant(np.float32(embedder.power)))
        graph.add("Mul", sign)
    if embedder.centre is not None:
        graph.add("Sub", graph.constant(embedder.centre.mean))
        if "within" in embedder.centre:
            centred, within = graph.value, embedder.centre.within
            graph.add("MatMul", graph.constant(within))
            graph.add("MatMul", graph.constant(within.T))
            graph.add("Neg")
            graph.add("Add", centred)
    scale()
    if embedder.views > 1:
        reshape(embedder.views, -1, d)
        graph.add("ReduceMean", axes=[0], keepdims=0)
        scale()
    graph.add("Identity", output="embeddings")
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "embedder",
            [value("images", shape=["batch", *shape])],
            [value("embeddings", shape=["batch", d])],
            graph.constants,
            doc_string="images (batch, h, w, c) in [0, 1], upright, scaled to h x w",
        ),
        producer_name="fewshot",
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


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
            before = kept = graph.value
            if "around" in layer:
                _layers(graph, layer.around)
                kept, graph.value = graph.value, before
            _layers(graph, layer.branch)
            graph.add("Add", kept)
        elif isinstance(layer, Concatenated):
            _concatenated(graph, layer)
        elif type(layer) in _COUNTERPARTS:
            _COUNTERPARTS[type(layer)](graph, layer)
        else:
            names = ", ".join(sorted({kind.__name__ for kind in _COUNTERPARTS}))
            raise ConfigError(
                f"layer {type(layer).__name__} cannot be exported as ONNX (.mlxfn can); valid: "
                f"{names}"
            )


def _concatenated(graph: _Graph, layer: Concatenated) -> None:
    """Every branch from the same value."""
    before, made = graph.value, []
    for branch in layer.branches:
        graph.value = before
        _layers(graph, branch)
        made.append(graph.value)
    graph.value = made[0]
    graph.add("Concat", *made[1:], axis=-1)


def _covariance(graph: _Graph, layer: Any) -> None:
    """Channels first here, so that a map is its matrix (c, h w)."""
    graph.add("Reshape", graph.constant(np.array([0, 0, -1], np.int64)))
    places = graph.value
    graph.add("ReduceMean", axes=[2], keepdims=1)
    graph.add("Sub", places, last=True)
    centred = graph.value
    graph.add("Transpose", perm=[0, 2, 1])
    graph.add("MatMul", centred, last=True)
    products, graph.value = graph.value, places
    graph.add("Shape", start=2)
    graph.add("Cast", to=graph.onnx.TensorProto.FLOAT)
    graph.add("Div", products, last=True)
    graph.add("Flatten")
    graph.add("Gather", graph.constant(upper(layer.channels)), axis=1)


def _root_unit(graph: _Graph, _: Any) -> None:
    before = graph.value
    graph.add("Sign")
    signs, graph.value = graph.value, before
    graph.add("Abs")
    graph.add("Sqrt")
    graph.add("LpNormalization", axis=-1, p=2)
    graph.add("Mul", signs)


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


def _affine(graph: _Graph, layer: Any) -> None:
    """As batch norm about 0 with a spread of 1: channels are the second axis, flattened or not."""
    ones = mx.ones_like(layer.shift)
    scale = ones if layer.scale is None else layer.scale
    constants = map(graph.constant, (scale, layer.shift, 0 * ones, ones))
    graph.add("BatchNormalization", *constants, epsilon=0.0)


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


def _mean(graph: _Graph, _: Any) -> None:
    graph.add("GlobalAveragePool")
    graph.add("Flatten")


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
    Affine: _affine,
    nn.ReLU: lambda graph, _: graph.add("Relu"),
    nn.ReLU6: _relu6,
    ReLU6: _relu6,
    Pad: _pad,
    MeanPool: _mean,
    nn.LeakyReLU: lambda graph, layer: graph.add("LeakyRelu", alpha=layer._negative_slope),
    Covariance: _covariance,
    RootUnit: _root_unit,
    MaxPool2x2: lambda graph, _: graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    nn.MaxPool2d: partial(_pool, "MaxPool"),
    nn.AvgPool2d: partial(_pool, "AveragePool"),
    Flatten: _flatten,
    nn.Linear: _linear,
    FixedLinear: _linear,
    nn.Dropout: lambda graph, _: None,
    nn.Identity: lambda graph, _: None,
}

"""What is done to any `mlx.nn` module: count, copy, remember, put into eval mode."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

Row = tuple[str, str, int]


def parameter_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer by name."""
    return {name: array.shape for name, array in snapshot(module)}


def late_parameters(module: nn.Module, before: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of parameters that came, went or changed shape since `parameter_shapes`."""
    return sorted({name for name, _ in before.items() ^ parameter_shapes(module).items()})


def parameter_count(module: nn.Module) -> int:
    """How many numbers training changes."""
    arrays: Any = tree_flatten(module.trainable_parameters())
    return sum(array.size for _, array in arrays)


def parameter_bytes(module: nn.Module) -> int:
    """What its parameters and buffers take, made or not yet: MLX makes them when they are used."""
    return sum(math.prod(array.shape) * array.itemsize for _, array in snapshot(module))


def is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters and training changes none of them.

    Batch norm without weights of its own is what the module around it is.
    """
    if isinstance(module, nn.BatchNorm) and "weight" not in module:
        return False
    return bool(tree_flatten(module.parameters())) and not parameter_count(module)


def snapshot(model: nn.Module) -> list[tuple[str, mx.array]]:
    """All parameters and buffers; arrays do not change, so this is a snapshot."""
    return tree_flatten(model.parameters())  # type: ignore[return-value]


def copied(part: Any) -> Any:
    """A module with modules and arrays of its own, all the way down: training it changes no other.

    `copy.deepcopy` stops at MLX's functions.
    """
    if isinstance(part, nn.Module):
        mine = copy(part)
        mine._no_grad = set(part._no_grad)
        for name, value in part.items():
            mine[name] = copied(value)
        return mine
    if isinstance(part, list):
        return [copied(value) for value in part]
    if isinstance(part, dict):
        return {name: copied(value) for name, value in part.items()}
    return mx.array(part) if isinstance(part, mx.array) else part


def layer_table(backbone: nn.Module, shape: tuple[int, int, int]) -> list[Row]:
    """(layer, output shape, parameters) from input to embedding.

    Shapes are known where the backbone is one `nn.Sequential` called `layers`; another backbone
    lists its innermost modules with their parameters.
    """

    def text(x: mx.array) -> str:
        return " x ".join(str(n) for n in x.shape[1:])

    x = mx.zeros((1, *shape))
    rows: list[Row] = [("images", text(x), 0)]
    backbone.eval()
    sequence = getattr(backbone, "layers", None)
    if isinstance(sequence, nn.Sequential):
        y = x
        for layer in sequence.layers:
            y = layer(y)
            rows.append((type(layer).__name__, text(y), parameter_count(layer)))
    else:
        rows += [
            (f"{name}: {type(leaf).__name__}", "", parameter_count(leaf))
            for name, leaf in backbone.named_modules()
            if not leaf.children()
        ]
    return [*rows, ("embedding", text(backbone(x)), 0)]


@contextmanager
def evaluating(*parts: Any) -> Iterator[None]:
    """Eval mode inside for all parts that are modules, every sub-module's own mode afterwards."""
    modules = [part for part in parts if isinstance(part, nn.Module)]
    # Parents come first.
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.train(mode)


def in_float16(module: nn.Module, images: mx.array) -> mx.array:
    """What a module makes of images (b, …) in half precision, as float32; its weights stay."""
    weights = module.parameters()
    module.update(tree_map(_halved, weights))
    try:
        return module(_halved(images)).astype(mx.float32)
    finally:
        module.update(weights)


def _halved(array: mx.array) -> mx.array:
    return array.astype(mx.float16) if mx.issubdtype(array.dtype, mx.floating) else array

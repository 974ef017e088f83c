"""An embedding network for other programs: as ONNX, or as an MLX function.

Both take images (batch, h, w, c) float32 in [0, 1], upright and scaled to h x w, and give
embeddings (batch, d); `preprocess`, all views, the centre and l2 normalisation are part of them.
"""

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ..catalogue.loading import build_registry
from ..catalogue.registry import Registry
from ..compute.layers import MaxPool2x2, Sequential
from ..core.errors import ConfigError, OutputError, choose_from, one_line
from ..core.files import replacing
from ..core.seeding import generator
from ..engine.onnx_graph import Run, onnx_model, session
from ..parts.embedder import Embedder
from ..parts.transforms import NormaliseOptions
from .classifier import Classifier
from .recipe import Recipe, remade

TOLERANCE = 1e-4  # of the largest number in an embedding

BATCHES = (1, 32)  # that an MLX function is written for: its shapes are fixed


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
    embedder = evolve(remade(recipe, registry)[0], precision="float32")  # as all runtimes have it
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

    try:
        with mx.exporter(str(path), embed) as exporter:
            for batch in BATCHES:
                exporter(mx.zeros((batch, *recipe.shape)))
    except ValueError as error:  # such as for a gradient of the backbone's own
        raise ConfigError(
            f"backbone {type(embedder.backbone).__name__}: MLX cannot write it: {one_line(error)}"
        ) from error
    function: Any = mx.import_function(str(path))
    return lambda images: np.array(function(mx.array(images))[0])


def _plain(part: Any) -> Any:
    """The same layers without what MLX cannot write: our own gradient, and streams."""
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if type(part) is dict:
        return {name: _plain(each) for name, each in part.items()}
    if not isinstance(part, nn.Module):
        return part
    if isinstance(part, MaxPool2x2):
        return nn.MaxPool2d(2)
    if isinstance(part, Sequential):
        return nn.Sequential(*map(_plain, part.layers)).eval()
    mine = copy(part)
    for name, each in part.items():
        mine[name] = _plain(each)
    return mine


# --------------------------------------------------------------------------------- ONNX


def _write_onnx(embedder: Embedder, recipe: Recipe, path: Path) -> Run:
    try:
        model = onnx_model(embedder, recipe.shape, tuple(_normalisations(recipe)))
        run = session(model)
    except ImportError as error:
        raise ConfigError(
            "ONNX needs the extra `onnx`: pip install 'fewshot[onnx]' (or export .mlxfn)"
        ) from error
    path.write_bytes(model)
    return run

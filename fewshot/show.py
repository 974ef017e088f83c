"""Pictures of one component: a backbone's layers, a data set's examples."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from . import pictures
from .assembly import make
from .core.errors import ConfigError
from .registry import Registered
from .training import parameter_count

Row = tuple[str, str, int]


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


def draw(entry: Registered, options: Any, path: Path, size: int) -> None:
    """Save a picture of a backbone (for size x size RGB images) or a data set.

    Raises ConfigError for another kind, OutputError where the file cannot be written.
    """
    if entry.kind == "backbone":
        shape = (size, size, 3)
        pictures.layers(entry.name, layer_table(make(entry, options, shape), shape), path)
    elif entry.kind == "dataset":
        pictures.examples(make(entry, options), path)
    else:
        raise ConfigError(f"--save draws a backbone or a dataset, not a {entry.kind}")

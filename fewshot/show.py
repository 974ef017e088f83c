"""Pictures of one component: a backbone's layers, a data set's examples."""

from pathlib import Path
from typing import Any

from .catalogue.registry import Registered, make
from .compute.modules import layer_table
from .core.errors import ConfigError
from .reports import pictures


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

"""Weights on disk."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..compute.modules import snapshot
from ..core.errors import OutputError
from ..core.files import replacing, require_sha256

WEIGHTS = "weights.safetensors"
INITIAL = "initial.safetensors"  # before training, of parts with weights from elsewhere


def save_weights(module: nn.Module, path: Path, without: Collection[str] = ()) -> str:
    """Save parameters and buffers as safetensors, atomically; returns the file's SHA-256.

    All but those `without`, by name.
    """
    weights = {name: array for name, array in snapshot(module) if name not in without}
    try:
        with replacing(path) as temporary:
            mx.save_safetensors(str(temporary), weights)
            with temporary.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: weights cannot be written: {error}") from error


def load_weights(module: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Load what `save_weights` saved. Raises OutputError for a damaged or unfitting file."""
    fill(module, read_weights(path, sha256), f"{path}: the weights")


def fill(module: nn.Module, weights: Mapping[str, mx.array], called: str = "the weights") -> None:
    """Put weights into a module. Raises OutputError, so calling them, where they do not fit."""
    try:
        module.load_weights(list(weights.items()))
        mx.eval(module.parameters())
    except (ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise OutputError(f"{called} do not fit: {line}") from error


def read_weights(path: Path, sha256: str | None = None) -> dict[str, mx.array]:
    """What `save_weights` saved, by name. Raises OutputError for a damaged file."""
    require_sha256(path, sha256)
    try:
        weights: Any = mx.load(str(path))
        mx.eval(weights)  # loading is lazy
    except (RuntimeError, ValueError, KeyError) as error:
        raise OutputError(f"{path}: not weights: {error}") from error
    return weights

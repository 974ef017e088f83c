"""Weights on disk."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..compute.modules import snapshot
from ..core.errors import OutputError, one_line
from ..core.files import replacing, require_sha256

WEIGHTS = "weights.safetensors"
INITIAL = "initial.safetensors"  # before training, of parts with weights from elsewhere

# What a damaged file comes to where it is read: any length, number or type may be in it. A
# RecursionError is a RuntimeError.
DAMAGE = (RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


def save_weights(module: nn.Module, path: Path, without: Collection[str] = ()) -> str:
    """Save parameters and buffers as safetensors, atomically; returns the file's SHA-256.

    All but those `without`, by name. The file holds a digest of them: those of a run that was
    killed are told of nowhere else.
    """
    weights = {name: array for name, array in snapshot(module) if name not in without}
    try:
        with replacing(path) as temporary:
            mx.save_safetensors(str(temporary), weights, {"sha256": digest_of(weights)})
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
    """What `save_weights` saved, by name, or another's safetensors.

    Raises OutputError for a damaged file.
    """
    require_sha256(path, sha256)
    try:
        weights, about = arrays_of(path)
        damaged = about.get("sha256") not in (None, digest_of(weights))
    except DAMAGE as error:
        raise OutputError(f"{path}: not weights: {one_line(error)}") from error
    if damaged:
        raise OutputError(f"{path}: damaged: the SHA-256 of its weights is not the one in it")
    return weights


def arrays_of(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """The arrays of a safetensors file, and what it tells of them. Raises any of `DAMAGE`."""
    loaded: Any = mx.load(str(path), return_metadata=True)
    mx.eval(loaded[0])  # loading is lazy
    return loaded[0], loaded[1]


def digest_of(arrays: Mapping[str, mx.array], facts: str = "") -> str:
    """Of facts and of every array: its name, type, shape and bytes."""
    found = hashlib.sha256(facts.encode())
    for name, array in sorted(arrays.items()):
        found.update(f"\n{name} {array.dtype} {array.shape} ".encode())
        found.update(memoryview(array.reshape(-1).view(mx.uint8)))  # type: ignore[arg-type]
    return found.hexdigest()

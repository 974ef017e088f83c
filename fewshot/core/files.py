"""What a run leaves on disk: files whole or not there at all, metrics line by line."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import Tree, read_toml
from .errors import OutputError

WEIGHTS = "weights.safetensors"


def new_folder(parent: Path, prefix: str = "") -> Path:
    """A fresh folder `parent/prefix0001`, the next free number. Raises OutputError."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / f"{prefix}{number:04d}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise OutputError(f"{parent}: cannot make a folder there: {error.strerror}") from error


def named_folder(folder: Path) -> Path:
    """Make exactly this folder. Raises OutputError where it exists or cannot be made."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise OutputError(f"{folder} exists: name another --out, or leave it out") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file of text atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a reader, or a crash, sees the old one or the new one."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path for a file that becomes `path` when all went well, and is on disk by then.

    Raises OSError where it cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises OutputError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: not readable: {error}") from error


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one record to a JSON-lines file, on disk when this returns.

    Several processes may append; what a crash cut short is left as a line of its own.
    """
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            whole = file.read() in (b"", b"\n")
            file.write(f"{'' if whole else chr(10)}{json.dumps(value)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def read_lines(path: Path) -> list[Any]:
    """The records of a JSON-lines file, but for lines that a crash cut short; none: no file."""
    records = []
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise OutputError(f"{path}: not readable: {error.strerror}") from error
    for line in lines:
        with suppress(ValueError):
            records.append(json.loads(line))
    return records


def require_sha256(path: Path, sha256: str | None) -> None:
    """Raise OutputError where a weights file cannot be read or has another SHA-256; None: any."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise OutputError(f"{path}: weights cannot be read: {error.strerror}") from error
    if sha256 is not None and found != sha256:
        raise OutputError(f"{path}: damaged: its SHA-256 is not the one in the manifest")


def save_weights(module: nn.Module, path: Path) -> str:
    """Save all parameters and buffers as safetensors, atomically; returns the file's SHA-256."""
    try:
        with replacing(path) as temporary:
            module.save_weights(str(temporary))
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
        raise OutputError(f"{called} do not fit: {error}") from error


def run_config(folder: Path) -> Tree:
    """The configuration of a run folder as a layer. Raises OutputError where it is none."""
    path = folder / "config.toml"
    if not path.is_file():
        raise OutputError(f"{folder}: not a run folder (it has no config.toml)")
    return read_toml(path)


def run_weights(folder: Path) -> dict[str, mx.array]:
    """A run's weights by name. Raises OutputError where it has none yet or damaged ones."""
    manifest = read_json(folder / "manifest.json")
    path = folder / WEIGHTS
    if not path.is_file():
        raise OutputError(f"{folder}: no weights yet (its status: {manifest.get('status')})")
    return read_weights(path, manifest.get("weights_sha256"))


def read_weights(path: Path, sha256: str | None = None) -> dict[str, mx.array]:
    """What `save_weights` saved, by name. Raises OutputError for a damaged file."""
    require_sha256(path, sha256)
    try:
        weights: Any = mx.load(str(path))
        mx.eval(weights)  # loading is lazy
    except (RuntimeError, ValueError, KeyError) as error:
        raise OutputError(f"{path}: not weights: {error}") from error
    return weights

"""What a run leaves on disk: files whole or not there at all, metrics line by line."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import OutputError


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

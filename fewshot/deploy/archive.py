"""A document and arrays in one file that is whole or refused: safetensors, TOML as its metadata.

The file's metadata begin with the SHA-256 of the whole file, its own 64 digits taken as zeros: no
byte can change unnoticed. Nothing in it is compressed or executed and no offset is believed, so a
hostile file costs no more memory than its own size, which is limited.
"""

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import OutputError
from ..core.files import write_bytes
from ..core.reading import bounded

LARGEST = 1 << 30  # bytes of a file

_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "I64": np.dtype("<i8"),
}
_BEGINNING = b'{"__metadata__":{"sha256":"'
_DIGEST_AT = 8 + len(_BEGINNING)


def write(path: Path, document: str, arrays: Mapping[str, NDArray[Any]], new: bool = False) -> str:
    """Write a file atomically; float32, uint8 and int64 arrays. The same content, the same bytes.

    Returns the SHA-256 that it holds. Raises OutputError where it cannot be written, would be too
    large or, if it is to be `new`, is there already.
    """
    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"sha256": "0" * 64, "document": document}}
    blocks, end = [], 0
    for name, array in arrays.items():
        blocks.append(np.ascontiguousarray(array).tobytes())
        start, end = end, end + len(blocks[-1])
        header[name] = {
            "dtype": names[array.dtype],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    content = b"".join([len(head).to_bytes(8, "little"), head, *blocks])
    if len(content) > LARGEST:
        raise OutputError(f"{path}: {len(content)} bytes are more than the {LARGEST} allowed")
    digest = _digest(content)
    write_bytes(path, content[:_DIGEST_AT] + digest.encode() + content[_DIGEST_AT + 64 :], new)
    return digest


def read(path: Path) -> tuple[str, dict[str, NDArray[Any]], str]:
    """What `write` wrote, and the SHA-256 it holds.

    Raises OutputError for a file that is missing, of another kind or damaged.
    """
    content = bounded(path, LARGEST, OutputError)
    if content[8:_DIGEST_AT] != _BEGINNING:
        raise OutputError(f"{path}: not a classifier file")
    digest = _digest(content)
    if content[_DIGEST_AT : _DIGEST_AT + 64] != digest.encode():
        raise OutputError(f"{path}: damaged or cut off: its SHA-256 is not the one it holds")
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        document = header.pop("__metadata__")["document"]
        data = memoryview(content)[start:]
        arrays = {name: _array(data, **entry) for name, entry in header.items()}
        return str(document), arrays, digest
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path}: not a classifier file: {error}") from error


def stated(path: Path) -> str | None:
    """The SHA-256 that a file says it has; None where there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(_DIGEST_AT + 64)[_DIGEST_AT:].decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else who asks changes the file meanwhile; no other file is made for it.

    What is locked is the file itself, which a change replaces: who has waited looks again at what
    is there now. Where there is none yet, nothing is locked. Raises OutputError where it cannot be.
    """
    file = _lock(path)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def _lock(path: Path) -> int | None:
    """The descriptor of the file that has the name once it is locked; None: there is none."""
    while True:
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file)):
                    return file
        except OSError as error:
            os.close(file)
            raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
        os.close(file)


def _digest(content: bytes) -> str:
    digest = sha256(content[:_DIGEST_AT])
    digest.update(b"0" * 64)
    digest.update(memoryview(content)[_DIGEST_AT + 64 :])
    return digest.hexdigest()


def _array(data: memoryview, dtype: str, shape: list[int], data_offsets: list[int]) -> NDArray[Any]:
    start, end = data_offsets
    if min([start, *shape], default=0) < 0 or end > len(data):
        raise ValueError("an array lies outside the file")
    if end - start != math.prod(shape) * _TYPES[dtype].itemsize:
        raise ValueError("an array's shape is not its size")
    return np.frombuffer(data[start:end], _TYPES[dtype]).reshape(shape)

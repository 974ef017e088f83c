"""Embeddings on disk: what a network that stays as it is makes of an image is made once.

A file belongs to one network, which its name is the digest of, and only grows:

    header: the kind of file, and d | a record for every image: digest, embedding (d,), check

A record is believed if its check is right, and the last one of an image counts; so a process may
end at any point, and what is damaged is made again.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define
from numpy.typing import NDArray

from ..core.wording import counted
from . import cache

_HEADER = struct.Struct("<16sI")
_KIND = b"fewshot-embedded"
_DIGEST, _CHECK = 16, 8  # bytes


def image_digest(image: NDArray[np.uint8]) -> bytes:
    """Of its pixels; shapes are told apart by the network's digest."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=_DIGEST).digest()


@define(eq=False)
class Kept:
    """The embeddings that are kept of one network. `warn` is told what goes wrong with them."""

    path: Path
    warn: Callable[[str], None]

    def find(self, digests: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """By digest, the embeddings (d,) that are there of these images."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._unusable(error)
            return {}
        rows = _records(content)
        if rows is None:
            self.warn(f"{self.path} is damaged: its embeddings are made again")
            return {}
        at = {digest.tobytes(): i for i, digest in enumerate(rows["digest"])}
        places = {digest: at[digest] for digest in digests if digest in at}
        sound = {
            digest: rows["row"][i].astype(np.float32)
            for digest, i in places.items()
            if _sound(rows[i])
        }
        if len(sound) < len(places):
            lost = len(places) - len(sound)
            self.warn(f"{self.path}: {lost} embeddings are damaged, and made again")
        return sound

    def add(self, digests: Sequence[bytes], rows: NDArray[np.float32]) -> None:
        """Keep embeddings (n, d); where that cannot be done `warn` is told once."""
        if not self._usable:
            return
        records = np.empty(len(rows), _record(rows.shape[1]))
        for record, digest, row in zip(records, digests, rows, strict=True):
            record["digest"] = np.frombuffer(digest, np.uint8)
            record["row"] = row
            check = _check(digest, record["row"].tobytes())
            record["check"] = np.frombuffer(check, np.uint8)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:  # noqa: PTH123
                fcntl.flock(file, fcntl.LOCK_EX)
                if _dim(file.read(_HEADER.size)) != rows.shape[1]:
                    file.seek(0)
                    file.truncate()
                    file.write(_HEADER.pack(_KIND, rows.shape[1]))
                size = file.seek(0, os.SEEK_END)
                cut_off = (size - _HEADER.size) % records.itemsize
                file.truncate(size - cut_off)  # of a process that ended amid it
                file.seek(0, os.SEEK_END)
                file.write(records.tobytes())
        except OSError as error:
            self._unusable(error)

    _usable: bool = True

    def _unusable(self, error: OSError) -> None:
        self._usable = False
        self.warn(
            f"embeddings are not kept: {error} ({cache.VARIABLE}=FOLDER names another place, "
            f"{cache.VARIABLE}= turns this off)"
        )


def files() -> list[Path]:
    """Of all networks whose embeddings are kept. Raises OSError where they cannot be looked for."""
    folder = cache.place()
    return [] if folder is None else sorted(filter(Path.is_file, (folder / "embedded").glob("*")))


def fault(path: Path) -> str | None:
    """What is wrong with a file of embeddings; None where it is whole. Raises OSError."""
    rows = _records(path.read_bytes())
    if rows is None or not len(rows):
        return f"{path}: damaged: its embeddings are made again"
    bad = sum(not _sound(row) for row in rows)
    return f"{path}: damaged: {counted(bad, 'embedding')}, made again" if bad else None


def kept(network: str, warn: Callable[[str], None]) -> Kept | None:
    """What is kept of a network of that digest; None where the cache is turned off."""
    try:
        folder = cache.place()
    except OSError as error:
        warn(f"embeddings are not kept: {error}")
        return None
    return None if folder is None else Kept(folder / "embedded" / network, warn)


def _dim(content: bytes) -> int | None:
    """Of the embeddings of a file, by its header; None for no file of this kind."""
    if len(content) < _HEADER.size:
        return None
    kind, dim = _HEADER.unpack_from(content)
    return int(dim) if kind == _KIND and dim else None


def _records(content: bytes) -> NDArray[Any] | None:
    """The whole records of a file; None for no file of this kind."""
    dim = _dim(content)
    if dim is None:
        return None
    record = _record(dim)
    count = (len(content) - _HEADER.size) // record.itemsize
    return np.frombuffer(content, record, count, _HEADER.size)


def _sound(record: Any) -> bool:
    due = _check(record["digest"].tobytes(), record["row"].tobytes())
    return due == bytes(record["check"])


def _record(dim: int) -> np.dtype[np.void]:
    return np.dtype(
        [("digest", "u1", (_DIGEST,)), ("row", "<f4", (dim,)), ("check", "u1", (_CHECK,))]
    )


def _check(digest: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(digest + row, digest_size=_CHECK).digest()

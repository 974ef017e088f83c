"""CIFAR-100's binary version, which no code has to be run to read."""

import io
import tarfile
from hashlib import md5
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fewshot import DataError, Ints

# Of cifar-100-binary.tar.gz, as its page gives it: tells a damaged file, not a forged one.
MD5 = "03b5dce01913d631647c71ecec9e9cb8"

_NAMES = "fine_label_names.txt"
_SIZES = {"train.bin": 50_000, "test.bin": 10_000}
_PER_CLASS = 600
_RECORD = 2 + 3 * 32 * 32  # superclass, class, then red, green and blue row by row


def is_binary(path: Path) -> bool:
    """Whether it is the archive, or the folder that is in it."""
    return path.name.endswith(".tar.gz") or (path / "train.bin").is_file()


def read_binary(path: Path, size: int = 32) -> tuple[NDArray[np.uint8], Ints, tuple[str, ...]]:
    """Images (60000, 32, 32, 3) uint8, labels (60000,) and the names of the classes.

    `path`: cifar-100-binary.tar.gz, whose checksum must be the published one, or its folder. Raises
    DataError for damaged files, and for any other size of images.
    """
    if size != 32:
        raise DataError(f"{path}: the binary version is of 32x32 pixels, not dataset.size {size}")
    try:
        content = _unpacked(path) if path.is_file() else _read(path)
        classes = tuple(content[_NAMES].decode().split())
    except (OSError, EOFError, KeyError, UnicodeDecodeError, tarfile.TarError) as error:
        raise DataError(f"{path}: not CIFAR-100's binary version: {error}") from error
    records = []
    for name, count in _SIZES.items():
        if len(content[name]) != count * _RECORD:
            raise DataError(
                f"{path}: {name} has {len(content[name])} bytes, not {count} images of {_RECORD}"
            )
        records.append(np.frombuffer(content[name], np.uint8).reshape(count, _RECORD))
    every = np.concatenate(records)
    labels = every[:, 1].astype(np.int64)
    if len(classes) != 100 or np.bincount(labels).tolist() != [_PER_CLASS] * 100:
        raise DataError(f"{path}: not 100 classes of {_PER_CLASS} images")
    images = every[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels, classes


def _read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*_SIZES, _NAMES)}


def _unpacked(archive: Path) -> dict[str, bytes]:
    content = archive.read_bytes()
    found = md5(content, usedforsecurity=False).hexdigest()
    if found != MD5:
        raise DataError(f"{archive}: its MD5 is {found}, published {MD5}: bring it again")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as files:
        members = {Path(each.name).name: each for each in files if each.isfile()}
        opened: dict[str, IO[bytes] | None] = {
            name: files.extractfile(members[name]) for name in (*_SIZES, _NAMES)
        }
        return {name: file.read() for name, file in opened.items() if file is not None}

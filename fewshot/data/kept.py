"""What the cache of decoded images holds: shown, verified, and removed where it is of no use."""

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from attrs import frozen

from ..core.wording import counted
from .cache import LOCK, damaged, place, records_of

_FOLDER = re.compile(r".*-([0-9]+)-[0-9a-f]{16}")


@frozen
class KeptFolder:
    """Decoded images of one folder at one size, in pixels; `of`: which, "" where that is unknown.

    `there`: whether these images are still there. `used`: days since the last change.
    """

    path: Path
    of: str
    there: bool
    size: int
    images: int
    bytes: int
    used: float


def folders() -> list[KeptFolder]:
    """All that is kept, by path. Raises OSError where it cannot be looked through."""
    cache = place()
    if cache is None or not cache.is_dir():
        return []
    return [
        _seen(path, int(found[1]))
        for path in sorted(cache.iterdir())
        if (found := _FOLDER.fullmatch(path.name)) and path.is_dir()
    ]


def _seen(folder: Path, size: int) -> KeptFolder:
    of = ""
    with suppress(OSError):
        of = (folder / LOCK).read_text(encoding="utf-8", errors="surrogateescape")
    images = size_of = 0
    changed = folder.stat().st_mtime
    for path in folder.iterdir():
        size_of += path.stat().st_size
        if path.suffix == ".images":
            with path.open("rb") as file:
                images += len(records_of(file, 3 * size**2))
    days = (time.time() - changed) / 86400
    return KeptFolder(folder, of, bool(of) and _there(Path(of)), size, images, size_of, days)


def _there(images: Path) -> bool:
    """Whether there is such a folder, or a zip file that it may be in."""
    return images.exists() or any(each.is_file() for each in images.parents)


def verify(folder: Path, size: int) -> Iterator[tuple[Path, str | None]]:
    """Every finished file of a folder of the cache; None where it is whole, else what is wrong."""
    for path in sorted(folder.glob("*.images")):
        with path.open("rb") as file:
            records = records_of(file, 3 * size**2)
            if not records:
                yield path, f"{path}: damaged, or another list's: its images are decoded again"
                continue
            images = np.memmap(file, np.uint8, "r", shape=(len(records), size, size, 3))
            bad = damaged(images, records)
        fault = f"{path}: damaged: {counted(len(bad), 'image')}, decoded again"
        yield path, fault if bad else None


def prune(every: bool = False) -> Iterator[tuple[KeptFolder, bool]]:
    """Remove what is kept of images that are gone, or all; whether it could be, of each.

    A folder that a process is decoding into stays.
    """
    for folder in folders():
        if every or not folder.there:
            yield folder, _removed(folder.path)


def _removed(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
    except OSError:
        return False
    return True

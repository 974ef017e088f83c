"""Decoded images on disk: a file is decoded once, and again when it has changed.

For every folder of images and size there is a folder in the cache. In it, `DIGEST.images` belongs
to one list of files, by their names, sizes and times:

    pixels (n, size, size, 3) uint8 | a record for every image, in order | SHA-256 of the records

A record has a hash of its pixels, the last one covers the file's own name: what is not as it was
written, or belongs to another list, is made again, image by image. Only files that this user or
root owns, and nobody else may write to, are read.

It is made as `DIGEST.partial`, with the records of the images in it in `DIGEST.journal`, and gets
its name when it is whole. A record follows its pixels, which are on disk by then, so a process may
end at any point: what has a record is sound, all else is decoded again. What images other lists
have in common with a new one is copied from their files, which are then removed. One process at a
time writes to a folder.
"""

import errno
import fcntl
import hashlib
import math
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import PIL
from attrs import frozen
from numpy.typing import NDArray

from ..core.errors import DataError
from ..core.machine import cores, memory, user_cache
from ..core.progress import Counting
from ..core.reading import home
from .folders import ImageFiles
from .images import Decoded
from .parallel import on_all_cores
from .walk import Member

VARIABLE = "FEWSHOT_CACHE"

LOCK = "lock"  # in each folder; it says of which images that is

_VERSION = 3  # of the files and of how images are decoded: another one never reads these

# Key of the image, SHA-256 of its file, pixels of the file, position in the pixels of the cache,
# check of these pixels.
_RECORD = struct.Struct("<16s32sQQ16s")
_CHECK = 32  # bytes of the SHA-256 at the end

_FLUSH = 1024  # images lost at the most when a process is killed


class _Record(NamedTuple):
    key: bytes
    sha256: bytes
    pixels: int
    row: int
    check: bytes


def place() -> Path | None:
    """The folder of the cache; None where it is turned off. Raises OSError without a home."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return home(named).absolute() if named else None
    return user_cache() / "images"


def kept() -> int:
    """Bytes in the files of the cache. Raises OSError where it cannot be looked through."""
    folder = place()
    files = filter(Path.is_file, folder.rglob("*")) if folder else ()
    return sum(path.stat().st_size for path in files)


def decode_files(
    dataset: ImageFiles, progress: Counting | None, warn: Callable[[str], None]
) -> tuple[NDArray[np.uint8], str]:
    """All images (n, size, size, 3) uint8 in order, and a SHA-256 of all names and files.

    Mapped from the cache, or in memory where that is off or, which `warn` is told, unusable. It is
    told too when another process has to be waited for.
    Raises one DataError for all images that cannot be read.
    """
    if not dataset.paths:
        raise DataError("the dataset has no images")
    try:
        folder = place()
        wanted = None if folder is None else _wanted(dataset, folder)
        if wanted is not None:
            there = _open(wanted, progress)
            if there is None:
                _require_room(wanted)
            images, digests = there or _make(wanted, progress, warn)
            return images, _sha256(dataset, digests)
    except OSError as error:
        warn(
            f"decoded images are not kept: {error} ({VARIABLE}=FOLDER names another place, "
            f"{VARIABLE}= turns this off)"
        )
    shape = (len(dataset.paths), dataset.size, dataset.size, 3)
    if math.prod(shape) > memory():
        raise DataError(
            f"{shape[0]} images of {dataset.size}x{dataset.size} take "
            f"{math.prod(shape) / 1e9:,.0f} GB, there are {memory() / 1e9:,.0f} of memory: "
            "--set dataset.size=…, smaller"
        )
    images = np.empty(shape, np.uint8)
    digests = [b""] * len(images)

    def put(row: int, decoded: Decoded) -> None:
        images[row] = decoded.image
        digests[row] = decoded.sha256

    on_all_cores(dataset.read, range(len(images)), put, progress)
    return images, _sha256(dataset, digests)


def _require_room(wanted: "_Wanted") -> None:
    """Raise OSError where the disk of the cache has not so many bytes."""
    there = next(path for path in wanted.folder.parents if path.exists())
    if shutil.disk_usage(there).free < (size := math.prod(wanted.shape)):
        raise OSError(errno.ENOSPC, f"the images take {size / 1e9:,.0f} GB", str(there))


def _sha256(dataset: ImageFiles, digests: Sequence[bytes]) -> str:
    """The same for the same names and contents, in any place and order."""
    names = [os.fsencode(f"{name}\0") for name in dataset.names]
    return hashlib.sha256(b"".join(sorted(map(bytes.__add__, names, digests)))).hexdigest()


# ------------------------------------------------------------------------ the files kept


@frozen
class _Wanted:
    """The images of a dataset, as the cache knows them."""

    dataset: ImageFiles
    folder: Path
    root: str  # what the names of the images begin with
    stamps: list[str]  # name and what changes with the file, for every image
    digest: str  # of all stamps

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.stamps), self.dataset.size, self.dataset.size, 3

    @property
    def row_bytes(self) -> int:
        return self.dataset.size**2 * 3

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.digest}.{suffix}"


def _wanted(dataset: ImageFiles, cache: Path) -> _Wanted | None:
    """None for files of a kind whose changes cannot be told."""
    names = [str(path) for path in dataset.paths]
    prefix = os.path.commonprefix([min(names), max(names)])  # noqa: RUF071 - cut at a slash
    common, slash, _ = prefix.rpartition("/")
    root = os.path.realpath(common + slash)
    start = len(common + slash)
    stamps = []
    for name, path in zip(names, dataset.paths, strict=True):
        stamp = _stamp(path)
        if stamp is None:
            return None
        stamps.append(f"{name[start:]}\0{stamp}")
    # Another release of Pillow may decode a little differently.
    digest = hashlib.sha256(os.fsencode("\0".join([PIL.__version__, *stamps]))).hexdigest()
    reading = dataset.reading
    decoding = f"{_VERSION}\0{reading.background}\0{reading.interpolation}\0{root}"
    folder = hashlib.sha256(os.fsencode(decoding)).hexdigest()
    label = re.sub(r"[^A-Za-z0-9_.-]", "_", os.path.basename(root))[:40]  # noqa: PTH119
    place = cache / f"{label}-{dataset.size}-{folder[:16]}"
    return _Wanted(dataset, place, root, stamps, digest[:32])


def _stamp(path: Any) -> str | None:
    if isinstance(path, Member):
        return f"{path.info.file_size}\0{path.info.CRC}"
    if not isinstance(path, os.PathLike):
        return None
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each takes as long as the rest
    except OSError:
        return ""  # reading it will say what is wrong
    changed = f"{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
    return f"{status.st_size}\0{changed}"


def _open(
    wanted: _Wanted, progress: Counting | None = None
) -> tuple[NDArray[np.uint8], list[bytes]] | None:
    """The images and the SHA-256 of every file, if the cache has all of them."""
    try:
        with wanted.file("images").open("rb") as file:
            if not _trusted(wanted.folder.stat()) or not _trusted(os.fstat(file.fileno())):
                return None
            records = records_of(file, wanted.row_bytes)
            if [record.key for record in records] != [_key(stamp) for stamp in wanted.stamps]:
                return None
            if max(record.pixels for record in records) > wanted.dataset.reading.max_pixels:
                return None  # to be refused as if there were no cache
            images = np.memmap(file, np.uint8, "r", shape=wanted.shape)
            if damaged(images, records, progress):
                return None
    except FileNotFoundError:
        return None
    return images, [record.sha256 for record in records]


def _trusted(status: os.stat_result) -> bool:
    """Whether what is there is this user's, or root's, and nobody else's to change."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & 0o022


def _check_of(pixels: Any) -> bytes:
    return hashlib.sha256(pixels).digest()[:16]


def damaged(
    images: NDArray[np.uint8], records: Sequence[_Record], progress: Counting | None = None
) -> list[int]:
    """Which records are of images (n, …) that are not as they were written; on all cores."""
    step = max(1, -(-len(records) // (8 * cores())))

    def look(start: int) -> list[int]:
        those = enumerate(records[start : start + step], start)
        return [i for i, each in those if _check_of(images[each.row].data) != each.check]

    found: list[int] = []
    with ThreadPoolExecutor(cores()) as pool:
        for end, bad in enumerate(pool.map(look, range(0, len(records), step)), start=1):
            found += bad
            if progress is not None:
                progress(min(end * step, len(records)), len(records))
    return found


def records_of(file: IO[bytes], row_bytes: int) -> list[_Record]:
    """The records of a finished file, none if it is damaged or another's under its name."""
    n = (os.fstat(file.fileno()).st_size - _CHECK) // (row_bytes + _RECORD.size)
    file.seek(max(0, n * row_bytes))
    content = file.read()
    records, check = content[:-_CHECK], content[-_CHECK:]
    return list(_unpack(records)) if _end_of(Path(file.name), records) == check else []


def _end_of(path: Path, records: bytes) -> bytes:
    """What a finished file ends with."""
    name = os.fsencode(f"{path.parent.name}/{path.stem}\0")
    return hashlib.sha256(name + records).digest()


def _unpack(content: bytes) -> Iterable[_Record]:
    whole = len(content) - len(content) % _RECORD.size  # the last one may be cut off
    return map(_Record._make, _RECORD.iter_unpack(content[:whole]))


def _make(
    wanted: _Wanted, progress: Counting | None, warn: Callable[[str], None]
) -> tuple[NDArray[np.uint8], list[bytes]]:
    """Decode what is not known, copy what is, and open the file.

    Raises DataError for images that cannot be read, OSError where the cache cannot be written.
    """
    wanted.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted.folder.mkdir(mode=0o700, exist_ok=True)
    if not _trusted(wanted.folder.stat()):
        raise OSError(f"{wanted.folder} is another user's, or others may write to it")
    with (wanted.folder / LOCK).open("a+", errors="surrogateescape") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warn(f"another process is decoding into {wanted.folder}: waiting until it is done")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not lock.tell():
            lock.write(wanted.root)  # for people
            lock.flush()
        made = _open(wanted, progress)  # by another process, while this one waited
        if made is None:
            try:
                _fill(wanted, progress)
            except OSError:
                for suffix in ("partial", "journal"):  # leave no disk full
                    with suppress(OSError):
                        wanted.file(suffix).unlink()
                raise
            made = _open(wanted)
    if made is None:
        raise OSError(f"{wanted.file('images')} does not hold what was written")
    return made


def _fill(wanted: _Wanted, progress: Counting | None) -> None:
    """Make the file of the wanted images; the caller holds the lock."""
    dataset, total = wanted.dataset, len(wanted.stamps)
    keys = [_key(stamp) for stamp in wanted.stamps]

    def read(row: int) -> Decoded:
        decoded = dataset.read(row)
        if not wanted.stamps[row].endswith(f"\0{_stamp(dataset.paths[row])}"):
            raise DataError(f"{dataset.paths[row]}: changed since the folder was looked through")
        return decoded

    def put(row: int, decoded: Decoded) -> None:
        pixels = decoded.image.tobytes()
        record = _Record(keys[row], decoded.sha256, decoded.pixels, row, _check_of(pixels))
        partial.put(record, pixels)

    with _Partial(wanted, keys) as partial:
        known = _known(wanted)
        missing = [row for row, key in enumerate(keys) if key not in known]
        if progress is not None and not missing:
            progress(total, total)
        on_all_cores(read, missing, put, progress, total)
        partial.flush()
        sources: dict[Path, list[int]] = {}
        for row in {*range(total)} - partial.records.keys():
            sources.setdefault(known[keys[row]][0], []).append(row)
        for path, rows in sources.items():
            with path.open("rb") as file:
                for row in sorted(rows):
                    record = known[keys[row]][1]
                    file.seek(record.row * wanted.row_bytes)
                    partial.put(record._replace(row=row), file.read(wanted.row_bytes))
        partial.finish()
    for path in wanted.folder.iterdir():
        if path not in (wanted.folder / LOCK, wanted.file("images")):
            with suppress(OSError):
                path.unlink()


def _key(stamp: str) -> bytes:
    text = os.fsencode(f"{PIL.__version__}\0{stamp}")
    return hashlib.blake2b(text, digest_size=16).digest()


def _known(wanted: _Wanted) -> dict[bytes, tuple[Path, _Record]]:
    """By key, where the pixels of an image are: in a finished file or one left half made.

    Only pixels that are as they were written.
    """
    known: dict[bytes, tuple[Path, _Record]] = {}
    for path in sorted(wanted.folder.iterdir()):
        records: list[_Record] = []
        if path.suffix == ".images":
            with path.open("rb") as file:
                records = records_of(file, wanted.row_bytes)
        elif path.suffix == ".partial":
            with suppress(FileNotFoundError):
                records = list(_unpack(path.with_suffix(".journal").read_bytes()))
        rows = path.stat().st_size // wanted.row_bytes
        records = [record for record in records if record.row < rows]
        if records:
            images = np.memmap(path, np.uint8, "r", shape=(rows, wanted.row_bytes))
            bad = {*damaged(images, records)}
            known.update({r.key: (path, r) for i, r in enumerate(records) if i not in bad})
    limit = wanted.dataset.reading.max_pixels  # beyond it they are read again, to be refused
    return {key: place for key, place in known.items() if place[1].pixels <= limit}


class _Partial:
    """The file of the wanted images while it is made, with its journal.

    `records`: those of the images in it, by row.
    """

    def __init__(self, wanted: _Wanted, keys: list[bytes]) -> None:
        self._wanted = wanted
        self._fresh: list[_Record] = []
        self._whole = len(keys) * wanted.row_bytes
        wanted.file("partial").touch(0o600)
        self._pixels = wanted.file("partial").open("r+b")
        self._journal = wanted.file("journal").open("a+b")
        if os.fstat(self._pixels.fileno()).st_size < self._whole:  # new, or damaged
            self._journal.truncate(0)
        self._pixels.truncate(self._whole)
        self._journal.seek(0)
        records = list(_unpack(self._journal.read()))
        self._journal.truncate(len(records) * _RECORD.size)
        mine = {r.row: r for r in records if r.row < len(keys) and keys[r.row] == r.key}
        self.records = {row: r for row, r in mine.items() if _check_of(self._read(row)) == r.check}

    def _read(self, row: int) -> bytes:
        self._pixels.seek(row * self._wanted.row_bytes)
        return self._pixels.read(self._wanted.row_bytes)

    def put(self, record: _Record, pixels: bytes) -> None:
        if len(pixels) != self._wanted.row_bytes:
            raise OSError(f"{self._pixels.name}: {len(pixels)} bytes are no image")
        self._pixels.seek(record.row * self._wanted.row_bytes)
        self._pixels.write(pixels)
        self._fresh.append(record)
        if len(self._fresh) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """A record only once its pixels are on disk."""
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        self._journal.write(b"".join(_RECORD.pack(*record) for record in self._fresh))
        self._journal.flush()
        self.records.update((record.row, record) for record in self._fresh)
        self._fresh.clear()

    def finish(self) -> None:
        """Add the records of all images and give the file its name."""
        self.flush()
        records = b"".join(_RECORD.pack(*self.records[row]) for row in sorted(self.records))
        self._pixels.seek(self._whole)
        self._pixels.write(records + _end_of(self._wanted.file("images"), records))
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        self._wanted.file("partial").replace(self._wanted.file("images"))

    def __enter__(self) -> "_Partial":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with suppress(OSError), self._pixels, self._journal:
            if isinstance(error, DataError | KeyboardInterrupt):  # the next run goes on from here
                self.flush()
                if not self.records:
                    self._wanted.file("partial").unlink()
                    self._wanted.file("journal").unlink()

"""Published files brought into a folder: resumed, checked by checksum, whole or not there."""

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import field, frozen, validators

from ..core.errors import DataError, OutputError
from ..core.machine import user_cache
from ..core.progress import Fetching
from ..core.reading import home

VARIABLE = "FEWSHOT_DATA"

_BLOCK = 1 << 18
_PATIENCE = 30  # seconds without a byte


@frozen
class Source:
    """A published file: its address, its name in the folder, its checksum as "sha256:…".

    Also "sha512:…" and, which tell a damaged file and not a forged one, "sha1:…" and "md5:…".
    `size`: its bytes, by which a longer answer is refused before it fills the disk; 0: not known.
    """

    url: str
    file: str = field(validator=validators.matches_re(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"))
    checksum: str = field(validator=validators.matches_re(r"(sha512|sha256|sha1|md5):[0-9a-f]+"))
    size: int = field(default=0, validator=validators.ge(0))


def data_folder(name: str) -> Path:
    """Where `fewshot data fetch NAME` puts a data set, made or not.

    `$FEWSHOT_DATA/NAME`, else `~/.cache/fewshot/data/NAME`. Raises OutputError without a home.
    """
    try:
        named = os.environ.get(VARIABLE)
        return (home(named) if named else user_cache() / "data").joinpath(name).absolute()
    except OSError as error:
        raise OutputError(f"no folder for data: {error}; {VARIABLE}=FOLDER names one") from error


def fetch(sources: Iterable[Source], folder: Path, progress: Fetching) -> None:
    """Bring every file that is not there yet; a download that broke off goes on where it was.

    A file has its name once it is whole and its checksum is right; until then it is `NAME.part`,
    which is never written through a link. Raises DataError for an address that does not answer, has
    other bytes or more of them than it said, OutputError where the folder cannot be written.
    """
    for source in sources:
        target = folder / source.file
        try:
            if not target.exists():
                folder.mkdir(parents=True, exist_ok=True)
                _bring(source, folder / f"{source.file}.part", target, progress)
            elif not _is_right(source, target):
                raise DataError(f"{target} is not the published file: remove it, then fetch again")
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error}") from error


def _bring(source: Source, partial: Path, target: Path, progress: Fetching) -> None:
    """Fill the partial file, check it and give it its name."""
    with _opened(partial) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{target} is being fetched by another process") from error
        try:
            while not _receive(source, file, progress):
                pass
            file.flush()
            os.fsync(file.fileno())
            if not _is_right(source, partial):
                file.truncate(0)
                raise DataError(
                    f"{source.url} has other bytes than were published, nothing of them is kept: "
                    f"fetch again, or put the file with {source.checksum} at {target} yourself"
                )
            partial.replace(target)
        finally:
            if partial.exists() and not file.seek(0, os.SEEK_END):
                partial.unlink()


def _opened(partial: Path) -> IO[bytes]:
    """A file to append to, of this folder alone: what a link leads to is another's."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    refusal = OutputError(f"{partial} is a link or no file: remove it, then fetch again")
    try:
        file = os.fdopen(os.open(partial, flags, 0o666), "ab")
    except OSError as error:
        if partial.is_symlink() or (partial.exists() and not partial.is_file()):
            raise refusal from error
        raise
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        file.close()
        raise refusal
    return file


def _is_right(source: Source, path: Path) -> bool:
    algorithm, _, expected = source.checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def _receive(source: Source, file: IO[bytes], progress: Fetching) -> bool:
    """Ask for what is missing; whether that is all. Raises DataError where nothing more comes."""
    start = file.seek(0, os.SEEK_END)
    done, whole, trouble = start, False, "it broke off"
    try:
        with urlopen(Request(source.url, headers=_missing(start)), timeout=_PATIENCE) as answer:
            done, total = _extent(answer, source, start)
            if done != start:  # all of it comes again
                file.truncate(done)
            while block := answer.read(_BLOCK):
                done += len(block)
                if total and done > total:
                    file.truncate(0)
                    raise DataError(f"{source.url}: sends more than the {total} bytes it has")
                _write(file, block)
                progress(source.file, done, total)
            whole = total in (0, done)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return True  # nothing is missing, or too much is there: the checksum will tell
        raise DataError(f"{source.url}: {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        trouble = str(getattr(error, "reason", error)) or type(error).__name__
    if done <= start and not whole:
        raise DataError(f"{source.url}: {trouble}; fetch again to go on ({done} bytes are here)")
    return whole


def _missing(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} if start else {}


def _extent(answer: HTTPResponse, source: Source, start: int) -> tuple[int, int]:
    """The first byte of an answer, and the bytes of the whole file, 0 where nobody says.

    Raises DataError for another part than was asked for and another size than was published.
    """
    first, total = 0, source.size
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        said = answer.headers.get("Content-Range", "")
        part = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", said)
        if part is None or int(part[1]) != start:
            raise DataError(f"{source.url}: asked from byte {start}, it answers {said[:80]!r}")
        first, length = start, int(part[2])
    else:
        said = answer.headers.get("Content-Length", "")
        length = int(said) if re.fullmatch(r"\d{1,18}", said) else 0
    if total and length not in (0, total):
        raise DataError(f"{source.url}: has {length} bytes, {total} were published")
    return first, total or length


def _write(file: IO[bytes], block: bytes) -> None:
    """A full disk is no fault of the network."""
    try:
        file.write(block)
    except OSError as error:
        raise OutputError(f"{file.name}: cannot be written: {error.strerror}") from error

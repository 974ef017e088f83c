"""What is left on disk: files whole or not there at all, records line by line."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import OutputError
from .reading import read_json as read_json  # beside `write_json`

# Of a file that is being written. It ends as the file's own name does: writers go by the suffix.
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.new\..+", re.DOTALL)
_LONGEST = 200  # bytes of the name in that of a temporary: 255 are the most


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


def write_text(path: Path, text: str) -> str:
    """Write a file of text atomically; its SHA-256."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes, new: bool = False) -> str:
    """Write a file atomically: a reader, or a crash, sees the old one or the new one; its SHA-256.

    `new`: there must be none yet. Raises OutputError where it cannot be written.
    """
    try:
        with replacing(path, new) as temporary:
            temporary.write_bytes(content)
    except FileExistsError as error:
        raise OutputError(f"{path} exists: name another") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return sha256(content).hexdigest()


def write_json(path: Path, value: Any) -> str:
    """Write JSON atomically; its SHA-256."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def replacing(path: Path, new: bool = False) -> Iterator[Path]:
    """A temporary path for a file that becomes `path` when all went well, and is on disk by then.

    It is an empty file in the same folder, under a name nobody can foresee, with the mode and owner
    of the file it replaces; where `path` is a link, that is what the link points to. Of several who
    write at once each publishes a whole file; `new`: only the first, FileExistsError for the rest.
    What writers that were killed have left in the folder is removed. Raises OSError where it cannot
    be written, or what is there is no regular file.
    """
    target = Path(os.path.realpath(path))
    old = _replaceable(target)
    if new and old is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    sweep(target.parent)
    temporary, lock = _temporary(target, old)
    try:
        try:
            yield temporary
            with temporary.open("rb") as file:
                if old is not None:
                    _dress(file.fileno(), old)
                os.fsync(file.fileno())
            _replaceable(target)
            if new:
                os.link(temporary, target)  # which never replaces
            else:
                temporary.replace(target)
            _settle(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        os.close(lock)


def refuse_input(path: Path | None, inputs: Iterable[str | Path]) -> None:
    """Raise OutputError where a file to be written is one that is read."""
    if path is None or not path.exists():
        return
    for other in inputs:
        with suppress(OSError, ValueError):
            if path.samefile(other):
                raise OutputError(f"{path} is read here, too: name another file to write")


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _TEMPORARY.fullmatch(entry.name):
                continue
            with suppress(OSError):  # held by its writer, another's, gone by now
                file = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    Path(entry.path).unlink()
                finally:
                    os.close(file)


def _replaceable(target: Path) -> os.stat_result | None:
    """The file that is there; None: nothing. Raises OSError where it is no regular file."""
    try:
        found = target.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(found.st_mode):  # a device, a pipe, or a link in a circle
        raise OSError(errno.EINVAL, "what is there is no regular file", str(target))
    return found


def _temporary(target: Path, old: os.stat_result | None) -> tuple[Path, int]:
    """A fresh file for the new content, and its descriptor, whose lock says that it is written."""
    ending = os.fsdecode(os.fsencode(target.name)[-_LONGEST:])
    mode = 0o666 if old is None else 0o600  # nobody else reads half of a file that was private
    while True:
        temporary = target.with_name(f".{secrets.token_hex(8)}.new.{ending}")
        lock = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            with suppress(OSError):  # a file system without locks: nothing is swept there either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:  # else swept before it was locked
                return temporary, lock
        except BaseException:
            temporary.unlink(missing_ok=True)
            os.close(lock)
            raise
        os.close(lock)


def _dress(file: int, old: os.stat_result) -> None:
    """Give a file owner and mode of the old one, as far as this user may."""
    mode, mine = stat.S_IMODE(old.st_mode), os.fstat(file)
    if (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.chown(file, old.st_uid, old.st_gid)
        except OSError:
            try:
                os.chown(file, -1, old.st_gid)
            except OSError:
                mode &= ~stat.S_IRWXG  # it would be another group's
    os.fchmod(file, mode)


def _settle(folder: Path) -> None:
    """Have the folder's names on disk, where its file system can."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def require_sha256(path: Path, digest: str | None) -> None:
    """Raise OutputError where a file cannot be read or has another SHA-256; None: any."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a null character
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be read: {why}") from error
    if digest is not None and found != digest:
        raise OutputError(f"{path}: damaged: its SHA-256 is not the one in the manifest")


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one record, with a check of itself, to a JSON-lines file, on disk when this returns.

    Several processes may append; what a crash cut short is left as a line of its own.
    """
    line = line_of(value)
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            whole = file.read() in (b"", b"\n")
            file.write(f"{'' if whole else chr(10)}{line}".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def line_of(value: Mapping[str, Any]) -> str:
    """A record as `append_line` writes it, with its check and the end of the line."""
    text = json.dumps(value)
    return f"{text[:-1]}{', ' if value else ''}{_check(text.encode())}\n"


def read_lines(path: Path) -> list[Any]:
    """The records of a JSON-lines file, but for lines cut short or damaged; none: no file."""
    return [record for record in lines(path) if record is not None]


def lines(path: Path) -> list[dict[str, Any] | None]:
    """As `read_lines`, with None for a line that was cut short or is damaged."""
    try:
        content = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise OutputError(f"{path}: not readable: {error.strerror}") from error
    return [_record(line) for line in content]


def _check(text: bytes) -> str:
    """How the line of a record ends: the first digits of the hash of the record without it."""
    return f'"sha256": "{sha256(text).hexdigest()[:16]}"}}'


_CHECKED = len(_check(b""))


def _record(line: bytes) -> dict[str, Any] | None:
    text, check = line[:-_CHECKED].removesuffix(b", ") + b"}", line[-_CHECKED:]
    if check != _check(text).encode():
        return None
    record: dict[str, Any] = json.loads(text)
    return record

"""Files that one process, or one thread of it, holds at a time, and that name who holds them."""

import fcntl
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError

_GLANCE = 0.2  # seconds: longer than `owner` holds what it looks at


@contextmanager
def held(path: Path, called: str, wait: float = _GLANCE) -> Iterator[None]:
    """Hold the lock file `path`, made where it is missing; waits `wait` seconds at the most for it.

    The lock is the kernel's (flock) and ends with its owner, however that ends; what the file says
    of its owner is for people only. Raises OutputError, beginning with `called` and naming the
    owner, where another has it.
    """
    try:
        file = path.open("a+b")
    except OSError as error:
        raise OutputError(f"{path}: cannot be opened to lock it: {error.strerror}") from error
    with file:
        if not _locked(file, path, fcntl.LOCK_EX, wait):
            raise OutputError(f"{called}: in use by {_named(file)}")
        file.truncate(0)
        file.write(_myself().encode())
        file.flush()
        yield


def owner(path: Path) -> str | None:
    """Who holds the lock file now; None: nobody. Raises OutputError where that cannot be told."""
    try:
        with path.open("rb") as file:
            return None if _locked(file, path, fcntl.LOCK_SH, 0) else _named(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error


def _locked(file: BinaryIO, path: Path, how: int, wait: float) -> bool:
    until = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        except OSError as error:
            raise OutputError(f"{path}: cannot be locked: {error.strerror}") from error
        else:
            return True


def _myself() -> str:
    # A container's processes all have small numbers: its name and the time tell them apart.
    began = datetime.now(UTC).isoformat(timespec="seconds")
    command = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return f"{command}, process {os.getpid()} on {platform.node()}, since {began}"


def _named(file: BinaryIO) -> str:
    file.seek(0)
    text = file.read(300).decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text) or "another process"

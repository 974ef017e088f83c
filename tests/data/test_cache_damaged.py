"""The cache of decoded images where it is cut off, killed, raced for, full or damaged."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cached import (
    SIZE,
    check,
    files,
    folder,
    one_by_one,
    several,
    write,
    write_images,
)

from fewshot.data.cache import VARIABLE, kept
from fewshot.data.datasets import decode

MANY = 3000  # more than are written at a time


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


# -------------------------------------------------------------------------- the end comes early


def interrupted(root: Path, at: int) -> None:
    """Decode a folder until so many are done."""

    def interrupt(done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(folder(root), interrupt)


@pytest.mark.parametrize("at", [1, 7, 20])
def test_interrupted_by_hand_it_goes_on_where_it_was(at: int, tmp_path: Path):
    root = write_images(tmp_path / "images")
    interrupted(root, at)
    assert len(check(root)) == 20 - at


def test_interrupted_again_it_goes_on_again(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    interrupted(root, 5)
    (journal,) = cache.rglob("*.journal")
    journal.write_bytes(
        journal.read_bytes()[:-1]
    )  # the last record was cut off: it counts for nothing
    interrupted(root, 12)
    assert len(check(root)) == 20 - 12


def child(root: Path, before: str = "", **settings: str) -> "subprocess.Popen[str]":
    """A process that decodes a folder and says, in JSON, what it opened and what came of it."""
    code = f"""
import hashlib, json, os, signal, sys, warnings
opened, made = [], []
def listen(event, arguments):
    for ending, names in ((".bmp", opened), (".partial", made)):
        if event == "open" and str(arguments[0]).endswith(ending):
            names.append(arguments[0])
sys.addaudithook(listen)
progress = None
{before}
from fewshot.data.datasets import decode
from fewshot.data.folders import ImageFolderOptions, image_folder
warned = []
dataset = image_folder(ImageFolderOptions(path={str(root)!r}, size={SIZE}))
arrays = decode(dataset, progress, warned.append)
pixels = hashlib.sha256(arrays.images.tobytes()).hexdigest()
print(json.dumps([len(opened), len(made), pixels, type(arrays.images).__name__, warned]))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_at(event: str, number: int = 1, ending: str = "") -> str:
    return f"""
count = 0
def kill(event, arguments):
    global count
    if event == {event!r} and str(arguments[0]).endswith({ending!r}):
        count += 1
        if count == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
"""


def kill_progress(at: int) -> str:
    return f"""
def progress(done, total):
    if done == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(process: "subprocess.Popen[str]") -> None:
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("many"), MANY)


@pytest.mark.parametrize("at", [1, 1500, MANY])
def test_killed_it_goes_on_from_what_was_written(at: int, many: Path):
    killed(child(many, kill_progress(at)))
    again = check(many)
    assert MANY - at <= len(again) <= MANY - at + 1024
    assert check(many) == []


MOMENTS = {
    "as the partial file is opened": kill_at("open", ending=".partial"),
    "as the journal is opened": kill_at("open", ending=".journal"),
    "before it has its name": kill_at("os.rename"),
    "before the former is removed": kill_at("os.remove"),
    "before the journal is removed": kill_at("os.remove", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_step_nothing_wrong_is_left(moment: str, tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)
    several(root)
    killed(child(root, MOMENTS[moment]))
    arrays = decode(folder(root))
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))
    write(root / "a" / "new.bmp", 77)
    assert check(root) == ["new.bmp"]  # and nothing else is left over


def test_two_processes_at_once_decode_once(many: Path):
    both = [child(many), child(many)]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert sum(count for count, *_ in told) == MANY
    assert 0 in (told[0][1], told[1][1])  # one finds the other's file
    assert told[0][2] == told[1][2]  # the same pixels
    for *_, kind, warned in told:
        assert kind == "memmap"
        assert all("another process" in line for line in warned)
    assert check(many) == []


def test_a_process_that_waits_for_another_says_so_in_one_line(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)
    write(root / "a" / "new.bmp", 77)
    (place,) = cache.iterdir()
    with (place / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        warned: list[str] = []

        def let_go(line: str) -> None:
            warned.append(line)
            fcntl.flock(lock, fcntl.LOCK_UN)

        arrays = decode(folder(root), warn=let_go)
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))
    assert warned == [f"another process is decoding into {place}: waiting until it is done"]
    assert kept() == sum(len(path.read_bytes()) for path in place.iterdir()) > arrays.images.nbytes


# -------------------------------------------------------------------------- a full disk, damage


def test_a_full_disk_ends_in_memory_and_leaves_nothing_behind(many: Path, cache: Path):
    limit = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
def progress(done, total):
    if done == 1500:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({1000 * SIZE * SIZE * 3}, 2**30))
"""
    stdout, stderr = child(many, limit).communicate(timeout=60)
    count, _, _, kind, warned = json.loads(stdout or pytest.fail(stderr))
    assert (kind, len(warned)) == ("ndarray", 1)
    assert MANY < count <= 2 * MANY
    assert files(cache) == [""]
    assert len(check(many)) == MANY


def damage(cut: slice | None = None, flip: int | None = None) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if flip is not None:
            content[flip] ^= 1
        path.write_bytes(content if cut is None else content[cut])

    return apply


ROW = SIZE * SIZE * 3
RECORD = 80  # bytes of it, for an image
DAMAGES = {
    "empty": damage(slice(0)),
    "a byte": damage(slice(1)),
    "cut by a byte": damage(slice(-1)),
    "cut by a record": damage(slice(-RECORD)),
    "cut by an image": damage(slice(-RECORD - ROW)),
    "cut in half": damage(slice(10 * ROW)),
    "grown": lambda path: path.write_bytes(path.read_bytes() + bytes(RECORD + ROW)),
    "a record changed": damage(flip=20 * ROW + 3 * RECORD + 5),
    "the check changed": damage(flip=-1),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_made_again(kind: str, tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)
    (path,) = cache.rglob("*.images")
    DAMAGES[kind](path)
    assert len(check(root)) == 20
    assert check(root) == []
    (path,) = cache.rglob("*.images")
    DAMAGES[kind](path)
    write(root / "a" / "new.bmp", 7)  # nor is anything copied from it
    assert len(check(root)) == 21


HALVES = {
    "journal cut": ("journal", damage(slice(-1)), 21 - 9),
    "journal lost": ("journal", Path.unlink, 20),
    "journal of zeros": ("journal", lambda p: p.write_bytes(bytes(p.stat().st_size)), 20),
    "partial lost": ("partial", Path.unlink, 20),
    "partial cut": ("partial", damage(slice(5 * ROW)), 20),
    "partial grown": ("partial", lambda p: p.write_bytes(p.read_bytes() + b"x" * 99), 20 - 9),
}


@pytest.mark.parametrize("change", [False, True], ids=["the same", "another list"])
@pytest.mark.parametrize("kind", HALVES)
def test_of_a_damaged_half_nothing_wrong_is_taken(
    kind: str, change: bool, tmp_path: Path, cache: Path
):
    root = write_images(tmp_path / "images")
    interrupted(root, 9)
    suffix, apply, expected = HALVES[kind]
    (path,) = cache.rglob(f"*.{suffix}")
    apply(path)
    if change:
        write(root / "c" / "new.bmp", 7)
        names = check(root)
        rest = 15 if kind == "partial cut" else expected  # the first five are there
        assert len(names) == rest + 1
    else:
        assert len(check(root)) == expected


def test_a_journal_of_zeros_hides_no_image_that_is_known(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)
    write(root / "b" / "new.bmp", 7)
    interrupted(root, 21)
    (journal,) = cache.rglob("*.journal")
    journal.write_bytes(bytes(journal.stat().st_size))
    assert check(root) == ["new.bmp"]

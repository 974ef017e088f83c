"""One holder at a time, whoever it is and however it ends."""

import fcntl
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fewshot.core.errors import OutputError
from fewshot.core.locks import held, owner


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path, "it"):
        told = rf"^it: in use by .*process {os.getpid()} on"
        with pytest.raises(OutputError, match=told), held(path, "it", wait=0):
            raise AssertionError
        assert f"process {os.getpid()}" in (owner(path) or "")
    assert owner(path) is None
    with held(path, "it"):
        pass


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert owner(tmp_path / "lock") is None
    with pytest.raises(OutputError, match="opened"), held(tmp_path / "none" / "lock", "it"):
        raise AssertionError


def test_those_who_wait_hold_it_one_after_another(tmp_path: Path) -> None:
    path, inside = tmp_path / "lock", []

    def enter(_: int) -> int:
        with held(path, "it", wait=10):
            inside.append(1)
            most = len(inside)
            owner(path)
            inside.pop()
            return most

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(enter, range(40))) == {1}


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_dead_holder_is_none_whatever_its_number(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:  # no clean-up of any kind: only system calls
        file = os.open(path, os.O_CREAT | os.O_RDWR)
        fcntl.flock(file, fcntl.LOCK_EX)
        os.write(file, f"process {os.getppid()} on here".encode())  # alive, but not the holder
        os.write(told, b".")
        signal.pause()
    os.read(ready, 1)
    assert owner(path) == f"process {os.getpid()} on here"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert owner(path) is None
    with held(path, "it"):
        assert f"process {os.getpid()}" in (owner(path) or "")

"""The file that is loaded is the one that was checked: this user's, whole, not open to others."""

import ctypes
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from fewshot.compute import runtime

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="built on Linux only")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path, blob = tmp_path / "cblas.so", b"a library"
    path.write_bytes(blob + hashlib.sha256(blob).digest())
    path.chmod(0o700)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(OSError, match=r".") as caught, runtime._trusted(path):
        pass
    return str(caught.value)


def test_what_was_checked_is_what_is_loaded(whole: Path) -> None:
    good = whole.read_bytes()
    with runtime._trusted(whole) as name:
        whole.unlink()
        whole.write_bytes(b"another's")
        assert Path(name).read_bytes() == good


@pytest.mark.parametrize("mode", [0o722, 0o720, 0o702, 0o777])
def test_a_file_that_others_may_write_to_is_not_loaded(mode: int, whole: Path) -> None:
    whole.chmod(mode)
    assert "open to others" in refusal(whole)


def test_neither_is_another_users_a_link_or_a_folder(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, folder = tmp_path / "link", tmp_path / "folder"
    link.symlink_to(whole)
    folder.mkdir()
    refusal(link)
    refusal(folder)
    refusal(tmp_path / "nothing")
    monkeypatch.setattr(os, "geteuid", lambda: whole.stat().st_uid + 1)
    assert "open to others" in refusal(whole)


def test_neither_is_a_damaged_one(whole: Path) -> None:
    content = whole.read_bytes()
    for bad in (b"", content[:-1], b"A" + content[1:], content + b"x"):
        whole.write_bytes(bad)
        assert "damaged" in refusal(whole)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_what_is_built_is_trusted_whatever_the_umask(tmp_path: Path) -> None:
    path, before = tmp_path / "cblas.so", os.umask(0)
    try:
        runtime._build_shim(path)
    finally:
        os.umask(before)
    with runtime._trusted(path) as name:
        assert ctypes.CDLL(name).cblas_sgemm

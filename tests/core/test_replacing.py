"""A file that is replaced: whole, under its own mode and owner, and nothing else is touched."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.errors import OutputError
from fewshot.core.files import refuse_input, replacing, sweep, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(mode=st.integers(0, 0o777).map(lambda mode: mode | 0o600))
def test_the_mode_of_what_is_replaced_stays(tmp_path_factory, mode: int) -> None:
    path = tmp_path_factory.mktemp("mode") / "mine.fewshot"
    path.write_text("old")
    path.chmod(mode)
    with replacing(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) & 0o077 == 0  # while it is written
        temporary.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text() == "new"


def test_a_new_file_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_what_is_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.write_text("old")
    os.chown(path, 12, 34)
    write_text(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


def test_a_link_stays_one_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "target"
    for link in ("link", "other"):
        (tmp_path / link).symlink_to(Path("deep") / "target")
        write_text(tmp_path / link, link)
        assert (tmp_path / link).is_symlink()
        assert target.read_text() == link
    assert names(tmp_path / "deep") == ["target"]


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="a: cannot be written"):
        write_text(tmp_path / "a", "")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path(os.devnull)
    before = path.stat()
    with pytest.raises(OutputError, match=r"cannot be written: (what is there|Is a directory)"):
        write_text(path, "text")
    assert (path.stat().st_mode, path.stat().st_ino) == (before.st_mode, before.st_ino)
    assert not list(tmp_path.glob(".*"))


def test_of_several_at_once_one_whole_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([i]) * 100_000 for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda content: write_bytes(path, content), contents))
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["file"]


def test_a_new_file_is_made_by_one_and_refused_to_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def make(i: int) -> bool:
        try:
            write_bytes(path, bytes([i]) * 1000, new=True)
        except OutputError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(make, range(12)))
    assert made.count(True) == 1
    with pytest.raises(OutputError, match="exists: name another"):
        write_bytes(path, b"", new=True)
    assert path.read_bytes() == bytes([made.index(True)]) * 1000
    assert names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_swept_and_what_one_is_writing_is_not(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    (tmp_path / ".0123456789abcdef.new.weights.safetensors").write_text("of a killed one")
    (tmp_path / ".0123456789abcdef.new.other").write_text("of another file")
    (tmp_path / ".mine.new.weights.safetensors").write_text("no temporary")
    with replacing(path) as temporary:
        assert temporary.suffix == path.suffix  # by which writers go
        assert names(tmp_path) == sorted([temporary.name, ".mine.new.weights.safetensors"])
        sweep(tmp_path)
        write_text(path, "another writer")
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names(tmp_path) == [".mine.new.weights.safetensors", path.name]


def test_a_name_of_any_length_has_a_temporary(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127, "\udcff" * 200):
        write_text(tmp_path / name, name[:1] if name[0] != "\udcff" else "")
        assert (tmp_path / name).exists()
    assert len(names(tmp_path)) == 3


def test_a_file_that_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("")
    (tmp_path / "link").symlink_to("in")
    for out in ("in", "link"):
        with pytest.raises(OutputError, match="read here, too"):
            refuse_input(tmp_path / out, ["elsewhere", "with\0null", tmp_path / "in"])
    refuse_input(tmp_path / "other", [tmp_path / "in"])
    refuse_input(None, [tmp_path / "in"])

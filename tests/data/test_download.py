"""Downloads: whole and right, or not there; resumed after any break; every failure one line."""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot import DataError, Source, data_folder, fetch
from fewshot.core.errors import OutputError

CONTENT = np.random.default_rng(0).bytes(1_000_003)


class Handler(BaseHTTPRequestHandler):
    """Serves the server's `content` as its `manner` says, and notes the ranges asked for."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        served, manner = self.server.content, self.server.manner
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file.zip":
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if manner == "ignores ranges":
            begin = 0
        if begin and begin >= len(served):
            self.send_error(416)
            return
        body = served[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            told = 10**15 if manner == "another part" else begin
            self.send_header("Content-Range", f"bytes {told}-{len(served) - 1}/{len(served)}")
        if manner == "no length":
            self.send_header("Connection", "close")
        else:
            length = "many" if manner == "no number" else str(len(body))
            self.send_header("Content-Length", length)
        self.end_headers()
        breaks_at = self.server.breaks.pop(0) if self.server.breaks else len(body)
        self.wfile.write(body[:breaks_at])
        self.close_connection = breaks_at < len(body) or manner.startswith("no ")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`breaks`: after how many bytes each of the next answers breaks off."""

    def __init__(self, content: bytes, manner: str, breaks: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.manner, self.breaks = content, manner, breaks
        self.asked: list[str | None] = []

    def source(self, path: str = "file.zip", content: bytes = CONTENT) -> Source:
        digest = hashlib.sha256(content).hexdigest()
        address = f"http://127.0.0.1:{self.server_address[1]}/{path}"
        return Source(address, "file.zip", f"sha256:{digest}")


@contextmanager
def serving(
    content: bytes = CONTENT, manner: str = "", breaks: tuple[int, ...] = ()
) -> Iterator[Server]:
    server = Server(content, manner, list(breaks))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ignored(file: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("manner", ["", "ignores ranges", "no length"])
def test_what_arrives_is_the_file_and_nothing_else_is_left(manner: str, tmp_path: Path):
    seen: list[tuple[str, int, int]] = []
    with serving(manner=manner) as server:
        fetch([server.source()], tmp_path / "new" / "folder", lambda *args: seen.append(args))
        fetch([server.source()], tmp_path / "new" / "folder", ignored)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file.zip"]
    assert (tmp_path / "new" / "folder" / "file.zip").read_bytes() == CONTENT
    assert server.asked == [None], "what is there is not asked for again"
    done = [d for _, d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == ("file.zip", len(CONTENT), 0 if manner == "no length" else len(CONTENT))


@given(breaks=st.lists(st.integers(1, 400), min_size=1, max_size=4))
def test_an_answer_that_breaks_off_is_gone_on_with_where_it_was(
    breaks: list[int], tmp_path_factory: pytest.TempPathFactory
):
    folder, content = tmp_path_factory.mktemp("data"), CONTENT[:2000]
    with serving(content, breaks=tuple(breaks)) as server:
        fetch([server.source(content=content)], folder, ignored)
    assert (folder / "file.zip").read_bytes() == content
    begins = [None, *np.cumsum(breaks).tolist()]
    assert server.asked == [b and f"bytes={b}-" for b in begins]


@pytest.mark.parametrize("manner", ["", "ignores ranges"])
def test_a_later_fetch_goes_on_with_what_an_earlier_one_left(manner: str, tmp_path: Path):
    with serving(manner=manner, breaks=(700_000, 0, 0)) as server:
        with pytest.raises(DataError, match="fetch again to go on"):
            fetch([server.source()], tmp_path, ignored)
        assert not (tmp_path / "file.zip").exists()
        if not manner:
            assert (tmp_path / "file.zip.part").read_bytes() == CONTENT[:700_000]
        server.breaks.clear()
        fetch([server.source()], tmp_path, ignored)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert not (tmp_path / "file.zip.part").exists()


def test_a_server_that_only_breaks_off_ends_in_an_error_not_a_loop(tmp_path: Path):
    with (
        serving(manner="ignores ranges", breaks=(1000,) * 50) as server,
        pytest.raises(DataError, match="broke off"),
    ):
        fetch([server.source()], tmp_path, ignored)
    assert len(server.asked) == 2


@pytest.mark.parametrize("left", [b"", CONTENT[:10], b"x" * 10, CONTENT + b"x"])
def test_other_bytes_than_published_are_not_kept(left: bytes, tmp_path: Path):
    (tmp_path / "file.zip.part").write_bytes(left)
    with (
        serving(b"other" + CONTENT) as server,
        pytest.raises(DataError, match="other bytes than were published"),
    ):
        fetch([server.source()], tmp_path, ignored)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_whole_but_not_yet_named_is_taken(tmp_path: Path):
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    with serving() as server:
        fetch([server.source()], tmp_path, ignored)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_another_file_of_the_name_is_never_written_over(tmp_path: Path):
    (tmp_path / "file.zip").write_text("mine")
    with serving() as server, pytest.raises(DataError, match=r"file\.zip is not the published"):
        fetch([server.source()], tmp_path, ignored)
    assert (tmp_path / "file.zip").read_text() == "mine"
    assert not server.asked


def test_no_such_file_and_no_server_are_one_line(tmp_path: Path):
    with serving() as server:
        with pytest.raises(DataError, match="404") as caught:
            fetch([server.source("nothing.zip")], tmp_path, ignored)
        gone = server.source()
    with pytest.raises(DataError, match="refused") as refused:
        fetch([gone], tmp_path, ignored)
    assert "\n" not in f"{caught.value}{refused.value}"
    assert list(tmp_path.iterdir()) == []


def test_two_at_a_time_do_not_mix_their_bytes(tmp_path: Path):
    with (tmp_path / "file.zip.part").open("wb") as other, serving() as server:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            fetch([server.source()], tmp_path, ignored)
        assert (tmp_path / "file.zip.part").exists()
    assert not server.asked


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with serving() as server, pytest.raises(OutputError, match="cannot be written"):
        fetch([server.source()], tmp_path / "file", ignored)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "/etc/passwd"])
def test_a_source_cannot_name_a_file_outside_its_folder(name: str):
    with pytest.raises(ValueError, match="file"):
        Source("http://localhost/x", name, "sha256:00")


@pytest.mark.parametrize("checksum", ["", "00ff", "crc32:00", "sha256:XY"])
def test_a_source_without_a_checksum_is_refused(checksum: str):
    with pytest.raises(ValueError, match="checksum"):
        Source("http://localhost/x", "x.zip", checksum)


def test_the_data_folder_is_the_users_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder("birds") == tmp_path / "fewshot" / "data" / "birds"
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "big"))
    assert data_folder("birds") == tmp_path / "big" / "birds"


@pytest.mark.parametrize("manner", ["", "no length"])
def test_more_bytes_than_were_published_are_not_taken(manner: str, tmp_path: Path) -> None:
    with serving(CONTENT, manner) as server:
        source = attrs.evolve(server.source(), size=1000)
        seen: list[int] = []
        with pytest.raises(DataError, match="1000"):
            fetch([source], tmp_path, lambda file, done, total: seen.append(done))
    assert max(seen, default=0) <= 1000
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_right_changes_nothing(tmp_path: Path) -> None:
    with serving(CONTENT, "no length") as server:
        fetch([attrs.evolve(server.source(), size=len(CONTENT))], tmp_path, ignored)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_another_part_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:500])
    with (
        serving(CONTENT, "another part") as server,
        pytest.raises(DataError, match="byte 500"),
    ):
        fetch([server.source()], tmp_path, ignored)
    assert (tmp_path / "file.zip.part").stat().st_size == 500  # not a petabyte of holes


def test_a_length_that_is_no_number_is_none(tmp_path: Path) -> None:
    with serving(CONTENT, "no number") as server:
        fetch([server.source()], tmp_path, ignored)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "dangling link"])
def test_nothing_is_written_through_a_link(kind: str, tmp_path: Path) -> None:
    precious, part = tmp_path / "precious", tmp_path / "data" / "file.zip.part"
    part.parent.mkdir()
    precious.write_bytes(b"mine")
    if kind == "pipe":
        os.mkfifo(part)
    elif kind == "hard link":
        part.hardlink_to(precious)
    else:
        part.symlink_to(precious if kind == "link" else tmp_path / "new")
    with serving() as server, pytest.raises(OutputError, match="is a link or no file: remove it"):
        fetch([server.source()], part.parent, ignored)
    assert precious.read_bytes() == b"mine"
    assert not (tmp_path / "new").exists()

"""What is kept of decoded images is believed only as it was written, for its own list and user."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from cached import SIZE, check, folder, one_by_one, opened, write, write_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewshot.core.errors import DataError
from fewshot.data import embedded
from fewshot.data.cache import VARIABLE
from fewshot.data.datasets import decode
from fewshot.data.kept import folders, prune, verify

ROW = SIZE * SIZE * 3


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def the_file(cache: Path) -> Path:
    (path,) = cache.rglob("*.images")
    return path


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_bit_changes_a_pixel_and_only_its_image_is_decoded_again(
    tmp_path: Path, cache: Path, place: float, bit: int
) -> None:
    root = tmp_path / "images"
    if not root.exists():
        write_images(root)
        check(root)
    path = the_file(cache)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    assert [fault for each in folders() for _, fault in verify(each.path, each.size) if fault]
    assert len(check(root)) == (1 if at < 20 * ROW else 20)
    assert not [fault for each in folders() for _, fault in verify(each.path, each.size) if fault]


def test_a_changed_embedding_is_found_and_what_is_cut_off_is_none(cache: Path) -> None:
    rows = np.random.default_rng(0).random((3, 4), np.float32)
    kept = embedded.kept("net", pytest.fail)
    assert kept is not None
    kept.add([bytes([i]) * 16 for i in range(3)], rows)
    (path,) = embedded.files()
    assert embedded.fault(path) is None
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert embedded.fault(path) is not None
    path.write_bytes(content[:-1])  # of a process that ended amid it: passed over
    assert embedded.fault(path) is None


def test_another_lists_file_under_the_name_is_not_taken(tmp_path: Path, cache: Path) -> None:
    root = write_images(tmp_path / "images")
    check(root)
    path = the_file(cache)
    other = path.read_bytes()
    write(root / "a" / "0.bmp", 77)  # the same number of images: the files have one length
    check(root)
    the_file(cache).write_bytes(other)
    assert sorted(check(root)) == sorted(Path(name).name for name in folder(root).names)


def test_new_content_of_the_same_size_and_time_is_noticed(tmp_path: Path, cache: Path) -> None:
    root = write_images(tmp_path / "images")
    check(root)
    path = root / "a" / "4.bmp"
    status = path.stat()
    write(path, 99)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert check(root) == ["4.bmp"]


@pytest.mark.parametrize("what", ["others may write", "another's"])
def test_what_others_may_have_written_is_neither_read_nor_added_to(
    what: str, tmp_path: Path, cache: Path
) -> None:
    root = write_images(tmp_path / "images")
    check(root)
    kept = the_file(cache).parent
    if what == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root gives folders away")
        os.chown(kept, 12, 34)
    else:
        kept.chmod(0o777)
    before = sorted(path.name for path in kept.iterdir())
    said: list[str] = []
    arrays = decode(folder(root), warn=said.append)
    assert not isinstance(arrays.images, np.memmap)
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))
    assert len(said) == 1
    assert "another user's, or others may write to it" in said[0]
    assert sorted(path.name for path in kept.iterdir()) == before


def test_the_limit_holds_where_one_image_is_damaged_too(tmp_path: Path, cache: Path) -> None:
    root = write_images(tmp_path / "images")
    check(root)
    path = the_file(cache)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="max_pixels"):
        decode(folder(root, max_pixels=1))


def test_what_is_kept_is_told_and_what_is_of_no_use_goes(tmp_path: Path, cache: Path) -> None:
    assert folders() == []
    here, gone = write_images(tmp_path / "here"), write_images(tmp_path / "gone", 6)
    decode(folder(here))
    decode(folder(here, size=2 * SIZE))
    decode(folder(gone))
    shutil.rmtree(gone)
    (cache / "something-else").mkdir()
    told = {(Path(each.of).name, each.size): each for each in folders()}
    assert {key: each.images for key, each in told.items()} == {
        ("here", SIZE): 20, ("here", 2 * SIZE): 20, ("gone", SIZE): 6,
    }  # fmt: skip
    assert [key for key, each in told.items() if not each.there] == [("gone", SIZE)]
    assert told["here", SIZE].bytes == sum(
        path.stat().st_size for path in told["here", SIZE].path.iterdir()
    )
    assert [(Path(each.of).name, done) for each, done in prune()] == [("gone", True)]
    assert [(each.size, each.images) for each in folders()] == [(2 * SIZE, 20), (SIZE, 20)]
    with opened() as names:
        decode(folder(here))
    assert names == []
    assert len(list(prune(every=True))) == 2
    assert [path.name for path in cache.iterdir()] == ["something-else"]

"""Images decoded once: the same pixels, and again only what has changed."""

import os
import shutil
import zipfile
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
    opened,
    same_time,
    several,
    write,
    write_images,
)
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data.batches import gather
from fewshot.data.cache import VARIABLE
from fewshot.data.datasets import ArrayDataset, decode
from fewshot.data.folders import ImageFiles


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.bmp")):
            archive.write(file, file.relative_to(root))
    return path


# --------------------------------------------------------------------------------- decoded once


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_the_second_time_nothing_is_decoded(
    pack: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_images(tmp_path / "images")
    place = zipped(root, tmp_path / "images.zip") if pack else root
    first = decode(folder(place))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        second = decode(folder(place))
    expected = one_by_one(folder(root))
    for arrays in (first, second):
        assert isinstance(arrays.images, np.memmap)
        np.testing.assert_array_equal(arrays.images, expected)
        assert arrays.files_sha256 == first.files_sha256
        assert list(arrays.names or ()) == folder(root).names


def test_no_file_is_even_opened(tmp_path: Path):
    root = write_images(tmp_path / "images")
    assert len(check(root)) == 20
    assert check(root) == []


def test_the_mapped_images_cannot_be_written_to_and_batches_of_them_can(tmp_path: Path):
    arrays = decode(folder(write_images(tmp_path / "images")))
    with pytest.raises(ValueError, match="read-only"):
        arrays.images[0] = 0
    batch = gather(arrays, np.array([3, 1, 3]))
    assert type(batch) is np.ndarray
    batch[:] = 0
    assert arrays.images.any()


def test_progress_is_told_of_what_is_there_already(tmp_path: Path):
    root = write_images(tmp_path / "images")
    decode(folder(root))
    write(root / "b" / "new.bmp", 99)

    def told() -> list[tuple[int, int]]:
        calls: list[tuple[int, int]] = []
        decode(folder(root), lambda done, total: calls.append((done, total)))
        return calls

    assert told() == [(21, 21)]
    looked_through = (
        told()
    )  # every image's hash is made again, which takes long where they are many
    assert len(looked_through) > 2
    assert looked_through == sorted({*looked_through})
    assert looked_through[-1] == (21, 21)
    (root / "a" / "0.bmp").unlink()
    assert told() == [(20, 20)]


def other_size(root: Path) -> None:
    """Another size and the same time."""
    time = (root / "a" / "4.bmp").stat().st_mtime_ns
    Image.new("RGB", (9, 9), "red").save(root / "a" / "4.bmp")
    os.utime(root / "a" / "4.bmp", ns=(time, time))


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "changed": (same_time, ["4.bmp"]),
    "grown": (other_size, ["4.bmp"]),
    "added": (lambda root: write(root / "a" / "3.bmp", 99), ["3.bmp"]),
    "removed": (lambda root: (root / "a" / "4.bmp").unlink(), []),
    "renamed": (lambda root: (root / "a" / "4.bmp").rename(root / "a" / "x.bmp"), ["x.bmp"]),
    "swapped": (lambda root: (root / "a" / "4.bmp").replace(root / "b" / "5.bmp"), ["5.bmp"]),
    "a new class": (lambda root: write(root / "0" / "0.bmp", 99), ["0.bmp"]),
    "all of that": (several, ["4.bmp", "0.bmp", "1.bmp"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_changed_is_decoded_again(change: str, tmp_path: Path):
    root = write_images(tmp_path / "images")
    check(root)
    mapped = decode(folder(root)).images
    before = mapped.copy()
    make, expected = CHANGES[change]
    make(root)
    assert check(root) == expected
    assert check(root) == []
    np.testing.assert_array_equal(mapped, before)  # whoever has the former images keeps them


def test_only_what_changed_in_a_zip_file_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_images(tmp_path / "images")
    place = zipped(root, tmp_path / "images.zip")
    decode(folder(place))
    write(root / "a" / "4.bmp", 99)
    write(root / "b" / "3.bmp", 98)
    dataset = folder(zipped(root, place))
    read, count = ImageFiles.read, []
    monkeypatch.setattr(ImageFiles, "read", lambda self, i: (count.append(i), read(self, i))[1])
    arrays = decode(dataset)
    assert [dataset.names[i] for i in count] == ["a/4.bmp", "b/3.bmp"]
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))


def test_files_of_one_name_size_and_time_do_not_mix(tmp_path: Path):
    root = tmp_path / "images"
    for seed, name in enumerate("abc"):
        write(root / name / "1.bmp", seed)
        os.utime(root / name / "1.bmp", ns=(10**18, 10**18))
    check(root)
    write(root / "b" / "2.bmp", 9)
    assert check(root) == ["2.bmp"]


def test_sizes_interpolations_and_folders_do_not_mix(tmp_path: Path, cache: Path):
    one, two = write_images(tmp_path / "one" / "images"), tmp_path / "two" / "images"
    shutil.copytree(one, two)  # the same names, sizes and times
    write(two / "a" / "4.bmp", 99)
    status = (one / "a" / "4.bmp").stat()
    os.utime(two / "a" / "4.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    for root in (one, two, one):
        for more in ({}, {"size": 2 * SIZE}, {"size": 2 * SIZE, "interpolation": "bilinear"}):
            arrays = decode(folder(root, **more))
            np.testing.assert_array_equal(arrays.images, one_by_one(folder(root, **more)))
    assert files(cache).count(".images") == 6


def test_a_folder_is_the_same_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_images(tmp_path / "images")
    check(root)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for place in (Path("images"), Path("./images/../images"), tmp_path / "link"):
        assert check(place) == []
    monkeypatch.chdir(root)
    assert check(Path()) == []


def test_paths_of_ones_own_are_kept_too(tmp_path: Path):
    root = write_images(tmp_path / "images")
    paths = sorted(root.rglob("*.bmp"), reverse=True)
    dataset = ImageFiles(paths, np.zeros(len(paths), np.int64), ("a",), SIZE)
    for expected in (20, 0):
        with opened() as names:
            arrays = decode(dataset)
        assert len(names) == expected
        np.testing.assert_array_equal(arrays.images, one_by_one(dataset))


def test_more_than_disk_and_memory_hold_is_refused_before_it_is_begun(tmp_path: Path):
    root = write_images(tmp_path / "images")
    paths = [root / "a" / "1.bmp"] * 60_000
    dataset = ImageFiles(paths, np.zeros(len(paths), np.int64), ("a",), 4096)
    told: list[str] = []
    with pytest.raises(DataError, match="60000 images of 4096x4096 take 3,020 GB"):
        decode(dataset, warn=told.append)
    assert "the images take 3,020 GB" in told[0]


def test_the_digest_is_that_of_names_and_files_in_any_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_images(tmp_path / "images")
    digest = decode(folder(root)).files_sha256
    assert digest is not None
    assert len(digest) == 64
    assert decode(folder(zipped(root, tmp_path / "x.zip"))).files_sha256 == digest
    shutil.copytree(root, tmp_path / "copy" / "deeper")
    assert decode(folder(tmp_path / "copy")).files_sha256 == digest
    assert decode(folder(root, size=16)).files_sha256 == digest
    paths = sorted(root.rglob("*.bmp"), key=lambda path: path.name)
    labels = np.array(["ba".index(path.parent.name) for path in paths])
    assert decode(ImageFiles(paths, labels, ("b", "a"), SIZE)).files_sha256 == digest
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, "")
        assert decode(folder(root)).files_sha256 == digest
    digests = {digest}
    for number, (make, _) in enumerate(CHANGES.values(), start=2):
        shutil.copytree(root, tmp_path / str(number))
        make(tmp_path / str(number))
        digests.add(decode(folder(tmp_path / str(number))).files_sha256)
        assert len(digests) == number


def test_the_cache_is_private(tmp_path: Path, cache: Path):
    decode(folder(write_images(tmp_path / "images")))
    for path in (cache, *cache.rglob("*")):
        assert path.stat().st_mode & (0o077 if path.is_dir() else 0o022) == 0, path


# --------------------------------------------------------------------------------- images amiss


def test_after_bad_images_are_mended_only_they_are_decoded(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    good = {name: (root / "a" / name).read_bytes() for name in ("4.bmp", "8.bmp")}
    for name in good:
        (root / "a" / name).write_bytes(b"BM no image")
    for expected in (20, 2):  # those are tried again
        with opened() as names, pytest.raises(DataError, match=r"a/4\.bmp.*a/8\.bmp"):
            decode(folder(root))
        assert len(names) == expected
    (root / "a" / "4.bmp").write_bytes(good["4.bmp"])
    (root / "a" / "8.bmp").unlink()
    assert check(root) == ["4.bmp"]


def test_the_limit_of_pixels_holds_for_what_is_kept(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    Image.new("RGB", (30, 30)).save(root / "b" / "5.bmp")
    decode(folder(root))
    with pytest.raises(DataError, match=r"b/5\.bmp: 30x30 .* max_pixels 100;") as caught:
        decode(folder(root, max_pixels=100))
    assert str(caught.value).count("max_pixels") == 1
    assert check(root) == []
    shutil.rmtree(cache)
    for limit, count in ((100, 20), (900, 1)):
        with opened() as names:
            try:
                decode(folder(root, max_pixels=limit))
            except DataError:
                assert limit == 100
        assert len(names) == count


def test_an_image_that_changes_meanwhile_is_not_kept_as_it_was(tmp_path: Path):
    root = write_images(tmp_path / "images", 2000)
    dataset = folder(root)

    def overwrite(done: int, total: int) -> None:
        if done == 1:
            write(root / "b" / "1999.bmp", 5000)

    with pytest.raises(DataError, match=r"1999\.bmp: changed"):
        decode(dataset, overwrite)
    assert check(root) == ["1999.bmp"]


# --------------------------------------------------------------- off, elsewhere, not written to


def in_memory(root: Path) -> list[str]:
    """Decode where nothing can be kept; the warnings."""
    warned: list[str] = []
    arrays = decode(folder(root), warn=warned.append)
    assert not isinstance(arrays.images, np.memmap)
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))
    return warned


def test_turned_off_nothing_is_kept_and_nothing_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)
    assert in_memory(write_images(tmp_path / "images")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_unless_named_the_cache_is_in_the_usual_place(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    images = decode(folder(write_images(tmp_path / "images"))).images
    assert isinstance(images, np.memmap)
    usual = tmp_path / "mine" if variable == "XDG_CACHE_HOME" else tmp_path / "mine" / ".cache"
    assert usual / "fewshot" / "images" in Path(str(images.filename)).parents


def test_where_nothing_can_be_written_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_images(tmp_path / "images")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    (line,) = in_memory(root)
    assert str(tmp_path / "file" / "cache") in line
    assert VARIABLE in line
    assert "\n" not in line
    with pytest.warns(UserWarning, match="not kept"):
        decode(folder(root))


def test_a_read_only_cache_is_read(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)
    (inner,) = cache.iterdir()
    for path in (inner, cache):
        path.chmod(0o500)
    try:
        if os.access(cache, os.W_OK):
            pytest.skip("this user may write anywhere")
        assert check(root) == []
        write(root / "a" / "4.bmp", 99)
        assert len(in_memory(root)) == 1
    finally:
        for path in (cache, inner):
            path.chmod(0o700)


def test_what_is_kept_is_read_without_a_write(tmp_path: Path, cache: Path):
    root = write_images(tmp_path / "images")
    check(root)

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob("*"))}

    (lock,) = cache.rglob("lock")
    lock.unlink()
    before = times()
    assert isinstance(decode(folder(root)).images, np.memmap)
    assert times() == before


def test_other_arrays_say_nothing_of_files():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert ArrayDataset(images, [0, 1], ("a", "b")).files_sha256 is None

"""Images as people have them: nested, zipped, rotated, damaged."""

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fewshot.core.draws import Episode
from fewshot.core.errors import DataError
from fewshot.data.datasets import ArrayDataset, ArraysOptions, arrays, decode, from_arrays
from fewshot.data.episode_files import read_episode, write_episode
from fewshot.data.folders import (
    ImageFiles,
    ImageFolderOptions,
    find_classes,
    image_folder,
)
from fewshot.data.images import read
from fewshot.data.natural import natural
from fewshot.data.split import ClassSplit
from fewshot.data.walk import walk

SIZE = 8


def picture(seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def save(path: Path, seed: int = 0, size: int = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path)
    return path


def folder(root: Path, **more: object) -> ImageFiles:
    return image_folder(ImageFolderOptions(path=str(root), size=SIZE, **more))


def two_classes(root: Path, *files: str) -> Path:
    """Classes a and b, one good image each, and further files to make in a."""
    for i, name in enumerate(("a/1.png", "b/1.png")):
        save(root / name, i)
    for i, name in enumerate(files):
        save(root / name, 2 + i)
    return root


def zipped(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path


def files_below(place: Path) -> list[Path]:
    return [Path(file.path) for file in walk(place).top.below()]


def names(dataset: ImageFiles) -> list[str]:
    return [Path(path).name for path in dataset.names]


# ----------------------------------------------------------------------------- what is found


@pytest.mark.parametrize("depth", ["", "data", "data/archive/train"])
@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_classes_are_found_at_any_depth(depth: str, pack: bool, tmp_path: Path):
    root = tmp_path / "root"
    two_classes(root / depth)
    place = zipped(root, tmp_path / "images.zip") if pack else root
    dataset = folder(place)
    assert dataset.classes == ("a", "b")
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.groups is None
    for i in range(2):
        np.testing.assert_array_equal(dataset[i], picture(i))


def test_a_zip_file_holds_what_its_folder_holds(tmp_path: Path):
    root = two_classes(tmp_path / "root", "a/10.png", "a/2.png", "a/x.jpg", "b/7.bmp")
    plain, packed = folder(root), folder(zipped(root, tmp_path / "images.zip"))
    assert packed.classes == plain.classes
    assert names(packed) == names(plain)
    np.testing.assert_array_equal(packed.labels, plain.labels)
    np.testing.assert_array_equal(decode(packed).images, decode(plain).images)


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_hidden_files_and_files_that_are_no_images_are_passed_over(pack: bool, tmp_path: Path):
    root = two_classes(
        tmp_path / "root",
        "a/.hidden.png",
        ".git/1.png",
        "__MACOSX/a/1.png",
        "__MACOSX/b/1.png",
        "loose.png",
    )
    (root / "a" / "notes.txt").write_text("not an image")
    (root / "a" / "._1.png").write_bytes(b"what macOS leaves")
    (root / "empty").mkdir()
    (root / "papers").mkdir()
    (root / "papers" / "README.md").write_text("no class")
    (root / "a" / "folder.png").mkdir()
    dataset = folder(zipped(root, tmp_path / "images.zip") if pack else root)
    assert dataset.classes == ("a", "b")
    assert names(dataset) == ["1.png", "1.png"]


LOOPS = {
    "to the folder itself": ("back", "."),
    "to the folder above": ("back", ".."),
    "from a class": ("a/back", "."),
    "from a class to the root": ("a/back", ".."),
    "from beside the classes": ("data/back", "../.."),
    "to the link itself": ("back", "back"),
    "of an image to itself": ("a/2.png", "2.png"),
    "to nothing": ("back", "nothing"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("come_by", ["root", "elsewhere/link"])
def test_a_link_that_leads_nowhere_or_back_is_passed_over(loop: str, come_by: str, tmp_path: Path):
    root = tmp_path / "root"
    for name in "ab":
        save(root / name / "1.png")
    (root / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(root)
    at, target = LOOPS[loop]
    (root / at).symlink_to(target)
    place = tmp_path / come_by
    assert {name: len(files) for name, files in find_classes(place).folders.items()} == {
        "a": 1,
        "b": 1,
    }
    assert [*files_below(place)] == [place / name / "1.png" for name in "ab"]


def test_links_that_lead_into_each_other_end(tmp_path: Path):
    for name, other in ("ab", "ba"):
        save(tmp_path / name / "1.png")
        (tmp_path / name / "x").symlink_to(f"../{other}")
    assert [str(path.relative_to(tmp_path)) for path in files_below(tmp_path)] == [
        "a/1.png", "b/1.png",
    ]  # fmt: skip


def test_other_links_are_followed(tmp_path: Path):
    for name in "ab":
        save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "chosen").mkdir()
    for name in "ab":
        (tmp_path / "chosen" / f"of {name}").symlink_to(f"../photos/{name}")
    assert [*find_classes(tmp_path / "chosen").folders] == ["of a", "of b"]
    assert len([*files_below(tmp_path / "chosen")]) == 2


def test_a_folder_that_is_not_there_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="none: no such file or folder"):
        walk(tmp_path / "none")


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "Png", "bmp", "gif", "webp", "tif", "TIFF"])
def test_every_usual_suffix_is_an_image(suffix: str, tmp_path: Path):
    dataset = folder(two_classes(tmp_path, f"a/2.{suffix}"))
    assert names(dataset) == ["1.png", f"2.{suffix}", "1.png"]
    assert dataset[1].shape == (SIZE, SIZE, 3)
    assert dataset[1].dtype == np.uint8


def test_numbers_are_in_their_natural_order(tmp_path: Path):
    files = [f"a/A{i}.png" for i in (10, 2, 100, 20, 3)]
    dataset = folder(two_classes(tmp_path, *files, "c10/1.png", "c9/1.png"))
    in_a = [name for name, label in zip(names(dataset), dataset.labels, strict=True) if label == 0]
    assert in_a == ["1.png", "A2.png", "A3.png", "A10.png", "A20.png", "A100.png"]
    assert dataset.classes == ("a", "b", "c9", "c10")


@given(st.lists(st.text(max_size=6)))
@settings(max_examples=200)
def test_any_names_have_a_natural_order_which_tells_them_apart(texts: list[str]):
    ordered = sorted(texts, key=natural)
    assert ordered == sorted(sorted(texts, reverse=True), key=natural)
    for one in texts:
        for other in texts:
            assert (natural(one) == natural(other)) == (one == other)


@given(st.text(st.characters(categories=["L"]), max_size=3), st.integers(0), st.integers(0))
def test_the_natural_order_is_that_of_the_numbers(prefix: str, i: int, j: int):
    assert (natural(f"{prefix}{i}.png") < natural(f"{prefix}{j}.png")) == (i < j)


@pytest.mark.parametrize("name", ["x².png", "①.png", "٣.png", "é 1.png", "手.png"])
def test_a_file_may_bear_any_name(name: str, tmp_path: Path):
    dataset = folder(two_classes(tmp_path, f"a/{name}"))
    assert sorted(names(dataset)) == sorted(["1.png", "1.png", name])


# ------------------------------------------------------------------------- what is not usable


def refused(root: Path, **more: object) -> str:
    with pytest.raises(DataError) as caught:
        folder(root, **more)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")


def test_no_folder_at_all_says_how_to_name_one():
    with pytest.raises(DataError, match="--data"):
        image_folder(ImageFolderOptions())


@pytest.mark.parametrize("what", ["empty", "text", "loose", "empty.zip"])
def test_a_folder_without_classes_is_refused(what: str, tmp_path: Path):
    place = tmp_path / what
    if what == "empty.zip":
        zipfile.ZipFile(place, "w").close()
    else:
        place.mkdir()
        if what == "text":
            (place / "a").mkdir()
            (place / "a" / "1.txt").write_text("x")
        if what == "loose":
            save(place / "1.png")
    message = refused(place)
    assert str(place) in message
    assert "one folder of images a class" in message


def test_one_class_is_too_few(tmp_path: Path):
    save(tmp_path / "only" / "1.png")
    message = refused(tmp_path)
    assert "only" in message
    assert "two" in message


def test_two_candidates_are_both_named(tmp_path: Path):
    for name in ("train", "test"):
        two_classes(tmp_path / name)
    message = refused(tmp_path)
    assert str(tmp_path / "train") in message
    assert str(tmp_path / "test") in message
    assert folder(tmp_path / "train").classes == ("a", "b")


def test_a_file_that_is_no_zip_file_is_refused(tmp_path: Path):
    path = tmp_path / "images.zip"
    path.write_text("not a zip file")
    assert str(path) in refused(path)


# -------------------------------------------------------------------------------- what it gives


def as_saved(path: Path, image: Image.Image, **options: object) -> NDArray[np.uint8]:
    """The image saved beside another class, then read by the data set at its own size."""
    save(path / "b" / "1.png")
    (path / "a").mkdir()
    image.save(path / "a" / f"1.{options.pop('suffix', 'png')}", **options)
    return folder(path)[0]


def test_the_exif_orientation_is_applied(tmp_path: Path):
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise when shown
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    np.testing.assert_array_equal(as_saved(tmp_path, stored, exif=exif), upright)


RGB = Image.fromarray(picture())


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "1", "PA"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path):
    image = RGB.convert("P").convert(mode) if mode == "PA" else RGB.convert(mode)
    suffix = "tif" if mode == "PA" else "png"
    got = as_saved(tmp_path, image, suffix=suffix)
    np.testing.assert_array_equal(got, np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path: Path):
    # One colour, which JPEG keeps; 255 is no ink once inverted.
    image = Image.new("RGB", (SIZE, SIZE), (200, 100, 50)).convert("CMYK")
    got = as_saved(tmp_path, image, suffix="jpg", quality=100)
    np.testing.assert_allclose(got, np.full((SIZE, SIZE, 3), (200, 100, 50)), atol=4)


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path):
    grey = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 1000
    got = as_saved(tmp_path, Image.fromarray(grey))
    np.testing.assert_allclose(got[..., 0], grey / 257, atol=1.0)


@pytest.mark.parametrize("sides", [(16, 16), (16, 128)])
def test_a_gradient_that_is_scaled_up_has_no_plateaus(tmp_path: Path, sides: tuple[int, int]):
    width, height = sides
    ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    scaled = read(tmp_path / "ramp.png", (64, 64, 1)).image[32, 4:-4, 0].astype(int)
    assert (np.diff(scaled) > 0).all()


def test_an_image_is_scaled_to_size_by_averaging(tmp_path: Path):
    large = picture(size=4 * SIZE)
    got = as_saved(tmp_path, Image.fromarray(large))
    mean = large.reshape(SIZE, 4, SIZE, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(got, mean, atol=1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_averaged_too(turned: bool, tmp_path: Path):
    smooth = Image.fromarray(picture()).resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    got = as_saved(tmp_path, smooth, suffix="jpg", quality=95, exif=exif).astype(int)
    upright = smooth.rotate(-90, expand=True) if turned else smooth
    exact = np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BOX))
    assert np.abs(got - exact).mean() < 2.5  # JPEG's own loss with it
    assert np.abs(got - exact).max() < 12


def test_a_file_larger_than_its_pixels_can_be_is_not_read_to_its_end(tmp_path: Path):
    root = two_classes(tmp_path)
    with (root / "a" / "2.png").open("wb") as file:
        file.write(header(9, 9, "png"))
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"a/2\.png: more than .* bytes .*max_pixels"):
        _ = folder(root, max_pixels=1000)[1]


@pytest.mark.parametrize("shape", [(3, 31), (31, 3), (1, 1)])
def test_every_image_has_the_asked_for_shape(shape: tuple[int, int], tmp_path: Path):
    assert as_saved(tmp_path, Image.new("RGB", shape)).shape == (SIZE, SIZE, 3)


# -------------------------------------------------------------------------- what is not readable


def header(width: int, height: int, kind: str) -> bytes:
    """A PNG or BMP file that claims a size and holds no pixels."""
    if kind == "bmp":
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 0) + b"IDAT"
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        + struct.pack(">I", zlib.crc32(chunk)) + data + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


def jpeg() -> bytes:
    file = BytesIO()
    Image.fromarray(picture(size=64)).save(file, "JPEG")
    return file.getvalue()


def broken_png() -> bytes:
    """A PNG file whose second chunk of pixels is no chunk."""
    file = BytesIO()
    Image.fromarray(picture(size=20)).save(file, "PNG")
    content = file.getvalue()
    start = content.index(b"IDAT") - 4
    half = struct.unpack(">I", content[start : start + 4])[0] // 2
    data = content[start + 4 : start + 8 + half]
    chunk = struct.pack(">I", half) + data + struct.pack(">I", zlib.crc32(data))
    return content[:start] + chunk + struct.pack(">I", 5) + b"\1\2\3\4" + bytes(30)


BAD = {
    "zero.png": b"",
    "broken.png": broken_png(),
    "cut.jpg": jpeg()[: len(jpeg()) // 2],
    "text.jpg": b"this is no image",
    "huge.png": header(40_000, 40_000, "png"),
    "huge.bmp": header(40_000, 40_000, "bmp"),
    "large.bmp": header(9_000, 9_000, "bmp"),
}


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named(name: str, pack: bool, tmp_path: Path):
    root = two_classes(tmp_path / "root")
    (root / "a" / name).write_bytes(BAD[name])
    dataset = folder(zipped(root, tmp_path / "images.zip") if pack else root)
    with pytest.raises(DataError) as caught:
        decode(dataset)
    assert f"a/{name}" in str(caught.value)
    assert "1.png" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path):
    root = two_classes(tmp_path)
    (root / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        _ = folder(root)[0]


@pytest.mark.parametrize("name", ["huge.png", "huge.bmp", "large.bmp"])
def test_a_gigantic_image_is_refused_for_its_size_before_its_pixels_are_read(
    name: str, tmp_path: Path
):
    root = two_classes(tmp_path)
    (root / "a" / name).write_bytes(BAD[name])
    with pytest.raises(DataError, match="pixels"):  # not "truncated": there are no pixels to read
        decode(folder(root))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 100_000))
def test_max_pixels_is_the_limit(width: int, height: int, limit: int):
    dataset = ImageFiles([Bytes(header(width, height, "png"))], np.array([0]), ("a",), 8, limit)
    with pytest.raises(DataError) as caught:
        _ = dataset[0]
    assert (f"max_pixels {limit}" in str(caught.value)) == (width * height > limit)


class Bytes:
    """A file in memory, with as much of a path as the data set asks for."""

    name = "memory.png"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, mode: str) -> BytesIO:
        assert mode == "rb"
        return BytesIO(self.content)

    def __str__(self) -> str:
        return self.name


def encoded(kind: str) -> bytes:
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    Image.fromarray(picture(size=20)).save(file, kind, **extra)
    return file.getvalue()


KINDS = {kind: encoded(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")}


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_file_is_an_image_or_a_data_error_that_names_it(kind: str, data: st.DataObject):
    content = bytearray(KINDS[kind])
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        content[place] = value
    end = data.draw(st.just(len(content)) | places)
    dataset = ImageFiles([Bytes(bytes(content[:end]))], np.array([0]), ("a",), SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        try:
            image = dataset[0]
        except DataError as error:
            assert "memory.png" in str(error)  # noqa: PT017
        else:
            assert image.shape == (SIZE, SIZE, 3)


def test_a_damaged_zip_file_is_a_data_error_that_names_the_image(tmp_path: Path):
    root = two_classes(tmp_path / "root")
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for name in ("a/1.png", "b/1.png"):
                archive.write(root / name, name)
            start = archive.getinfo("a/1.png").header_offset + 30 + len("a/1.png")
        content = bytearray(path.read_bytes())
        for place in range(start, start + archive.getinfo("a/1.png").compress_size):
            content[place] ^= 0xFF if place > start + 50 or method == zipfile.ZIP_DEFLATED else 0
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a/1\.png"):
            decode(folder(path))


def test_a_file_that_went_away_is_a_data_error_that_names_it(tmp_path: Path):
    dataset = folder(two_classes(tmp_path))
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png"):
        _ = dataset[0]


@pytest.mark.parametrize("count", [1, 5, 6, 9])
def test_up_to_five_bad_files_are_named_and_the_rest_counted(count: int, tmp_path: Path):
    root = two_classes(tmp_path)
    for i in range(count):
        (root / "b" / f"bad{i}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        decode(folder(root))
    message = str(caught.value)
    assert [f"bad{i}.png" in message for i in range(count)] == [i < 5 for i in range(count)]
    assert (f"{count - 5} more" in message) == (count > 5)


# ------------------------------------------------------------------------------------- decode


def test_decode_gives_item_by_item_and_tells_progress(tmp_path: Path):
    dataset = folder(two_classes(tmp_path, "a/2.png", "b/2.png", "c/1.png"))
    told: list[tuple[int, int]] = []
    arrays = decode(dataset, lambda done, total: told.append((done, total)))
    for i in range(5):
        np.testing.assert_array_equal(arrays[i], dataset[i])
    assert told == [(i, 5) for i in range(1, 6)]
    assert (arrays.classes, list(arrays.names)) == (dataset.classes, dataset.names)
    np.testing.assert_array_equal(arrays.labels, dataset.labels)


def test_decode_takes_the_data_sets_own_way_and_keeps_its_groups_and_split():
    class Own:
        classes = ("a", "b")
        labels = np.array([0, 1])
        groups = np.array([4, 9])
        split = ClassSplit(["a"], [], ["b"])

        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            raise AssertionError("load is there")

        def load(self, progress: Callable[[int, int], None] | None) -> NDArray[np.uint8]:
            return np.stack([picture(5), picture(6)])

    arrays = decode(Own())
    np.testing.assert_array_equal(arrays[1], picture(6))
    assert arrays.groups is not None
    assert arrays.groups.tolist() == [4, 9]
    assert arrays.split == Own.split


def test_decode_of_nothing_is_refused():
    empty = ImageFiles([], np.zeros(0, np.int64), ("a", "b"), SIZE)
    with pytest.raises(DataError, match="no images"):
        decode(empty)


# --------------------------------------------------------------------------------- own arrays


def images(n: int) -> NDArray[np.uint8]:
    return np.zeros((n, 2, 2, 3), np.uint8)


def test_labels_may_be_names():
    dataset = from_arrays(images(4), ["dog", "cat", "dog", "ant"], groups=["x", "y", "x", "x"])
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [2, 1, 2, 0]
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1, 0, 0]


def test_roles_are_kept_where_a_dataset_is_decoded_and_in_a_file(tmp_path: Path):
    role = ["support", "query", "both", "query"]
    dataset = from_arrays(images(4), ["a", "b", "a", "b"], role=role)
    np.savez(tmp_path / "roles.npz", images=dataset.images, labels=dataset.labels, role=role)
    read = arrays(ArraysOptions(str(tmp_path / "roles.npz")))
    for found in (dataset, decode(dataset), read):
        assert found.role is not None
        assert found.role.tolist() == role


@pytest.mark.parametrize(
    ("role", "says"), [(["support"] * 3, "4 images, but 3 roles"), (["probe"] * 4, "'probe'.*both")]
)
def test_roles_that_are_none_are_refused(role: list[str], says: str):
    with pytest.raises(DataError, match=says):
        from_arrays(images(4), ["a", "b", "a", "b"], role=role)


@given(
    st.lists(
        st.integers(-(2**70), 2**70)
        | st.sampled_from([2**53, 2**53 + 1, 2**63, 2**63 + 1, 2**64, -1, 0]),
        min_size=1,
        max_size=6,
    )
)
def test_labels_may_be_numbers_of_any_size(labels: list[int]):
    dataset = from_arrays(images(len(labels)), labels)
    assert sorted(dataset.classes) == sorted(str(label) for label in set(labels))
    assert [dataset.classes[i] for i in dataset.labels] == [str(label) for label in labels]


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=6))
def test_groups_may_be_numbers_of_any_size(groups: list[int]):
    dataset = from_arrays(images(len(groups)), [0] * len(groups), groups)
    assert dataset.groups is not None
    same = np.equal.outer(dataset.groups, dataset.groups)
    np.testing.assert_array_equal(same, [[a == b for b in groups] for a in groups])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "uint8"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, r"\(n, h, w, c\)"),
        ({"labels": [0]}, "2 images, but 1 labels"),
        ({"labels": [0, 2]}, r"0\.\.1"),
        ({"labels": [-1, 0]}, r"0\.\.1"),
        ({"labels": [0.0, 1.0]}, "integers"),
        ({"labels": [[0, 1]]}, "integers"),
        ({"groups": np.array([1])}, "2 images, but 1 groups"),
        ({"classes": ["a", "a"]}, "one name"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], wanted: str):
    sound: dict[str, object] = {"images": images(2), "labels": [0, 1], "classes": ["a", "b"]}
    assert len(ArrayDataset(**sound).labels) == 2
    with pytest.raises(DataError, match=wanted):
        ArrayDataset(**{**sound, **change})


# --------------------------------------------------------------- episodes, written down


@given(st.data())
def test_an_episode_written_down_is_replayed_on_the_same_images(data: st.DataObject):
    dataset = from_arrays(images(12), [f"c{i % 4}" for i in range(12)])
    chosen = data.draw(st.lists(st.integers(0, 11), min_size=5, unique=True))
    labels = [dataset.labels[i] for i in chosen]
    support = [i for n, i in enumerate(chosen) if labels.index(labels[n]) == n]
    query = [i for i in chosen if i not in support]
    names = [dataset.classes[c] for c in dataset.labels]
    task = Episode.of(support, [names[i] for i in support], query, [names[i] for i in query])
    written = json.loads(json.dumps(write_episode(dataset, task)))
    again = read_episode(dataset, written)
    assert sorted(again.items[again.support]) == sorted(support)
    assert sorted(again.items[again.query]) == sorted(query)
    for positions, of in ((again.support, again.support_labels), (again.query, again.query_labels)):
        for item, label in zip(again.items[positions], of, strict=True):
            assert again.classes[label] == names[item]


def test_an_episode_of_images_that_are_gone_is_refused_by_name():
    dataset = from_arrays(images(4), ["a", "a", "b", "b"])
    with pytest.raises(DataError, match="'a/9'"):
        read_episode(dataset, {"support": {"a": ["a/9"]}, "query": {}})

"""Folders of images as people have them: nested, zipped, linked, misnamed."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import SIZE, files_below, folder, names, picture, save, two_classes, zipped

from fewshot.core.errors import DataError
from fewshot.data.datasets import decode
from fewshot.data.folders import ImageFolderOptions, find_classes, image_folder
from fewshot.data.natural import natural
from fewshot.data.walk import walk

# -------------------------------------------------------------------------------- what is found


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
    with pytest.raises(DataError, match="no such file or folder; download it first"):
        walk(Path("https://example.org/photos.zip"))


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


# --------------------------------------------------------------------------- what is not usable


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

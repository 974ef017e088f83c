"""One rule for folders: what is taken, what is left out, and that it is said."""

import io
import itertools
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data.folders import Found, find_classes, grouped, image_folder
from fewshot.data.folders import ImageFolderOptions as Options
from fewshot.data.split import ClassSplit
from fewshot.data.walk import walk


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "red").save(root / name, "PNG")
    return root


def counts(found: Found) -> dict[str, int]:
    return {name: len(files) for name, files in found.folders.items()}


def note(found: Found, about: str) -> str:
    (line,) = (line for line in found.notes if about in line)
    return line


LAYOUTS = {
    "an image more deeply": (
        ["a/1.png", "b/1.png", "b/more/1.png", "b/more/2.png"],
        {"a": 1, "b": 3},
        "taken as that class's: 2 (2 in b/more)",
    ),
    "as Tiny ImageNet": (["n0/images/0.png", "n1/images/0.png"], {"n0": 1, "n1": 1}, "1 in n0/im"),
    "by days": (
        ["dog/d1/1.png", "dog/d2/1.png", "cat/d1/1.png", "cat/d2/1.png", "cat/d2/2.png"],
        {"cat": 3, "dog": 2},
        "the classes are 2: cat, dog",
    ),
    "uneven": (["a/1.png", "b/1.png", "c/x/y/1.png"], {"a": 1, "b": 1, "c": 1}, "1 in c/x/y"),
    "beside the classes": (
        ["data/a/1.png", "data/b/1.png", "samples/1.png", "cover.png"],
        {"a": 1, "b": 1},
        "belong to no class: 2 (1 in samples, 1 in the folder itself)",
    ),
    "a class left empty": (["a/1.png", "b/1.png", "c/.1.png"], {"a": 1, "b": 1}, "hidden images"),
}


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_taken_and_left_out_is_said(layout: str, pack: bool, tmp_path: Path):
    names, taken, said = LAYOUTS[layout]
    root = made(tmp_path / "root", *names)
    if pack:
        with zipfile.ZipFile(tmp_path / "root.zip", "w") as archive:
            for name in names:
                archive.write(root / name, name)
        root = tmp_path / "root.zip"
    found = find_classes(root)
    assert counts(found) == taken
    assert said in " ".join(found.notes)
    assert image_folder(Options(path=str(root))).notes == found.notes


trees = st.lists(
    st.lists(st.sampled_from("abc"), min_size=0, max_size=3).map("/".join), min_size=1, max_size=8
)


def laid_out(root: Path, places: list[str]) -> list[str]:
    """Empty image files, one in each of these folders; their paths from `root`."""
    names = [f"{place}/{i}.png".lstrip("/") for i, place in enumerate(places)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return names


@given(trees)
@settings(max_examples=40)
def test_every_image_is_taken_or_said_to_be_left_out(
    tmp_path_factory: pytest.TempPathFactory, places: list[str]
):
    root = tmp_path_factory.mktemp("tree")
    names = laid_out(root, places)
    if not any(places):
        with pytest.raises(
            DataError, match=rf"no folder with images.*\({len(names)} in the folder"
        ):
            find_classes(root, fewest=1)
        return
    found = find_classes(root, fewest=1)
    taken = [str(file) for files in found.folders.values() for file in files]
    assert len(taken) == len({*taken})
    left = len(names) - len(taken)
    assert sum("belong to no class" in line for line in found.notes) == bool(left)
    assert not left or f"belong to no class: {left} (" in note(found, "belong to no class")
    for label, files in found.folders.items():  # a class is a folder with all that is below it
        assert len({str(file).removesuffix(file.name) for file in files}) == 1
        assert str(files[0]).removesuffix(f"/{files[0].name}").endswith(f"/{label}")


# -------------------------------------------------------------------------------- leaves


@given(trees)
@settings(max_examples=40)
def test_with_leaves_every_folder_with_images_is_a_class_named_by_its_path(
    tmp_path_factory: pytest.TempPathFactory, places: list[str]
):
    root = tmp_path_factory.mktemp("tree")
    laid_out(root, places)
    if not any(places):
        with pytest.raises(DataError, match="no folder with images"):
            find_classes(root, fewest=1, leaves=True)
        return
    found = find_classes(root, fewest=1, leaves=True)
    assert len(found.folders) == len({*filter(None, places)})
    ends = set()
    for label, files in found.folders.items():
        (folder,) = {Path(str(file)).parent for file in files}
        assert {file.name for file in files} == {path.name for path in folder.glob("*.png")}
        ends.add(str(folder.relative_to(root)).removesuffix(label))
    assert len(ends) == 1  # all paths start from one folder
    loose = places.count("")
    assert any(f"belong to no class: {loose} (" in line for line in found.notes) == bool(loose)


UNEVEN = ["birds/owl/1.png", "birds/wren/2.png", "cat/1.png", "fish/sea/cod/1.png"]


@pytest.mark.parametrize("above", ["", "data/all/"])
def test_leaves_of_uneven_depth_are_classes_in_order_of_their_paths(above: str, tmp_path: Path):
    root = made(tmp_path / "root", *(above + name for name in UNEVEN))
    dataset = image_folder(Options(path=str(root), leaves=True, size=8))
    assert dataset.classes == ("birds/owl", "birds/wren", "cat", "fish/sea/cod")
    assert dataset.names == [
        "birds/owl/1.png",
        "birds/wren/2.png",
        "cat/1.png",
        "fish/sea/cod/1.png",
    ]
    assert "leaves=true" in " ".join(find_classes(root).notes)


def test_leaves_of_parts_are_the_split(tmp_path: Path):
    root = made(tmp_path, *(f"train/{name}" for name in UNEVEN), "test/x/y/1.png", "test/z/1.png")
    found = find_classes(root, leaves=True)
    assert found.split == ClassSplit(
        ["birds/owl", "birds/wren", "cat", "fish/sea/cod"], [], ["x/y", "z"]
    )
    assert "train 4, test 2 classes" in note(found, "are the class split")


# -------------------------------------------------------------------------------- groups


def groups_of(root: Path, groups: str) -> dict[str, int]:
    dataset = image_folder(Options(path=str(root), groups=groups))
    assert dataset.groups is not None
    assert dataset.groups.dtype == np.int64
    return dict(zip(dataset.names, dataset.groups.tolist(), strict=True))


def test_subfolders_of_a_class_are_its_groups(tmp_path: Path):
    days = [
        "cat/d1/1.png",
        "cat/d1/2.png",
        "cat/d2/1.png",
        "dog/d1/1.png",
        "dog/d2/1.png",
        "dog/1.png",
        "dog/2.png",
    ]
    root = made(tmp_path, *days)
    found = groups_of(root, "subfolders")
    same = {(a, b) for a in days for b in days if found[a] == found[b] and a < b}
    assert same == {  # of one name, in whatever class; images without one are alone
        ("cat/d1/1.png", "cat/d1/2.png"),
        ("cat/d1/1.png", "dog/d1/1.png"),
        ("cat/d1/2.png", "dog/d1/1.png"),
        ("cat/d2/1.png", "dog/d2/1.png"),
    }
    (line,) = (
        n
        for n in image_folder(Options(path=str(root), groups="subfolders")).notes
        if "groups:" in n
    )
    assert line == (
        "groups: 2, of 5 images (d1, d2); images without one, each a group of its own: 2 "
        "(dog/1.png, dog/2.png)"
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["p1", "p2", "x"])), min_size=1))
def test_groups_are_what_the_parentheses_hold(pairs: list[tuple[str, str]]):
    names = [f"{person}_{i}.png" for i, (_, person) in enumerate(pairs)]
    keys = [match and match[1] for match in (re.search(r"(p\d)_", name) for name in names)]
    numbers, line = grouped(keys, names)
    if not any(keys):
        assert numbers is None
        return
    assert numbers is not None
    for a, b in itertools.combinations(range(len(keys)), 2):
        assert (numbers[a] == numbers[b]) == (keys[a] is not None and keys[a] == keys[b])
    assert f"groups: {len({*filter(None, keys)})}, of {sum(map(bool, keys))} images" in line


def test_groups_of_a_pattern_and_one_that_finds_none(tmp_path: Path):
    root = made(tmp_path, "a/ann-1.png", "a/bob-1.png", "b/ann-2.png", "b/bob-2.png")
    found = groups_of(root, "^(.+)-")
    assert found["a/ann-1.png"] == found["b/ann-2.png"] != found["a/bob-1.png"]
    with pytest.raises(DataError, match=r"no image has a group by groups = '\^\(x\)'.*'ann-1.png'"):
        groups_of(root, "^(x)")


@pytest.mark.parametrize("groups", ["(", ".+", "(a)(b)", "sub"])
def test_a_pattern_that_is_none_is_refused_by_name(groups: str):
    with pytest.raises(ValueError, match="'groups'"):
        Options(groups=groups)


# -------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_of_parts_with_their_own_classes_are_the_split(val: str, tmp_path: Path):
    root = made(
        tmp_path / "x", "train/c10/1.png", "train/c2/1.png", f"{val}/a/1.png", "Test/d/1.png"
    )
    found = find_classes(root)
    assert [*found.folders] == ["a", "c2", "c10", "d"]
    assert found.split == ClassSplit(["c2", "c10"], ["a"], ["d"])
    assert "train 2, val 1, test 1 classes" in note(found, "are the class split")
    assert image_folder(Options(path=str(root))).split == found.split


def test_parts_with_one_class_in_two_are_refused_by_name(tmp_path: Path):
    root = made(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
    with pytest.raises(DataError, match=f"'a' is in {root}/train/a and in {root}/test/a"):
        find_classes(root)


def test_a_part_without_classes_is_no_part(tmp_path: Path):
    found = find_classes(made(tmp_path, "train/a/1.png", "train/b/1.png", "test/1.png"))
    assert (counts(found), found.split) == ({"a": 1, "b": 1}, None)
    assert "1 in test" in note(found, "belong to no class")


# ------------------------------------------------------------------ links, rights, endings


def test_every_folder_is_read_once_however_many_links_lead_there(tmp_path: Path):
    names = [f"c{i}" for i in range(9)]
    root = made(tmp_path / "root", *(f"{name}/1.png" for name in names))
    for name in names:  # 9! ways along the links
        for other in names:
            (root / name / f"to {other}").symlink_to(f"../{other}")
    found = find_classes(root)
    assert counts(found) == dict.fromkeys(names, 1)
    assert "passed over: 81 (" in note(found, "links to nothing")


@pytest.mark.parametrize("what", ["listed", "entered"])
def test_what_may_not_be_read_is_said_and_the_rest_is_read(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = made(tmp_path, "a/1.png", "b/1.png", "closed/1.png")
    function = {"listed": "scandir", "entered": "stat"}[what]
    honest = getattr(os, function)

    def refusing(path: object, *rest: object, **more: object) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path, *rest, **more)

    monkeypatch.setattr(os, function, refusing)  # root may read everything
    found = find_classes(root)
    assert (counts(found), found.unreadable) == ({"a": 1, "b": 1}, 1)
    assert "left out: 1 (closed)" in note(found, "may not be read")


def test_a_path_that_cannot_be_looked_at_is_named():
    with pytest.raises(DataError, match=f"{'x' * 300}: cannot be read"):
        walk(Path("x" * 300))


def test_endings_that_are_read_and_those_that_are_not(tmp_path: Path):
    read = ["a/1.JFIF", "a/2.jpe", "a/3.avif", "b/1.pgm", "b/2.ppm", "b/3.pbm", "b/4.pnm"]
    root = made(tmp_path, *read, "b/1.heic", "lost/1.heic", "lost/2.heic", "lost/notes")
    found = find_classes(root)
    assert counts(found) == {"a": 3, "b": 4}
    assert "passed over: 4 (.heic 3, no ending 1)" in note(found, "no images by their names")
    assert "no classes: 1 (lost)" in note(found, "without an image")


def test_a_pipe_is_no_image(tmp_path: Path):
    os.mkfifo(made(tmp_path, "a/1.png", "b/1.png") / "a" / "2.png")
    assert counts(find_classes(tmp_path)) == {"a": 1, "b": 1}


def test_folders_may_be_deeper_than_python_recurses(tmp_path: Path):
    name = "/".join(["d"] * 1200)
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as archive:
        for label in "ab":
            archive.writestr(f"{name}/{label}/1.png", b"")
    assert counts(find_classes(tmp_path / "deep.zip")) == {"a": 1, "b": 1}


# --------------------------------------------------------------------------------- names


def test_names_that_are_no_text_are_refused_by_name(tmp_path: Path):
    made(tmp_path, "a/1.png", "b/1.png")
    os.rename(os.fsencode(tmp_path / "b"), os.fsencode(tmp_path) + b"/\xff\xfe")  # noqa: PTH104
    with pytest.raises(DataError, match=r"no text in UTF-8: 1 \(\\xff\\xfe\)") as caught:
        find_classes(tmp_path)
    str(caught.value).encode()
    with pytest.raises(DataError, match=r"no text in UTF-8: 1 .*\\xff"):
        find_classes(made(tmp_path / "above\udcff", "a/1.png", "b/1.png"))


def test_names_that_no_class_may_have_are_refused(tmp_path: Path):
    for i, other in enumerate(("c\u200bup", "\ufeffcup", "cup\u00ad", "c\x07", "\u202ec", "  ")):
        with pytest.raises(DataError, match=r"can be no class's name: .*; rename it"):
            find_classes(made(tmp_path / str(i), "cup/1.png", f"{other}/1.png"))
    long = made(tmp_path / "long", f"{'é' * 100}/{'n' * 60}/1.png", "b/1.png")
    with pytest.raises(DataError, match="it has 261 bytes in UTF-8, and 255 are the most"):
        find_classes(long, leaves=True)
    named = ["می\u200cخواهم", "👨\u200d👩\u200d👧", "東京\u3000タワー", "n" * 255]
    found = find_classes(made(tmp_path / "sound", *(f"{name}/1.png" for name in named)))
    assert {*found.folders} == {*named}


COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"


@pytest.mark.parametrize("leaves", [False, True])
def test_names_that_are_one_but_for_their_form_and_spaces_are_one_class(
    leaves: bool, tmp_path: Path
):
    assert [*find_classes(made(tmp_path, f"{DECOMPOSED}/1.png", "b/1.png")).folders] == [
        "b", COMPOSED,
    ]  # fmt: skip
    root = made(tmp_path, f"{COMPOSED}/1.png", f"{COMPOSED}/2.png", f" {COMPOSED} /1.png")
    found = find_classes(root, leaves=leaves)
    assert counts(found) == {"b": 1, COMPOSED: 4}
    assert "3 names are one class" in note(found, "one class")
    assert len({str(file) for file in found.folders[COMPOSED]}) == 4
    names = [file.name for file in found.folders[COMPOSED]]
    assert sorted(names) == ["1 (2).png", "1 (3).png", "1.png", "2.png"]  # each is one image's


def test_two_folders_of_one_name_are_one_class_only_and_of_one_part_only(tmp_path: Path):
    root = made(tmp_path / "one", f"{COMPOSED}/1.png", f"{DECOMPOSED}/1.png")
    with pytest.raises(DataError, match=r"one class only.*2 names are one class"):
        find_classes(root)
    assert counts(find_classes(root, fewest=1)) == {COMPOSED: 2}
    for part, other in itertools.permutations((COMPOSED, DECOMPOSED)):
        root = made(tmp_path / part, f"train/{part}/1.png", f"train/{other}/1.png", "val/b/1.png")
        found = find_classes(root)
        assert found.split == ClassSplit([COMPOSED], ["b"], [])
        assert "train 1, val 1" in note(found, "class split")
        made(root, f"val/{other}/1.png")
        with pytest.raises(DataError, match=f"class '{COMPOSED}' is in .*train.* and in .*val"):
            find_classes(root)


@pytest.mark.parametrize("other", ["c\u200dup", "\uff43up", "c\u200cup"])
def test_classes_whose_names_look_alike_are_said_to_be_two(other: str, tmp_path: Path):
    found = find_classes(made(tmp_path, "cup/1.png", f"{other}/1.png"))
    assert {*found.folders} == {"cup", other}
    assert "2 classes are written alike" in note(found, "alike")


@pytest.mark.parametrize("system", [0, 3], ids=["Windows", "unix"])
def test_backslashes_part_names_where_nothing_else_does(system: int, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("data\\a\\1.png", "data\\b\\1.png"):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, b"x")
    assert counts(find_classes(tmp_path / "x.zip")) == {"a": 1, "b": 1}


def test_names_of_an_encoding_that_is_not_told_are_said(tmp_path: Path):
    class Told(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own
            return self.filename.encode("cp932"), 0

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("\u732b", "\u72ac"):
            archive.writestr(Told(f"{name}/1.png"), b"x")
    found = find_classes(tmp_path / "x.zip")
    assert len(found.folders) == 2
    assert "read as code page 437: 2 (" in note(found, "encoding")


def test_a_backslash_within_a_japanese_letter_parts_nothing(tmp_path: Path):
    class OfWindows(zipfile.ZipInfo):
        def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own
            return self.filename.encode("cp932"), 0

    names = ("\u8868", "\u80fd\u8868")  # 0x95 0x5C, of which 0x5C is a backslash
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in names:
            info = OfWindows(f"{name}/1.png")
            info.create_system = 0
            with io.BytesIO() as png:
                Image.new("RGB", (4, 4), "red").save(png, "PNG")
                archive.writestr(info, png.getvalue())
    dataset = image_folder(Options(path=str(tmp_path / "x.zip"), size=8))
    assert len(dataset.classes) == 2
    assert sorted(name.count("\\") for name in dataset.classes) == [1, 2]
    assert dataset[0].shape == dataset[1].shape == (8, 8, 3)
    assert "read as code page 437: 2 (" in " ".join(dataset.notes)


def test_a_member_too_large_for_an_image_is_refused_before_it_is_inflated(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", b"\x89PNG\r\n\x1a\n" + bytes(3 << 20))
        archive.writestr("b/1.png", b"")
    dataset = image_folder(Options(path=str(tmp_path / "x.zip"), max_pixels=1000))
    (member, _) = dataset.paths
    member.archive.close()  # reading it would say that
    with pytest.raises(DataError, match="more than the 1056576 bytes"):
        dataset[0]


def test_a_walk_is_in_order_of_name(tmp_path: Path):
    names = ["1.png", "2.png", "10.png", "a/1.png", "a2/1.png", "a10/1.png"]
    found = walk(made(tmp_path, *names))
    assert [file.name for file in found.top.below()] == names
    assert not found.notes()

"""`fewshot data`: what a check finds is what a run meets; a fetched data set is found by a run."""

import contextlib
import sys
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewshot import Component, DataError, ImageFolderOptions, image_folder
from fewshot.catalogue.registry import Registered, Registry
from fewshot.cli import data as data_commands
from fewshot.cli import main
from fewshot.data.datasets import ArrayDataset, decode
from fewshot.data.survey import survey

RNG = np.random.default_rng(0)


def save(path: Path, width: int = 70, height: int = 70) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


def packed(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path for path in root.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(root))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cat", "dog", "owl", "wren"):
        for i in range(12):
            save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path / "photos"


def fewshot(*words: object) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["fewshot", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


# -------------------------------------------------------------------------------------- check


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_a_good_folder_is_good(photos: Path, pack: bool):
    path = packed(photos) if pack else photos
    wanted = ("--set", "sampler.per_class=3", "--set", "split.test_fraction=0.5")
    code, out, _ = fewshot("data", "check", path, *wanted)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    for name in ("cat", "dog", "owl", "wren"):
        (row,) = (row for row in rows if row[:1] == [name])
        assert row[1] in ("train", "val", "test")
        assert row[2:] == ["12", "0", "0", "70x70", "70x70", "-"]
    assert ["4", "classes", "48", "0", "0"] in rows
    assert "A run would take this." in out
    assert "hint" not in out


def stray(photos: Path) -> str:
    save(photos / "stray.png")
    return "belong to no class: 1 (1 in the folder itself)"


def hidden(photos: Path) -> str:
    save(photos / "owl" / ".mine.png")
    save(photos / ".trash" / "x.png")
    (photos / "owl" / "._0.jpg").write_bytes(b"macOS")
    return "hidden images, passed over: 2"


def no_image(photos: Path) -> str:
    (photos / "owl" / "a.HEIC").write_bytes(b"x")
    (photos / "notes").write_text("x")
    return "no images by their names, passed over: 2 (no ending 1, .heic 1)"


def copy_in_class(photos: Path) -> str:
    (photos / "owl" / "again.jpg").write_bytes((photos / "owl" / "1.jpg").read_bytes())
    return "copies of another image of their class: 1"


def copy_elsewhere(photos: Path) -> str:
    (photos / "wren" / "again.jpg").write_bytes((photos / "owl" / "1.jpg").read_bytes())
    return "owl/1.jpg and wren/again.jpg are one picture in two classes"


def case_of_class(photos: Path) -> str:
    for i in range(12):
        save(photos / "Owl" / f"{i}.jpg")
    return "Owl and owl differ only in case"


def case_of_image(photos: Path) -> str:
    save(photos / "owl" / "1.JPG")
    return "owl/1.JPG and owl/1.jpg differ only in case"


def tiny(photos: Path) -> str:
    save(photos / "owl" / "tiny.png", 9, 9)
    return "smaller than the 64x64 they are scaled to: 1"


def wide(photos: Path) -> str:
    save(photos / "owl" / "wide.png", 300, 80)
    return "far from square, squeezed to 64x64: 1"


def large(photos: Path) -> str:
    Image.new("L", (4000, 3100)).save(photos / "owl" / "large.png")
    return "over 12 million pixels: 1"


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    "spoil",
    [stray, hidden, no_image, copy_in_class, copy_elsewhere, case_of_class, case_of_image, tiny,
     wide, large],
)  # fmt: skip
def test_a_hint_names_what_could_be_better_and_a_run_takes_it(
    spoil: Callable[[Path], str], photos: Path, pack: bool
):
    hint = spoil(photos)
    path = packed(photos) if pack else photos
    dataset = image_folder(ImageFolderOptions(path=str(path)))
    found = survey(dataset)
    assert not found.faults
    assert len(found.hints) == 1
    assert hint in found.hints[0]
    decode(dataset)  # it is a hint, no fault


def test_few_photos_of_a_class_are_enough_where_nothing_is_trained(tmp_path: Path):
    for name in ("cup", "key", "pen"):
        for number in range(3):
            save(tmp_path / name / f"{number}.png", 30 + number, 40)
    code, out, _ = fewshot("data", "check", tmp_path)
    assert code == DataError.exit_code
    assert "hint: a run without training would take it: --preset photos, --steps 0" in out
    assert fewshot("data", "check", tmp_path, "--set", "training.steps=0")[0] == 0


def test_every_unreadable_image_is_named_and_counted_as_a_run_names_it(photos: Path):
    for name in ("broken.png", "empty.jpg"):
        (photos / "owl" / name).write_bytes(b"x" if "broken" in name else b"")
    save(photos / "dog" / "huge.png", 100, 71)
    options = ("--set", "dataset.max_pixels=7000")
    code, out, err = fewshot("data", "check", photos, *options)
    assert code == DataError.exit_code
    assert "a run would refuse" in err
    faults = [line for line in out.splitlines() if line.startswith("fault: ")]
    assert len(faults) == 3
    dataset = image_folder(ImageFolderOptions(path=str(photos), max_pixels=7000))
    with pytest.raises(DataError) as refusal:
        decode(dataset)
    for fault in faults:
        assert fault.removeprefix("fault: ").rpartition("; ")[0] in str(refusal.value)
    assert [seen.unreadable for seen in survey(dataset).classes] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("files", "fault", "hint"),
    [
        ([], "no folder with images", ""),
        (["1.png", "2.png"], "no folder with images", "2 in the folder itself"),
        (["cat/1.png", "cat/2.png"], "one class only (cat)", ""),
        (["a/x/1.png", "a/y/1.png", "b/1.png", "c/1.png"], "fewer than 2 images", "1 in a/x"),
        (["a/x/1.png", "a/y/1.png", "b/x/1.png", "b/y/1.png"], "at least 2 train", "1 in b/y"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "need different classes", ""),
        (["a/1.heic", "b/2.heic"], "no folder with images", ".heic 2"),
        (["a/1.png", "b/1.png", "c/1.png"], "fewer than 2 images", ""),
    ],
)
def test_what_a_run_refuses_is_the_fault(files: list[str], fault: str, hint: str, tmp_path: Path):
    for name in files:
        if name.endswith(".heic"):
            (tmp_path / "x" / name).parent.mkdir(parents=True)
            (tmp_path / "x" / name).write_bytes(b"x")
        else:
            save(tmp_path / "x" / name)
    (tmp_path / "x").mkdir(exist_ok=True)
    code, out, _ = fewshot("data", "check", tmp_path / "x")
    assert code == DataError.exit_code
    (line,) = (line for line in out.splitlines() if line.startswith("fault: "))
    assert fault in line
    assert (hint in out) if hint else ("hint" not in out)
    words = ("run", "--data", tmp_path / "x", "--out", tmp_path / "run")
    code, _, err = fewshot(*words)
    assert code == DataError.exit_code
    assert line.removeprefix("fault: ") in err


@pytest.mark.parametrize("ending", [".csv", ".CSV"])
def test_a_table_is_checked_as_a_folder_is(photos: Path, ending: str):
    table = photos.parent / f"photos{ending}"
    files = sorted(photos.glob("*/*.jpg"))
    rows = [
        f"{file.relative_to(photos.parent)},{file.parent.name},{i % 4}"
        for i, file in enumerate(files)
    ]
    table.write_text("\n".join(["path,label,group", *rows]))
    wanted = ("--k-shot", "1,2", "--set", "sampler.per_class=3")
    code, of_table, err = fewshot("data", "check", table, *wanted)
    assert code == 0, err
    assert "groups: 4, of 48 images" in of_table
    _, of_folder, _ = fewshot("data", "check", photos, *wanted)
    cells = [line.split()[:6] for line in of_table.splitlines()[:7]]
    assert cells == [line.split()[:6] for line in of_folder.splitlines()[:7]]
    table.write_text("path,label\nphotos/owl/1.jpg,owl\nphotos/owl/x.jpg,owl\n")
    code, out, _ = fewshot("data", "check", table)
    assert code == DataError.exit_code
    assert f"fault: {table}: one class only (owl)" in out


def test_one_class_for_the_test_is_a_hint(photos: Path):
    wanted = ("--set", "sampler.per_class=3", "--set")
    _, out, _ = fewshot("data", "check", photos, *wanted, 'split.test=["owl"]')
    assert "hint: one test class only, 'owl'" in out
    _, out, _ = fewshot("data", "check", photos, *wanted, 'split.test=["owl","wren"]')
    assert "one test class" not in out


def test_too_few_images_for_k_are_a_fault_with_the_numbers(photos: Path):
    few = ("--set", "sampler.per_class=3")
    assert fewshot("data", "check", photos, *few, "--k-shot", "1,5")[0] == 0
    code, out, _ = fewshot("data", "check", photos, *few, "--k-shot", "1,12")
    assert code == DataError.exit_code
    (fault,) = (line for line in out.splitlines() if line.startswith("fault: "))
    assert "12" in fault


def test_a_check_needs_no_network_to_be_named_where_no_plugin_offers_one(
    photos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEWSHOT_PLUGINS", "")
    few = ("--set", "sampler.per_class=3", "--k-shot", "1,5")
    code, out, err = fewshot("data", "check", photos, *few)
    assert code == 0, err
    assert "A run would take this." in out


def test_no_folder_named_and_none_there_are_one_line(tmp_path: Path):
    code, _, err = fewshot("data", "check")
    assert (code, err.count("\n")) == (2, 1)
    code, out, _ = fewshot("data", "check", tmp_path / "nowhere")
    assert code == DataError.exit_code
    assert "nowhere: no such file or folder" in out
    (tmp_path / "x.txt").write_text("no zip")
    code, out, _ = fewshot("data", "check", tmp_path / "x.txt")
    assert code == DataError.exit_code
    assert "neither a folder nor a zip file" in out


@given(
    shown=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20),
    groups=st.booleans(),
)
def test_copies_and_groups_are_counted_class_by_class(shown: list[tuple[int, int]], groups: bool):
    """Picture p of class c, for any data set, not of files alone."""
    images = np.array([np.full((2, 2, 1), p, np.uint8) for p, _ in shown])
    labels = np.array([c for _, c in shown])
    numbers = np.array([p % 2 for p, _ in shown]) if groups else None
    found = survey(ArrayDataset(images, labels, ["a", "b", "c"], groups=numbers))
    for c, seen in enumerate(found.classes):
        pictures = [p for p, label in shown if label == c]
        assert seen.images == len(pictures)
        assert seen.copies == len(pictures) - len(set(pictures))
        assert seen.groups == (len({p % 2 for p in pictures}) if groups else None)
        assert seen.smallest == seen.largest == ((2, 2) if pictures else None)
    across = {p for p, _ in shown if len({c for q, c in shown if q == p}) > 1}
    lines = [hint for hint in found.hints if "one picture in two classes" in hint]
    assert bool(lines) == bool(across)


# -------------------------------------------------------------------------------------- fetch


def offering(
    monkeypatch: pytest.MonkeyPatch, fetch: Callable[[Path, Callable[..., None]], None] | None
) -> None:
    """`birds` is a data set that a plugin offers, as the commands see it."""
    component = Component("birds", image_folder, ImageFolderOptions, fetch=fetch)
    registry = Registry()
    registry.add([Registered("dataset", component, "birds", "1.0")])
    monkeypatch.setattr(data_commands, "load_registry", lambda strict: (registry, []))


def test_fetch_brings_it_to_the_data_folder_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def bring(folder: Path, progress: Callable[..., None]) -> None:
        progress("birds.zip", 5, 10)
        progress("birds.zip", 10, 10)
        save(folder / "x.png")

    offering(monkeypatch, bring)
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "data"))
    code, out, err = fewshot("data", "fetch", "birds")
    assert (code, (tmp_path / "data" / "birds" / "x.png").exists()) == (0, True)
    assert out.splitlines()[-1] == "fewshot run --dataset birds"
    assert "birds.zip" in err
    code, out, _ = fewshot("data", "fetch", "birds", "--to", tmp_path / "there")
    assert (code, (tmp_path / "there" / "x.png").exists()) == (0, True)
    assert out.splitlines()[-1] == f"fewshot run --dataset birds --data {tmp_path / 'there'}"


def test_what_cannot_be_fetched_and_what_goes_wrong_are_one_line(monkeypatch: pytest.MonkeyPatch):
    offering(monkeypatch, None)
    code, _, err = fewshot("data", "fetch", "birds")
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing to fetch" in err

    def fail(folder: Path, progress: Callable[..., None]) -> None:
        raise DataError("the server is gone")

    offering(monkeypatch, fail)
    assert fewshot("data", "fetch", "birds")[::2] == (4, "Error: the server is gone\n")
    code, _, err = fewshot("data", "fetch", "bird")
    assert (code, "did you mean 'birds'" in err) == (2, True)


def test_any_kind_of_part_brings_what_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def bring(folder: Path, progress: Callable[..., None]) -> None:
        save(folder / "weights.png")

    registry = Registry()
    part = Component("wide", lambda options, shape: None, fetch=bring)
    registry.add([Registered("backbone", part, "birds", "1.0")])
    monkeypatch.setattr(data_commands, "load_registry", lambda strict: (registry, []))
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    code, out, _ = fewshot("fetch", "backbone/wide")
    assert (code, out) == (0, f"wide is in {tmp_path / 'wide'}\n")
    assert (tmp_path / "wide" / "weights.png").exists()
    for name, said in (("backbones/wide", "did you mean 'backbone'"), ("backbone/wid", "'wide'")):
        code, _, err = fewshot("fetch", name)
        assert (code, said in err, err.count("\n")) == (2, True, 1)

"""The data sets in the layouts in which they are handed on, made small: splits, checks."""

import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from fewshot import ClassSplit, DataError, build_registry, decode, split_classes
from fewshot.testing import check_dataset

pytest.importorskip("fewshot_benchmarks", reason="the plugin fewshot-benchmarks is not installed")

from fewshot_benchmarks import cifar as binary
from fewshot_benchmarks.benchmarks import (
    CIFAR_FS,
    FC100,
    MINI_IMAGENET,
    TIERED_IMAGENET,
    BenchmarkOptions,
    CifarOptions,
    Published,
    cifar,
    cub,
    cub_split,
    photos,
)
from fewshot_benchmarks.layouts import VARIABLE

REGISTRY = build_registry()[0]
REAL = os.environ.get(VARIABLE)
Folders = Mapping[str, Iterable[str]]


@pytest.fixture(autouse=True)
def _no_data_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def parts(split: ClassSplit) -> list[set[str]]:
    return [set(split.train), set(split.val), set(split.test)]


def names(split: ClassSplit) -> list[str]:
    return [*split.train, *split.val, *split.test]


# ----------------------------------------------------------------------------------- made files


def image(seed: int, size: int = 12) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def folders(root: Path, classes: Iterable[str], count: int = 2) -> Path:
    """A folder a class, of images that can be decoded."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{name}_{i}.png").write_bytes(image(100 * c + i))
    return root


def zipped(path: Path, classes: Iterable[str], count: int) -> Path:
    """A folder a class in a zip file, of so many empty files: whole in all but their content."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in classes:
            for i in range(count):
                archive.writestr(f"images/{name}/{i}.png", b"")
    return path


def tables(root: Path, split: ClassSplit, where: str = "", count: int = 2) -> Path:
    """train.csv, val.csv and test.csv beside the folder `images`."""
    (root / "images").mkdir(parents=True)
    (root / where).mkdir(exist_ok=True)
    every = (("train", split.train), ("val", split.val), ("test", split.test))
    for part, classes in every:
        rows = ["filename,label"]
        for name in classes:
            for i in range(count):
                rows.append(f"{name}0000{i}.jpg,{name}")
                (root / "images" / f"{name}0000{i}.jpg").write_bytes(image(i))
        (root / where / f"{part}.csv").write_text("\n".join(rows) + "\n")
    return root


SMALL = ClassSplit(
    MINI_IMAGENET.split.train[:3], MINI_IMAGENET.split.val[:2], MINI_IMAGENET.split.test[:2]
)


def mini(path: Path, **options: Any) -> Any:
    return photos(MINI_IMAGENET, BenchmarkOptions(path=str(path), size=8, **options))


# ------------------------------------------------------------------------- the published splits


@pytest.mark.parametrize(
    ("published", "sizes", "parents"),
    [
        (MINI_IMAGENET, (64, 16, 20), None),
        (TIERED_IMAGENET, (351, 97, 160), (20, 6, 8)),
        (CIFAR_FS, (64, 16, 20), None),
        (FC100, (60, 20, 20), (12, 4, 4)),
    ],
    ids=lambda value: value.name if isinstance(value, Published) else None,
)
def test_a_published_split_has_its_sizes_and_shares_no_class_and_no_parent(
    published: Published, sizes: tuple[int, ...], parents: tuple[int, ...] | None
):
    split = published.split
    assert tuple(map(len, parts(split))) == sizes
    assert len(set(names(split))) == sum(sizes)
    if published.per_class is not None:
        assert published.images == published.per_class * sum(sizes)
    if published.parents is not None:
        assert set(published.parents) == set(names(split))
    if parents is not None:
        above = [{published.parents[name] for name in part} for part in parts(split)]
        assert tuple(map(len, above)) == parents
        assert len(set.union(*above)) == sum(parents)


def test_both_splits_of_cifar_are_of_its_hundred_classes_of_twenty_superclasses():
    assert CIFAR_FS.parents == FC100.parents
    assert set(Counter(FC100.parents.values()).values()) == {5}
    assert len(set(FC100.parents.values())) == 20


def test_birds_are_dealt_by_number_whatever_their_order():
    birds = [f"{i:03}.Bird_{i}" for i in range(1, 201)]
    split = cub_split(birds)
    assert split == cub_split(reversed(birds))
    # As Chen et al.'s program deals the sorted folders: i % 2 == 0, i % 4 == 1, i % 4 == 3.
    assert split.train == tuple(birds[0::2])
    assert parts(split)[1:] == [set(birds[1::4]), set(birds[3::4])]
    with pytest.raises(DataError, match=r"'Sparrow' has no number"):
        cub_split(["Sparrow"])


# ------------------------------------------------------------------------------ what is whole


def test_whole_data_sets_pass_the_check_and_other_counts_do_not(tmp_path: Path):
    every = names(MINI_IMAGENET.split)
    pairs = evolve(MINI_IMAGENET, per_class=2, images=200)
    path = zipped(tmp_path / "whole.zip", every, 2)
    made = photos(pairs, BenchmarkOptions(path=str(path)))
    assert parts(made.split) == parts(MINI_IMAGENET.split)
    assert np.bincount(made.labels).tolist() == [2] * 100
    with pytest.raises(DataError, match=r"has 2 images, published 600.*checked=false"):
        mini(path)
    with pytest.raises(DataError, match=rf"'{every[-1]}' is missing \(1 such\).*checked=false"):
        mini(zipped(tmp_path / "less.zip", every[:-1], 1))


def test_of_all_of_imagenet_the_published_classes_are_taken(tmp_path: Path):
    every = names(TIERED_IMAGENET.split)
    path = str(zipped(tmp_path / "imagenet.zip", [*every, "n00000001"], 1))
    made = photos(evolve(TIERED_IMAGENET, images=608), BenchmarkOptions(path=path))
    assert set(made.classes) == set(every)
    assert made.parents == [TIERED_IMAGENET.parents[name] for name in made.classes]
    with pytest.raises(DataError, match="608 images, published 779165"):
        photos(TIERED_IMAGENET, BenchmarkOptions(path=path))


def test_birds_pass_whole_and_not_otherwise(tmp_path: Path):
    birds = [f"{i:03}.Bird_{i}" for i in range(1, 201)]
    with pytest.raises(DataError, match="200 images, published 11788"):
        cub(BenchmarkOptions(path=str(zipped(tmp_path / "b.zip", birds, 1))))
    with pytest.raises(DataError, match="of the 200 classes of cub are not all here"):
        cub(BenchmarkOptions(path=str(zipped(tmp_path / "few.zip", birds[:9], 1))))
    root = folders(tmp_path / "CUB_200_2011" / "images", birds[:8])
    (root.parent / "images.txt").write_text("1 001.Bird_1/001.Bird_1_0.png\n")
    made = cub(BenchmarkOptions(path=str(root.parent), size=8, checked=False))
    assert list(map(len, parts(made.split))) == [4, 2, 2]
    assert decode(made).images.shape == (16, 8, 8, 3)


# ---------------------------------------------------------------------------------- the layouts


@pytest.mark.parametrize("where", ["", "split"])
def test_tables_say_which_image_is_of_which_class_and_which_class_of_which_part(
    where: str, tmp_path: Path
):
    made = mini(tables(tmp_path / "mini", SMALL, where), checked=False)
    assert parts(made.split) == parts(SMALL)
    found = decode(made)
    assert found.images.shape == (14, 8, 8, 3)
    of = [name.split("/") for name in found.names]
    assert all(name == file.removesuffix(".jpg")[:-5] for name, file in of)
    assert parts(split_classes(found)) == parts(SMALL)


def test_a_table_that_names_no_image_or_has_other_columns_is_refused(tmp_path: Path):
    root = tables(tmp_path / "mini", SMALL)
    (root / "images" / f"{SMALL.val[0]}00001.jpg").unlink()
    with pytest.raises(DataError, match=rf"name {SMALL.val[0]}00001.jpg, not in"):
        mini(root, checked=False)
    (root / "val.csv").write_text("file,class\na,b\n")
    with pytest.raises(DataError, match=r"val\.csv: no table with columns filename and label"):
        mini(root, checked=False)
    (root / "val.csv").unlink()
    with pytest.raises(DataError, match=r"val\.csv"):
        mini(root, checked=False)


def test_folders_by_part_are_another_split_which_the_check_refuses(tmp_path: Path):
    split = MINI_IMAGENET.split
    moved = ClassSplit(
        [*split.train[1:], split.val[0]], [*split.val[1:], split.train[0]], split.test
    )
    for part, classes in zip(
        ("train", "val", "test"), (moved.train, moved.val, moved.test), strict=True
    ):
        for name in classes:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"is in (train|val) here, in (val|train) as published"):
        mini(tmp_path)
    assert parts(mini(tmp_path, checked=False).split) == parts(moved)


def test_a_class_in_two_parts_is_refused(tmp_path: Path):
    for part in ("train", "test"):
        folders(tmp_path / part, SMALL.train[:2])
    with pytest.raises(DataError, match=r"is in train and in test"):
        mini(tmp_path, checked=False)


def test_unchecked_folders_keep_what_is_there_of_the_published_split(tmp_path: Path):
    root = folders(tmp_path / "data", [*names(SMALL), "other"])
    made = mini(root, checked=False)
    assert parts(made.split) == parts(SMALL)
    assert "other" in made.classes
    own = mini(folders(tmp_path / "own", ["a", "b", "c"]), checked=False)
    assert own.split is None


def test_what_is_left_out_is_told(tmp_path: Path):
    root = folders(tmp_path / "data", names(SMALL))
    (root / "loose.png").write_bytes(b"")
    (note,) = mini(root, checked=False).notes
    assert "belong to no class: 1 (1 in the folder itself)" in note
    for part in ("train", "test"):
        folders(tmp_path / "parts" / part, getattr(SMALL, part))
    (tmp_path / "parts" / "test" / "loose.png").write_bytes(b"")
    (note,) = mini(tmp_path / "parts", checked=False).notes
    assert note.startswith("test: images that belong to no class: 1 (")


@pytest.mark.parametrize("called", ["mini-imagenet", "miniImageNet", "mini-imagenet.zip"])
def test_it_looks_where_the_variable_says(
    called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(DataError, match=rf"{VARIABLE} is not set.*--data; nothing is downloaded"):
        photos(MINI_IMAGENET, BenchmarkOptions())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=r"no mini-imagenet here .* has none of mini-imagenet, "):
        photos(MINI_IMAGENET, BenchmarkOptions())
    with pytest.raises(DataError, match="no such file or folder"):
        mini(tmp_path / "nowhere")
    if called.endswith(".zip"):
        zipped(tmp_path / called, names(SMALL), 2)
    else:
        folders(tmp_path / called, names(SMALL))
    assert len(photos(MINI_IMAGENET, BenchmarkOptions(checked=False)).labels) == 14


# ------------------------------------------------------------------------------- CIFAR's binary


@pytest.fixture(scope="module")
def records() -> dict[str, bytes]:
    """The binary version with two of every 600 images of a class."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100, dtype=np.uint8), 2)
    rows = rng.integers(0, 256, (200, 3074), np.uint8)
    rows[:, 1] = rng.permutation(labels)
    classes = sorted(names(FC100.split))
    return {
        "train.bin": rows[:150].tobytes(),
        "test.bin": rows[150:].tobytes(),
        "fine_label_names.txt": ("\n".join(classes) + "\n").encode(),
    }


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "_SIZES", {"train.bin": 150, "test.bin": 50})
    monkeypatch.setattr(binary, "_PER_CLASS", 2)


def unpacked(root: Path, content: Mapping[str, bytes]) -> Path:
    root.mkdir()
    for name, of in content.items():
        (root / name).write_bytes(of)
    return root


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("published", [CIFAR_FS, FC100], ids=lambda of: of.name)
def test_the_binary_version_gives_its_pixels_and_classes(
    published: Published, records: dict[str, bytes], tmp_path: Path
):
    made = cifar(published, CifarOptions(path=str(unpacked(tmp_path / "c", records))))
    first = np.frombuffer(records["train.bin"][:3074], np.uint8)
    assert made.classes[made.labels[0]] == sorted(names(FC100.split))[first[1]]
    red, green, blue = (first[2 + i * 1024 : 2 + (i + 1) * 1024] for i in range(3))
    np.testing.assert_array_equal(made[0].reshape(-1, 3), np.stack([red, green, blue], axis=1))
    last = np.frombuffer(records["test.bin"][-3074:], np.uint8)
    np.testing.assert_array_equal(made[199][31, 31], last[[2 + 1023, 2 + 2047, 2 + 3071]])
    assert parts(made.split) == parts(published.split)
    assert made.parents == [published.parents[name] for name in made.classes]
    options = CifarOptions(path=str(tmp_path / "c"))
    check_dataset(lambda of: cifar(published, of), options)


@pytest.mark.usefixtures("_small")
def test_the_archive_counts_only_with_the_published_checksum(
    records: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, of in records.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(of)
            archive.addfile(member, io.BytesIO(of))
    with pytest.raises(DataError, match=rf"its MD5 is \w+, published {binary.MD5}"):
        cifar(CIFAR_FS, CifarOptions(path=str(path)))
    digest = binary.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(binary, "MD5", digest)
    folder = cifar(CIFAR_FS, CifarOptions(path=str(unpacked(tmp_path / "c", records))))
    packed = cifar(CIFAR_FS, CifarOptions(path=str(path)))
    np.testing.assert_array_equal(packed.images, folder.images)
    np.testing.assert_array_equal(packed.labels, folder.labels)


Damage = Callable[[dict[str, bytes]], dict[str, bytes]]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut": (lambda of: {**of, "test.bin": of["test.bin"][:-1]}, r"test\.bin has \d+ bytes"),
    "no names": (lambda of: {k: of[k] for k in ("train.bin", "test.bin")}, "fine_label_names"),
    "other names": (lambda of: {**of, "fine_label_names.txt": b"a\nb\n"}, "not 100 classes"),
    "other labels": (lambda of: {**of, "test.bin": bytes(50 * 3074)}, "not 100 classes of 2"),
    "large label": (lambda of: {**of, "test.bin": b"\xff" * 50 * 3074}, "not 100 classes of 2"),
}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(damage: str, records: dict[str, bytes], tmp_path: Path):
    change, words = DAMAGES[damage]
    path = unpacked(tmp_path / "c", change(records))
    with pytest.raises(DataError, match=words):
        cifar(CIFAR_FS, CifarOptions(path=str(path)))


def test_the_binary_version_is_not_scaled(tmp_path: Path):
    path = unpacked(tmp_path / "c", {"train.bin": b""})
    with pytest.raises(DataError, match=r"32x32 pixels, not dataset\.size 64"):
        cifar(CIFAR_FS, CifarOptions(path=str(path), size=64))


# ------------------------------------------------------------------------------ the real images


@pytest.mark.skipif(not REAL, reason=f"no data sets are here: {VARIABLE} is not set")
@pytest.mark.parametrize("name", ["mini-imagenet", "tiered-imagenet", "cub", "cifar-fs", "fc100"])
def test_real_data_sets_are_whole(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, str(REAL))
    component = REGISTRY.get("dataset", name).component
    try:
        made = component.factory(component.options())
    except DataError as error:
        if "nothing is downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    assert len(made.classes) == len(names(made.split))
    assert made[0].shape == made[len(made.labels) - 1].shape

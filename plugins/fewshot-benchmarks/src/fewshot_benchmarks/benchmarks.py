"""The data sets: their classes, counts of images, and splits in the literature."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from attrs import frozen

from fewshot import (
    ArrayDataset,
    ClassSplit,
    Component,
    DataError,
    ImageFiles,
    ImageOptions,
    at_least,
    image_files,
    option,
    own_first,
)

from .cifar import is_binary, read_binary
from .layouts import VARIABLE, Found, data_path, find


@frozen(field_transformer=own_first)
class BenchmarkOptions(ImageOptions):
    """Options of photos."""

    path: str = option("", f"a folder or archive; else what is in the folder {VARIABLE}")
    size: int = option(84, "images are scaled to size x size pixels", at_least(8))
    checked: bool = option(
        True,
        "refuse other classes, counts of images or a split than published; false: take what is "
        "there",
    )


@frozen(field_transformer=own_first)
class CifarOptions(BenchmarkOptions):
    """Options of CIFAR-100's images."""

    size: int = option(32, "images are scaled to size x size pixels", at_least(8))


@frozen
class Published:
    """Classes by part, `parents` of each where there are any, and counts of images.

    `images`: of all; `per_class`: of each class, where these are alike. `called`: names under which
    files are handed on.
    """

    name: str
    split: ClassSplit
    images: int
    per_class: int | None = None
    parents: Mapping[str, str] | None = None
    called: tuple[str, ...] = ()


def _listed(name: str, images: int, per_class: int | None, *called: str) -> Published:
    """With the classes in `splits`: a list for each part, or lists by parent."""
    text = files(__package__).joinpath(f"splits/{name}.toml").read_text(encoding="utf-8")
    parts: list[list[str]] = []
    parents: dict[str, str] = {}
    for part in tomllib.loads(text).values():
        if isinstance(part, dict):
            parents |= {each: parent for parent, classes in part.items() for each in classes}
            part = [each for classes in part.values() for each in classes]
        parts.append(part)
    return Published(name, ClassSplit(*parts), images, per_class, parents or None, called)


MINI_IMAGENET = _listed("mini-imagenet", 60_000, 600, "miniimagenet", "miniImageNet")
TIERED_IMAGENET = _listed(
    "tiered-imagenet", 779_165, None, "tiered_imagenet", "tieredImageNet", "tiered"
)
CIFAR_FS = _listed("cifar-fs", 60_000, 600, "cifar100", "cifar-100-binary", "CIFAR-FS")
FC100 = _listed("fc100", 60_000, 600, "cifar100", "cifar-100-binary", "FC100")


def cub_split(classes: Iterable[str]) -> ClassSplit:
    """Of names such as 001.Black_footed_Albatross: odd numbers train, of the others every second
    is for validation, from the first on, and every second for the test (Chen et al. 2019).
    """
    by_remainder: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: []}
    for name in classes:
        number = name.partition(".")[0]
        if not number.isdecimal():
            raise DataError(f"class '{name}' has no number, as 001.Black_footed_Albatross has")
        by_remainder[int(number) % 4].append(name)
    odd = by_remainder[1] + by_remainder[3]
    return ClassSplit(*map(sorted, (odd, by_remainder[2], by_remainder[0])))


def _every(split: ClassSplit) -> tuple[str, ...]:
    return (*split.train, *split.val, *split.test)


def _part_of(split: ClassSplit) -> dict[str, str]:
    parts = (("train", split.train), ("val", split.val), ("test", split.test))
    return {name: part for part, names in parts for name in names}


# ---------------------------------------------------------------------------- checked


def _check_classes(published: Published, classes: int, found: Iterable[str], place: Path) -> None:
    """Raise DataError where a class of the published ones is missing."""
    wanted = _every(published.split)
    there = set(found)
    missing = [name for name in wanted if name not in there]
    if missing or len(wanted) != classes:
        what = f"'{missing[0]}' is missing ({len(missing)} such)" if missing else "are not all here"
        raise DataError(
            f"{place}: of the {classes} classes of {published.name} {what}; "
            "--set dataset.checked=false takes what is there"
        )


def _check_counts(published: Published, counts: Mapping[str, int], place: Path) -> None:
    """Raise DataError where a class, or all together, has other than the published images."""
    way_out = "--set dataset.checked=false takes what is there"
    for name, count in counts.items():
        if published.per_class is not None and count != published.per_class:
            raise DataError(
                f"{place}: class '{name}' has {count} images, published {published.per_class}: "
                f"{way_out}"
            )
    if sum(counts.values()) != published.images:
        raise DataError(
            f"{place}: {sum(counts.values())} images, published {published.images}: {way_out}"
        )


def _check_split(published: Published, split: ClassSplit | None, place: Path) -> None:
    """Raise DataError where files are laid out by another split."""
    ours = _part_of(published.split)
    for name, part in ({} if split is None else _part_of(split)).items():
        if ours.get(name, part) != part:
            raise DataError(
                f"{place}: class '{name}' is in {part} here, in {ours[name]} as published; "
                "--set dataset.checked=false takes the split that is there"
            )


def _parents(published: Published, classes: Sequence[str]) -> list[str] | None:
    of = published.parents
    return None if of is None else [of.get(name, name) for name in classes]


def _unchecked(published: Published, found: Found) -> ClassSplit | None:
    """The split that the files are laid out by, else what is here of the published one."""
    if found.split is not None:
        return found.split
    known = published.split
    parts = [[n for n in part if n in found.files] for part in (known.train, known.val, known.test)]
    return ClassSplit(*parts) if any(parts) else None


def _from_files(
    published: Published, classes: int, found: Found, options: Any, place: Path
) -> ImageFiles:
    if options.checked:
        _check_classes(published, classes, found.files, place)
        _check_split(published, found.split, place)
        split: ClassSplit | None = published.split
        known = _part_of(published.split)
        kept = {name: of for name, of in found.files.items() if name in known}
        _check_counts(published, {name: len(of) for name, of in kept.items()}, place)
    else:
        split, kept = _unchecked(published, found), dict(found.files)
    parents = _parents(published, tuple(kept))
    return image_files(kept, options, split=split, parents=parents, notes=found.notes)


# ------------------------------------------------------------------------ the data sets


def photos(published: Published, options: BenchmarkOptions) -> ImageFiles:
    """mini-ImageNet or tiered-ImageNet, as `layouts.find` finds it; DataError as checked."""
    place = data_path(options.path, published.name, published.called)
    return _from_files(published, len(_every(published.split)), find(place), options, place)


def cub(options: BenchmarkOptions) -> ImageFiles:
    """CUB-200-2011 (Wah et al. 2011), the whole images; DataError as checked."""
    place = data_path(options.path, "cub", ("CUB_200_2011",))
    found = find(place)
    own = None if options.checked else found.split
    published = Published("cub", own or cub_split(found.files), 11_788)
    return _from_files(published, 200, found, options, place)


def cifar(published: Published, options: CifarOptions) -> ImageFiles | ArrayDataset:
    """CIFAR-100 (Krizhevsky 2009) under a few-shot split: image files, or the binary version."""
    place = data_path(options.path, published.name, published.called)
    if not is_binary(place):
        return _from_files(published, 100, find(place), options, place)
    images, labels, classes = read_binary(place, options.size)
    _check_classes(published, 100, classes, place)
    names = [f"{classes[label]}/{i:05}" for i, label in enumerate(labels.tolist())]
    return ArrayDataset(
        images,
        labels,
        classes,
        names=names,
        split=published.split,
        parents=_parents(published, classes),
    )


COMPONENTS = (
    Component(
        "mini-imagenet",
        partial(photos, MINI_IMAGENET),
        BenchmarkOptions,
        "100 classes of ImageNet, 600 photos of each; 64, 16 and 20 (Ravi & Larochelle 2017)",
    ),
    Component(
        "tiered-imagenet",
        partial(photos, TIERED_IMAGENET),
        BenchmarkOptions,
        "608 classes of ImageNet under 34 parents; 351, 97 and 160 (Ren et al. 2018)",
    ),
    Component(
        "cub",
        cub,
        BenchmarkOptions,
        "200 kinds of birds, 11,788 photos; 100, 50 and 50 (Chen et al. 2019)",
    ),
    Component(
        "cifar-fs",
        partial(cifar, CIFAR_FS),
        CifarOptions,
        "CIFAR-100, 600 images a class; 64, 16 and 20 classes (Bertinetto et al. 2019)",
    ),
    Component(
        "fc100",
        partial(cifar, FC100),
        CifarOptions,
        "CIFAR-100 split by superclass; 60, 20 and 20 classes (Oreshkin et al. 2018)",
    ),
)

"""Images by class in the layouts in which the data sets are handed on, and the split they say."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot import ClassSplit, DataError, find_classes

VARIABLE = "FEWSHOT_BENCHMARKS_DATA"

_PARTS = ("train", "val", "test")


class Found(NamedTuple):
    """Image files by class, the class split by which they are laid out, if they are, and notes."""

    files: Mapping[str, Sequence[Any]]
    split: ClassSplit | None = None
    notes: tuple[str, ...] = ()


def data_path(path: str, name: str, others: Sequence[str] = ()) -> Path:
    """`path`, else what is called `name` or as `others` in the environment variable's folder.

    With or without `.zip` or `.tar.gz`. Raises DataError where there is none.
    """
    if path:
        if not Path(path).exists():
            raise DataError(f"{path}: no such file or folder")
        return Path(path)
    root = os.environ.get(VARIABLE, "")
    called = (name, *others)
    every = [each + suffix for each in called for suffix in ("", ".zip", ".tar.gz")]
    found = [Path(root, each) for each in every if root and Path(root, each).exists()]
    if not found:
        where = f"{root} has none of {', '.join(called)}" if root else f"{VARIABLE} is not set"
        raise DataError(
            f"no {name} here ({where}): name its folder with --data; nothing is downloaded"
        )
    return found[0]


def find(root: Path) -> Found:
    """What is at a folder or zip file, in the first of three layouts that is there.

    train.csv, val.csv and test.csv, in `root` or its folder `split`, with the columns filename and
    label, and the images in `images` or beside them (Ravi & Larochelle 2017); folders train, val
    and test, in each a folder a class; a folder a class. Raises DataError where there is none.
    """
    for tables in (root, root / "split"):
        if (tables / "train.csv").is_file():
            return _by_tables(root, tables)
    if (root / "train").is_dir() and (root / "test").is_dir():
        there = [part for part in _PARTS if (root / part).is_dir()]
        of_part = {part: find_classes(root / part, fewest=1) for part in there}
        notes = tuple(f"{part}: {note}" for part, of in of_part.items() for note in of.notes)
        return _by_part({part: of.folders for part, of in of_part.items()})._replace(notes=notes)
    found = find_classes(root)
    return Found(found.folders, notes=found.notes)


def _by_tables(root: Path, tables: Path) -> Found:
    images = root / "images" if (root / "images").is_dir() else root
    parts: dict[str, dict[str, list[Any]]] = {}
    missing: list[str] = []
    for part in _PARTS:
        files = parts.setdefault(part, {})
        for name, label in _rows(tables / f"{part}.csv"):
            path = images / name
            if not path.is_file():
                missing.append(name)
            files.setdefault(label, []).append(path)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{tables}: its tables name {missing[0]}{more}, not in {images}")
    return _by_part(parts)


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return [(row["filename"], row["label"]) for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{table}: no table with columns filename and label: {error}") from error


def _by_part(parts: Mapping[str, Mapping[str, Sequence[Any]]]) -> Found:
    split = ClassSplit(*(tuple(parts.get(part, ())) for part in _PARTS))  # disjoint, or DataError
    return Found({name: of for files in parts.values() for name, of in files.items()}, split)

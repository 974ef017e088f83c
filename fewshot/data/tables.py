"""A table of image files, CSV or Parquet: a row an image, with its class, part and group."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attrs import evolve, fields, frozen

from ..core.components import Component
from ..core.errors import DataError, choose_from
from ..core.options import option, own_first
from ..core.reading import home
from .class_names import alike, as_one, class_name, require_names
from .folders import PARTS, ImageFiles, ImageOptions, first_of, grouped, image_files
from .natural import natural
from .split import ClassSplit
from .walk import File

PARQUET = ".parquet"


@frozen(field_transformer=own_first)
class ImageTableOptions(ImageOptions):
    """Options of a table of images."""

    path: str = option("", "the table, .csv (commas, a header, UTF-8) or .parquet: a row an image")
    image_column: str = option("path", "column of the image files, from the table's folder on")
    label_column: str = option("label", "column of the classes' names")
    split_column: str = option(
        "split",
        "column of train, val or test, one for all images of a class, if there is one; '': none",
    )
    group_column: str = option(
        "group", "of what images of one shot or person have in common, if there is one; '': none"
    )


# Of a table's columns those that hold image, label, part and group.
_Choose = Callable[[Sequence[str]], Sequence[str | None]]


class _Row(NamedTuple):
    """An image, and where the table says so."""

    where: str
    image: str
    label: str
    part: str
    group: str


def image_table(options: ImageTableOptions) -> ImageFiles:
    """A dataset from a table of image files, classes and the images of each in order of name.

    Raises DataError, naming table and line, for what is no such table, an image that is not there
    or in two rows, and a class that is in two parts of the split.
    """
    if not options.path:
        raise DataError("image-table needs a table: --data FILE.csv, or path = FILE in [dataset]")
    table = home(options.path)
    rows, notes = _rows(table, options)
    notes += as_one(row.label for row in rows)
    rows = [row._replace(label=class_name(row.label)) for row in rows]
    for label, where in {row.label: row.where for row in reversed(rows)}.items():
        require_names([label], where)
    if len({row.label for row in rows}) < 2:
        raise DataError(f"{table}: one class only ({rows[0].label}); at least two are needed")
    rows.sort(key=lambda row: (natural(row.label), [*map(natural, row.image.split("/"))]))
    folders: dict[str, list[File]] = {}
    for row in rows:
        path = os.path.join(table.parent, row.image)  # noqa: PTH118 - by the 10,000
        folders.setdefault(row.label, []).append(File(path, row.image))
    _require_files(rows, [file for files in folders.values() for file in files])
    split = _split(table, rows)
    if split is not None:
        counts = ", ".join(
            f"{part} {len(getattr(split, part))}" for part in ("train", "val", "test")
        )
        notes.append(f"the column '{options.split_column}' is the class split: {counts} classes")
    files = image_files(folders, options, split=split)
    groups, note = grouped([row.group for row in rows], files.names)
    return evolve(files, groups=groups, notes=(*notes, *filter(None, [note]), *alike(folders)))


# --------------------------------------------------------------------------------- rows


def _rows(table: Path, options: ImageTableOptions) -> tuple[list[_Row], list[str]]:
    """The rows of a table, each with an image and a label, and a line about what is not used."""
    read = _parquet if table.suffix.lower() == PARQUET else _csv
    rows: list[_Row] = []
    others: list[str] = []
    first: dict[str, str] = {}

    def choose(there: Sequence[str]) -> list[str | None]:
        chosen = _columns(table, there, options)
        others.extend(name for name in there if name not in chosen)
        return chosen

    for where, cells in read(table, choose):
        row = _Row(where, *cells)
        for what, column in ((row.image, options.image_column), (row.label, options.label_column)):
            if not what:
                raise DataError(f"{where}: nothing in the column '{column}'")
        same = first.setdefault(os.path.normpath(row.image), where)
        if same is not where:
            raise DataError(f"{where}: '{row.image}' is in {same} too; an image has one row")
        rows.append(row)
    if not rows:
        raise DataError(f"{table}: no row below its header")
    return rows, [f"columns passed over: {len(others)} ({first_of(others)})"] if others else []


def _columns(table: Path, there: Sequence[str], options: ImageTableOptions) -> list[str | None]:
    """The names of the four columns; None for one that need not be there and is not."""
    chosen: list[str | None] = []
    for field in fields(type(options)):
        if not field.name.endswith("_column"):
            continue
        name = getattr(options, field.name)
        if name in there:
            chosen.append(name)
        elif field.name in ("split_column", "group_column") and name in ("", field.default):
            chosen.append(None)
        else:
            semicolons = len(there) == 1 and any(mark in there[0] for mark in ";\t")
            way_out = "columns are parted by commas" if semicolons else choose_from(name, there)
            raise DataError(
                f"{table}: no column '{name}' (--set dataset.{field.name}=NAME): {way_out}"
            )
    return chosen


def _csv(table: Path, choose: _Choose) -> Iterator[tuple[str, list[str]]]:
    lines = 0
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            columns = choose(header)
            at = [None if name is None else header.index(name) for name in columns]
            lines = reader.line_num
            for cells in reader:
                where, lines = f"{table}, line {lines + 1}", reader.line_num
                if not any(cells):
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}: {len(cells)} cells, its header has {len(header)}; a name with a "
                        "comma is put in quotes"
                    )
                yield where, ["" if i is None else cells[i].strip() for i in at]
    except OSError as error:
        raise DataError(f"{table}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not in UTF-8: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{table}, line {lines + 1}: not CSV: {error}") from error


def _parquet(table: Path, choose: _Choose) -> Iterator[tuple[str, list[str]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{table}: to read Parquet takes pyarrow: pip install 'fewshot[parquet]', or save it "
            "as CSV"
        ) from error
    try:
        with table.open("rb") as file:
            opened = parquet.ParquetFile(file)
            columns = choose(opened.schema_arrow.names)
            read = opened.read(columns=[name for name in columns if name is not None])
            values: Mapping[str, list[Any]] = read.to_pydict()
    except DataError:
        raise
    except Exception as error:  # a damaged file makes its reader raise anything
        said = " ".join(str(error).split())
        raise DataError(f"{table}: no Parquet file of images and labels: {said}") from error
    for i in range(read.num_rows):
        cells = [None if name is None else values[name][i] for name in columns]
        yield f"{table}, row {i + 1}", ["" if cell is None else str(cell) for cell in cells]


# -------------------------------------------------------------------------------- checks


def _require_files(rows: Sequence[_Row], files: Sequence[File]) -> None:
    wrong = []
    for row, file in zip(rows, files, strict=True):
        try:
            there = os.path.isfile(file)  # noqa: PTH113
        except ValueError:  # a name with a zero byte
            there = False
        if not there:
            wrong.append(f"{row.where}: no file {str(file)!r}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0]}{more}; paths start from the table's folder")


def _split(table: Path, rows: Sequence[_Row]) -> ClassSplit | None:
    """The class split; None where no row says a part."""
    if not any(row.part for row in rows):
        return None
    of_class: dict[str, tuple[str, str]] = {}
    for row in rows:
        part = PARTS.get(row.part.lower())
        if part is None:
            raise DataError(f"{row.where}: '{row.part}' is no part: train, val or test")
        known, where = of_class.setdefault(row.label, (part, row.where))
        if part != known:
            raise DataError(
                f"{row.where}: class '{row.label}' is in {part} here and in {known} in {where}; "
                "a class split gives each class one part: mend it, or pass the column over with "
                "--set dataset.split_column="
            )
    names = {
        part: [name for name, (of, _) in of_class.items() if of == part]
        for part in ("train", "val", "test")
    }
    return ClassSplit(**names)


COMPONENTS = (
    Component(
        "image-table",
        image_table,
        ImageTableOptions,
        "your own images by a table, CSV or Parquet, of paths, labels, parts and groups",
    ),
)

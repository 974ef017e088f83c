"""The data set table: images that a CSV file lists by class, and group and role if known."""

import csv
from pathlib import Path

import numpy as np
from attrs import frozen

from fewshot import Component, DataError, ImageFiles, ImageOptions, hookimpl, option


@frozen
class Options(ImageOptions):
    """Options of the data set."""

    path: str = option("", "a CSV file: columns file, class and, if there are any, group and role")


def table(options: Options) -> ImageFiles:
    """The images, decoded when asked for; file names are relative to the CSV file.

    Images of one group (a shot, a photographer, a day) are never support and query of one episode;
    a role says which of these an image may be: support, query or both.
    Raises DataError where there is no such file, or one without these columns or without rows.
    """
    if not options.path:
        raise DataError("table needs a CSV file: --dataset table --data FILE.csv")
    path = Path(options.path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({error})") from error
    if not rows or not {"file", "class"} <= rows[0].keys():
        raise DataError(f"{path}: wants rows, and a first line file,class or file,class,group,role")
    classes, labels = np.unique([row["class"] for row in rows], return_inverse=True)
    groups = None
    if "group" in rows[0]:
        groups = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    role = np.array([row["role"] for row in rows]) if "role" in rows[0] else None
    files = [path.parent / row["file"] for row in rows]
    return ImageFiles(
        files, labels, tuple(classes.tolist()), options.size, options, groups=groups, role=role
    )


@hookimpl
def fewshot_datasets() -> list[Component]:
    return [Component("table", table, Options, "images that a CSV file lists")]

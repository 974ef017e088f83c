"""The 29 classes, the experiment's split, and the real photos in the Kaggle layout."""

import os
import re
from pathlib import Path
from string import ascii_uppercase

from attrs import frozen

from fewshot import (
    ClassSplit,
    DataError,
    ImageFiles,
    above,
    at_least,
    class_folders,
    image_files,
    option,
)

CLASSES = (*ascii_uppercase, "del", "nothing", "space")

_VAL, _TEST = ("H", "W", "Y"), ("B", "E", "G", "L", "O", "U")

SPLIT = ClassSplit(
    train=[name for name in CLASSES if name not in _VAL + _TEST], val=_VAL, test=_TEST
)

VARIABLE = "FEWSHOT_ASL_DATA"


@frozen
class AlphabetOptions:
    """Options of the real photos."""

    path: str = option(
        "", f"the folder or the downloaded zip file; else the environment variable {VARIABLE}"
    )
    size: int = option(64, "images are scaled to size x size pixels", at_least(8))
    max_pixels: int = option(50_000_000, "larger images are refused before decoding", above(0))
    run_length: int = option(
        10, "consecutive numbers that count as one group, a proxy for one shot", above(0)
    )


def alphabet(options: AlphabetOptions) -> ImageFiles:
    """The photos, with the experiment's class split and groups (class, (number - 1) // run_length).

    Raises DataError where no data is given, with where to get it, and for a folder that lacks
    classes of the alphabet.
    """
    root = options.path or os.environ.get(VARIABLE, "")
    if not root:
        raise DataError(
            "asl-alphabet needs the photos: get the data set grassknoted/asl-alphabet from Kaggle "
            f"and point at the folder or zip file with --data PATH or {VARIABLE}=PATH"
        )
    folders = class_folders(Path(root))
    missing = [name for name in CLASSES if name not in folders]
    if missing:
        raise DataError(f"{root}: not the ASL alphabet, classes are missing: {', '.join(missing)}")

    def group(name: str) -> int:
        number = re.search(r"(\d+)\D*$", name.rpartition(".")[0])
        return (int(number[1]) - 1) // options.run_length if number else -1

    ordered = {name: folders[name] for name in CLASSES}
    return image_files(ordered, options.size, options.max_pixels, group, SPLIT)

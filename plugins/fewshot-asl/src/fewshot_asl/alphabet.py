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
    ImageOptions,
    above,
    data_folder,
    find_classes,
    image_files,
    option,
    own_first,
)

CLASSES = (*ascii_uppercase, "del", "nothing", "space")

_VAL, _TEST = ("H", "W", "Y"), ("B", "E", "G", "L", "O", "U")

SPLIT = ClassSplit(
    train=[name for name in CLASSES if name not in _VAL + _TEST], val=_VAL, test=_TEST
)

VARIABLE = "FEWSHOT_ASL_DATA"

_KAGGLE = "grassknoted/asl-alphabet"


@frozen(field_transformer=own_first)
class AlphabetOptions(ImageOptions):
    """Options of the real photos."""

    path: str = option(
        "", f"the folder or the downloaded zip file; else {VARIABLE}, else what was fetched"
    )
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
        root = str(data_folder("asl-alphabet"))
        if not Path(root).exists():
            raise DataError(
                f"asl-alphabet needs the photos: `fewshot data fetch asl-alphabet` gets {_KAGGLE} "
                "from Kaggle; or point at the folder or zip file with --data PATH or "
                f"{VARIABLE}=PATH"
            )
    found = find_classes(Path(root).expanduser())
    missing = [name for name in CLASSES if name not in found.folders]
    if missing:
        raise DataError(f"{root}: not the ASL alphabet, classes are missing: {', '.join(missing)}")

    def group(name: str) -> int:
        number = re.search(r"(\d+)\D*$", name.rpartition(".")[0])
        return (int(number[1]) - 1) // options.run_length if number else -1

    ordered = {name: found.folders[name] for name in CLASSES}
    return image_files(ordered, options, group, SPLIT, notes=found.notes)


def fetch_photos(folder: Path, _: object) -> None:
    """Bring the photos from Kaggle into the folder; kagglehub shows its own progress.

    Raises DataError, with what to do, without kagglehub and where Kaggle does not give them.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            "asl-alphabet comes from Kaggle through kagglehub, which is not installed: "
            "pip install 'kagglehub>=1.0', then fetch again"
        ) from error
    try:
        kagglehub.dataset_download(_KAGGLE, output_dir=str(folder))
    except Exception as error:  # kagglehub's own, those of requests and of the file system
        raise DataError(
            f"Kaggle did not give {_KAGGLE}: {' '.join(str(error).split())}; if it wants to know "
            "who asks: a token from kaggle.com/settings in ~/.kaggle/access_token or "
            "KAGGLE_API_TOKEN"
        ) from error

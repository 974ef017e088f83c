"""The official one-shot runs (Lake et al. 2015): 20 images of one alphabet, each to be found again.

A run's folder has `training/classNN.png` (20 classes, an image of each), `test/itemNN.png` (20) and
`class_labels.txt`: a line for each test image, with the training image of its class.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot import ArrayDataset, DataError, Episode

from .files import Files, drawing, file_sets

_LABELS = re.compile(r"((?:.*/)?)(run\d+)/class_labels\.txt")


def one_shot_runs(
    path: Path, size: int = 28, invert: bool = True, frame: bool = False
) -> tuple[ArrayDataset, dict[str, Episode]]:
    """All images of the runs found at `path`, and each run as an episode by its name ("run01").

    Each class ("run01/training/class01.png") has its training image (support) and its test image
    (query). Raises DataError: no runs there, or one that is damaged.
    """
    images: list[NDArray[np.uint8]] = []
    classes: list[str] = []
    names: list[str] = []
    episodes: dict[str, Episode] = {}
    for files in file_sets(path):
        for match in filter(None, map(_LABELS.fullmatch, files.names)):
            above, run = match.groups()
            if run in episodes:
                continue
            first = len(images)
            for training, test in _pairs(files, match[0], above):
                classes.append(training)
                names += [training, test]
                images += [
                    drawing(files, above + name, size, invert, frame) for name in (training, test)
                ]
            episodes[run] = _episode(first, classes[first // 2 :])
    if not episodes:
        raise DataError(f"{path} has no one-shot runs (all_runs.zip, or folders run01, run02, …)")
    labels = np.repeat(np.arange(len(classes)), 2)
    return ArrayDataset(np.stack(images), labels, classes, names=names), episodes


def _pairs(files: Files, labels: str, above: str) -> list[tuple[str, str]]:
    """(training image, test image of the same class), in order of training image."""
    lines = files.read(labels).decode(errors="replace").split("\n")
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    present = {name.removeprefix(above) for name in files.names}
    if (
        not pairs
        or any(len(pair) != 2 or not present.issuperset(pair) for pair in pairs)
        or len({pair[1] for pair in pairs}) < len(pairs)
    ):
        raise DataError(f"{files.path}, {labels} does not pair test images with training images")
    return sorted((training, test) for test, training in pairs)


def _episode(first: int, classes: list[str]) -> Episode:
    """Of pairs of a support and a query image, from item `first` on."""
    ids = np.arange(len(classes))
    return Episode(
        items=first + np.arange(2 * len(classes)),
        support=2 * ids,
        support_labels=ids,
        query=2 * ids + 1,
        query_labels=ids,
        classes=classes,
    )

"""Small pictures in folders and zip files, and the data set of these."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.folders import ImageFiles, ImageFolderOptions, image_folder
from fewshot.data.walk import walk

SIZE = 8


def picture(seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def save(path: Path, seed: int = 0, size: int = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path)
    return path


def folder(root: Path, **more: object) -> ImageFiles:
    return image_folder(ImageFolderOptions(path=str(root), size=SIZE, **more))


def two_classes(root: Path, *files: str) -> Path:
    """Classes a and b, one good image each, and further files to make in a."""
    for i, name in enumerate(("a/1.png", "b/1.png")):
        save(root / name, i)
    for i, name in enumerate(files):
        save(root / name, 2 + i)
    return root


def zipped(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path


def files_below(place: Path) -> list[Path]:
    return [Path(file.path) for file in walk(place).top.below()]


def names(dataset: ImageFiles) -> list[str]:
    return [Path(path).name for path in dataset.names]

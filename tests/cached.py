"""Small folders of images, decoded through the cache, and what is opened for that."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewshot.data.cache import VARIABLE
from fewshot.data.datasets import decode
from fewshot.data.folders import ImageFiles, ImageFolderOptions, image_folder

SIZE = 8

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open" and str(arguments[0]).endswith(".bmp"):
        _opened.append(Path(str(arguments[0])).name)


sys.addaudithook(_listen)


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of the image files that are opened meanwhile, by anything in this process."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)


def write_images(root: Path, count: int = 20) -> Path:
    for i in range(count):
        write(root / "ab"[i % 2] / f"{i}.bmp", i)
    return root


def folder(root: Path, **more: int) -> ImageFiles:
    return image_folder(ImageFolderOptions(path=str(root), **{"size": SIZE, **more}))


def files(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.rglob("*") if path.is_file())


def one_by_one(dataset: ImageFiles) -> NDArray[np.uint8]:
    return np.stack([dataset[i] for i in range(len(dataset.paths))])


def check(root: Path) -> list[str]:
    """Decode a folder through the cache; its pixels are right; the files that were opened for it.

    The cache is left with one finished file.
    """
    with opened() as names:
        arrays = decode(folder(root))
    assert isinstance(arrays.images, np.memmap)
    assert files(Path(os.environ[VARIABLE])) == ["", ".images"]
    np.testing.assert_array_equal(arrays.images, one_by_one(folder(root)))
    return names


def same_time(root: Path) -> None:
    """Other pixels in a file of the same size, a moment later."""
    time = (root / "a" / "4.bmp").stat().st_mtime_ns
    write(root / "a" / "4.bmp", 99)
    os.utime(root / "a" / "4.bmp", ns=(time, time + 1))


def several(root: Path) -> None:
    (root / "a" / "0.bmp").unlink()
    (root / "b" / "1.bmp").rename(root / "b" / "0.bmp")
    write(root / "c" / "1.bmp", 50)
    same_time(root)

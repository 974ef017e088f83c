"""Where Omniglot's files are: in a folder, in a zip file, or in zip files in a folder."""

import os
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewshot import DataError, data_folder

VARIABLE = "FEWSHOT_OMNIGLOT_DATA"

_MOST = 1 << 20  # bytes and pixels: of a drawing's 105x105 a hundred times as many

# What Pillow and zipfile raise for damaged or encrypted files.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip


def omniglot_path(path: str) -> Path:
    """`path`, else what the environment variable names, else where `fewshot data fetch` puts it."""
    return Path(path or os.environ.get(VARIABLE) or data_folder("omniglot")).expanduser()


@frozen
class Files:
    """A folder or zip file: the names of its files ("a/b.png"), and how to open one."""

    path: Path
    names: tuple[str, ...]
    open: Callable[[str], IO[bytes]]

    def read(self, name: str) -> bytes:
        """A file's content. Raises DataError, naming it, where it is damaged or too large."""
        try:
            with self.open(name) as file:
                content = file.read(_MOST + 1)
        except _UNREADABLE as error:
            raise DataError(f"{self.path}, {name} cannot be read: {error}") from error
        if len(content) > _MOST:
            raise DataError(f"{self.path}, {name} has more than {_MOST} bytes: no drawing")
        return content


def file_sets(path: Path) -> Iterator[Files]:
    """The folder or zip file at `path`, then every zip file directly in it.

    Raises DataError where there is none, or a zip file that cannot be read.
    """
    if path.is_dir():
        names = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        yield Files(path, tuple(sorted(names)), lambda name: (path / name).open("rb"))
        for file in sorted(path.glob("*.zip")):
            yield _zip(file)
    elif path.exists():
        yield _zip(path)
    else:
        raise DataError(
            f"there is no Omniglot at {path}: `fewshot data fetch omniglot` brings it, "
            "or name its folder or zip file with --data"
        )


def _zip(path: Path) -> Files:
    """The zip file, which is closed when nothing refers to it any more."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    try:
        archive = zipfile.ZipFile(file)
    except _UNREADABLE as error:
        file.close()
        raise DataError(f"{path} is no zip file that can be read: {error}") from error
    weakref.finalize(archive, file.close)
    return Files(path, tuple(sorted(archive.namelist())), archive.open)


def drawing(
    files: Files, name: str, size: int, invert: bool, frame: bool = False
) -> NDArray[np.uint8]:
    """(size, size, 1): ink is 255 on 0 if inverted, else 0 on 255; scaled by area average.

    With `frame` the ink fills the middle five sixths of a side, or of both (`_framed`).

    Raises DataError, naming the file, where it is no image or has too many pixels.
    """
    content = files.read(name)
    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > _MOST:
                raise DataError(f"{files.path}, {name} has more than {_MOST} pixels: no drawing")
            grey, box, by = image.convert("L"), None, Image.Resampling.BOX
            if frame:  # a box average by no whole number puts strokes a pixel off
                (grey, box), by = _framed(grey, size), Image.Resampling.HAMMING
            grey = grey.resize((size, size), by, box)
    except _UNREADABLE as error:
        raise DataError(f"{files.path}, {name} is no image: {error}") from error
    pixels = np.asarray(grey)[..., None]
    return 255 - pixels if invert else pixels


def _framed(
    grey: Image.Image, size: int
) -> tuple[Image.Image, tuple[float, float, float, float] | None]:
    """More paper around a drawing, and the part of it (left, top, right, bottom) about the ink.

    Each side is 6/5 of the ink's, or of half the ink's longer one: a stroke stays a stroke; and at
    least `size` pixels: nothing is enlarged. Blank paper is shown as it is.
    """
    found = ImageOps.invert(grey).getbbox()
    if found is None:
        return grey, None
    left, top, right, bottom = found
    longer = max(right - left, bottom - top)
    wide, tall = (
        max(0.6 * max(side, longer / 2), size / 2) for side in (right - left, bottom - top)
    )
    margin = max(grey.size)  # more than a frame reaches beyond the paper
    x, y = margin + (left + right) / 2, margin + (top + bottom) / 2
    paper = ImageOps.expand(grey, margin, fill=255)
    return paper, (x - wide, y - tall, x + wide, y + tall)

"""Image files in folders or a zip file: found in order of name, one folder a class, and decoded."""

import errno
import os
import re
import weakref
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..core.components import Component
from ..core.draws import Ints, Roles
from ..core.errors import DataError
from ..core.options import at_least, option, positive
from ..core.reading import home
from .images import MAX_PIXELS, Decoded, read
from .split import ClassSplit

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class File(NamedTuple):
    """An image file: as much of a path as is needed, where `pathlib.Path` is slow by the 10,000."""

    path: str
    name: str

    def open(self, mode: str) -> IO[Any]:
        """The file, opened."""
        return open(self.path, mode)  # noqa: PTH123

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


class Member(NamedTuple):
    """An image file in a zip file."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    name: str

    def open(self, mode: str) -> IO[Any]:
        """The file, opened; `mode` is "rb"."""
        return self.archive.open(self.info)

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.info.filename}"


@frozen(eq=False)
class ImageFiles:
    """Image files, decoded when asked for: EXIF orientation applied, RGB, size x size.

    `paths` are what `class_folders` finds, or `pathlib.Path`. Item i raises DataError, naming the
    file, where it is not an image, damaged, or has more than `max_pixels` by its header.
    """

    paths: Sequence[Any]
    labels: Ints
    classes: tuple[str, ...]
    size: int
    max_pixels: int = MAX_PIXELS
    groups: Ints | None = None
    split: ClassSplit | None = None
    role: Roles | None = None

    @property
    def names(self) -> list[str]:
        """Class and file name of every image, wherever the folder is."""
        pairs = zip(self.labels.tolist(), self.paths, strict=True)
        return [f"{self.classes[label]}/{path.name}" for label, path in pairs]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.read(index).image

    def read(self, index: int) -> Decoded:
        """Item `index` and what its file is known by, from one reading of the file."""
        return read(self.paths[index], (self.size, self.size, 3), self.max_pixels)


@frozen
class ImageFolderOptions:
    """Options of an image folder."""

    path: str = option("", "the folder (or zip file): one folder a class, at any depth")
    size: int = option(64, "images are scaled to size x size pixels", at_least(8))
    max_pixels: int = option(MAX_PIXELS, "larger images are refused before decoding", positive)


def image_folder(options: ImageFolderOptions) -> ImageFiles:
    """A dataset from a folder or zip file with one folder a class.

    Nested roots are found; hidden and non-image files are passed over. Raises DataError where
    there is no such folder, no class or one class only.
    """
    if not options.path:
        raise DataError("image-folder needs a folder: --data PATH, or path = PATH under [dataset]")
    folders = class_folders(home(options.path))
    return image_files(folders, options.size, options.max_pixels)


def image_files(
    folders: Mapping[str, Sequence[Any]],
    size: int,
    max_pixels: int,
    group_of: Callable[[str], int] | None = None,
    split: ClassSplit | None = None,
) -> ImageFiles:
    """`ImageFiles` of the given files by class; `group_of(file name)` numbers groups in a class."""
    classes = tuple(folders)
    paths = [path for name in classes for path in folders[name]]
    groups = None
    if group_of is not None:
        keys = [(name, group_of(path.name)) for name in classes for path in folders[name]]
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        groups = np.array([numbers[key] for key in keys])
    labels = np.repeat(np.arange(len(classes)), [len(folders[name]) for name in classes])
    return ImageFiles(paths, labels, classes, size, max_pixels, groups, split)


# ------------------------------------------------------------------------ where they are

# A place by its name in messages: sub-folders by name, and image files, both in any order.
_Listing = tuple[dict[str, str], list[Any]]


def class_folders(root: Path, fewest: int = 2) -> dict[str, list[Any]]:
    """Image files by class, classes and files in order of name, from a folder or zip file.

    A file has `name` and `open("rb")`. Raises DataError where there is no such folder, or not one
    place in it with `fewest` classes or more.
    """
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    try:
        listing = _in_archive(root) if root.is_file() else _on_disk
        found = _roots(str(root), listing(str(root)), listing)
    except zipfile.BadZipFile as error:
        raise DataError(f"{root}: neither a folder nor a zip file") from error
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    if not found:
        raise DataError(f"{root}: no folder with images; it takes one folder of images a class")
    if len(found) > 1:
        places = ", ".join(place for place, _ in found)
        raise DataError(f"{root}: more than one folder of classes ({places}): name one of them")
    place, folders = found[0]
    if len(folders) < fewest:
        raise DataError(f"{place}: one class only ({next(iter(folders))}); at least two are needed")
    return folders


def files_below(root: Path) -> Iterator[Path]:
    """Every image file in a folder, at any depth, in order of name; hidden ones passed over.

    Raises DataError for a folder that cannot be read.
    """
    try:
        folders, files = _on_disk(str(root))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    yield from (Path(file.path) for file in sorted(files, key=lambda file: natural(file.name)))
    for name in sorted(folders, key=natural):
        yield from files_below(Path(folders[name]))


class PassedOver(NamedTuple):
    """Files below a folder that are in no class, by what keeps them out."""

    hidden: list[str]  # images, but for a name or folder that begins with a dot
    unplaced: list[str]  # images that lie in no class's folder
    others: list[str]  # no images by their names


def passed_over(root: Path, taken: Collection[str]) -> PassedOver:
    """What `class_folders` takes no notice of; `taken`: the images it found, as text."""
    if zipfile.is_zipfile(root):
        with zipfile.ZipFile(root) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    else:  # of a file that is neither, or nothing, there is nothing to walk
        walk = os.walk(root)
        names = [os.path.relpath(f"{at}/{name}", root) for at, _, files in walk for name in files]
    found = PassedOver([], [], [])
    for name in sorted(names, key=natural):
        parts = name.split("/")
        if f"{root}/{name}" in taken or parts[-1].startswith("._") or "__MACOSX" in parts:
            continue  # the latter are macOS's own
        if not _is_image(name):
            found.others.append(name)
        elif any(map(_hidden, parts)):
            found.hidden.append(name)
        else:
            found.unplaced.append(name)
    return found


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _on_disk(place: str) -> _Listing:
    """Links are followed, but for those that lead nowhere or back to where they are."""
    folders: dict[str, str] = {}
    files: list[Any] = []
    links: list[str] = []
    with os.scandir(place) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            try:
                if _is_image(entry.name) and entry.is_file():
                    files.append(File(entry.path, entry.name))
                elif entry.is_dir():
                    folders[entry.name] = entry.path
                    if entry.is_symlink():
                        links.append(entry.name)
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link to itself leads nowhere, as a broken one
                    raise
    if links:
        # Of links followed on the way here, each part of the path has parents of its own.
        here = Path(place).absolute()
        above = [up.resolve() for up in (here, *here.parents)]
        for name in links:
            target = Path(folders[name]).resolve()
            if any(up.is_relative_to(target) for up in above):
                del folders[name]
    return folders, files


def _in_archive(path: Path) -> Callable[[str], _Listing]:
    """`_on_disk` for a zip file, which is closed when nothing refers to it any more."""
    file = path.open("rb")
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    listings: dict[str, _Listing] = {str(path): ({}, [])}
    for full in dict.fromkeys(archive.namelist()):
        *folders, name = (part for part in full.split("/") if part != ".")
        if not _is_image(name) or any(map(_hidden, (*folders, name))):
            continue
        place = str(path)
        for folder in filter(None, folders):
            deeper = listings[place][0].setdefault(folder, f"{place}/{folder}")
            listings.setdefault(deeper, ({}, []))
            place = deeper
        listings[place][1].append(Member(archive, archive.getinfo(full), name))
    return listings.__getitem__


def _roots(
    place: str, inside: _Listing, listing: Callable[[str], _Listing]
) -> list[tuple[str, dict[str, list[Any]]]]:
    """The shallowest places whose sub-folders hold images; those with several classes first."""
    below = {
        name: (inside[0][name], listing(inside[0][name])) for name in sorted(inside[0], key=natural)
    }
    classes = {
        name: sorted(files, key=lambda file: natural(file.name))
        for name, (_, (_, files)) in below.items()
        if files
    }
    deeper = [r for name in below if name not in classes for r in _roots(*below[name], listing)]
    if len(classes) >= 2:
        if deeper:
            raise DataError(
                f"{place}: '{next(iter(classes))}' holds images, {deeper[0][0]} only folders of "
                "them: put the images of a class directly into its folder"
            )
        return [(place, classes)]
    deeper = deeper or [r for name in classes for r in _roots(*below[name], listing)]
    several = [root for root in deeper if len(root[1]) >= 2]
    return several or deeper or ([(place, classes)] if classes else [])


_NUMBER = re.compile(r"(\d+)")


def natural(name: str) -> list[Any]:
    """Sort key that puts A2 before A10."""
    parts: list[Any] = _NUMBER.split(name)
    parts[1::2] = [(int(digits), digits) for digits in parts[1::2]]
    return parts


COMPONENTS = (
    Component(
        "image-folder",
        image_folder,
        ImageFolderOptions,
        "one's own images: one folder a class, or a zip file of that",
    ),
)

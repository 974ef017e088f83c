"""Image files in folders or a zip file: found in order of name, one folder a class, and decoded."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ..core.components import Component
from ..core.draws import Ints, Roles
from ..core.errors import DataError
from ..core.options import at_least, option, positive
from ..core.reading import home
from .images import BACKGROUND, MAX_PIXELS, Decoded, Reading, colour, read
from .natural import natural
from .split import ClassSplit
from .walk import Place, Walk, walk


@frozen(eq=False)
class ImageFiles:
    """Image files, decoded when asked for: EXIF orientation applied, RGB, size x size.

    `paths` are what `class_folders` finds, or `pathlib.Path`. Item i raises DataError, naming the
    file, where it is not an image, damaged, or has more than `max_pixels` by its header.
    Transparent images are laid on `background`. `notes`: lines that whoever reads it is told.
    """

    paths: Sequence[Any]
    labels: Ints
    classes: tuple[str, ...]
    size: int
    max_pixels: int = MAX_PIXELS
    groups: Ints | None = None
    split: ClassSplit | None = None
    role: Roles | None = None
    background: str = BACKGROUND
    parents: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def reading(self) -> Reading:
        """How each is read."""
        return Reading(self.max_pixels, self.background)

    @property
    def names(self) -> list[str]:
        """Class and file name of every image, wherever the folder is."""
        pairs = zip(self.labels.tolist(), self.paths, strict=True)
        return [f"{self.classes[label]}/{path.name}" for label, path in pairs]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.read(index).image

    def read(self, index: int) -> Decoded:
        """Item `index` and what its file is known by, from one reading of the file."""
        return read(self.paths[index], (self.size, self.size, 3), self.reading)


@frozen
class ImageFolderOptions:
    """Options of an image folder."""

    path: str = option("", "the folder (or zip file): one folder a class, at any depth")
    size: int = option(64, "images are scaled to size x size pixels", at_least(8))
    max_pixels: int = option(MAX_PIXELS, "larger images are refused before decoding", positive)
    background: str = option(BACKGROUND, "the colour transparent images are laid on", colour)


def image_folder(options: ImageFolderOptions) -> ImageFiles:
    """A dataset from a folder or zip file with one folder a class, as `find_classes` finds them."""
    if not options.path:
        raise DataError("image-folder needs a folder: --data PATH, or path = PATH under [dataset]")
    found = find_classes(home(options.path))
    files = image_files(
        found.folders, options.size, options.max_pixels, split=found.split,
        background=options.background,
    )  # fmt: skip
    return evolve(files, notes=found.notes)


def image_files(
    folders: Mapping[str, Sequence[Any]],
    size: int,
    max_pixels: int,
    group_of: Callable[[str], int] | None = None,
    split: ClassSplit | None = None,
    background: str = BACKGROUND,
    parents: Sequence[str] | None = None,
) -> ImageFiles:
    """`ImageFiles` of the given files by class; `group_of(file name)` numbers groups in a class.

    `parents`: of each class, the name of what it belongs to.
    """
    classes = tuple(folders)
    paths = [path for name in classes for path in folders[name]]
    groups = None
    if group_of is not None:
        keys = [(name, group_of(path.name)) for name in classes for path in folders[name]]
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        groups = np.array([numbers[key] for key in keys])
    labels = np.repeat(np.arange(len(classes)), [len(folders[name]) for name in classes])
    return ImageFiles(
        paths, labels, classes, size, max_pixels, groups, split, background=background,
        parents=parents,
    )  # fmt: skip


# ------------------------------------------------------------------------ where they are


class Found(NamedTuple):
    """Image files by class, in order of name.

    `split`: of folders named train, val and test. `notes`: lines about what is left out, and about
    what is taken that may not be meant. `unreadable`: folders and files that may not be read.
    """

    folders: dict[str, list[Any]]
    split: ClassSplit | None
    notes: tuple[str, ...]
    unreadable: int


def class_folders(root: Path, fewest: int = 2) -> dict[str, list[Any]]:
    """Image files by class, classes and files in order of name, from a folder or zip file.

    A file has `name` and `open("rb")`. They are found, and DataError raised, as by `find_classes`.
    """
    return find_classes(root, fewest).folders


def find_classes(root: Path, fewest: int = 2) -> Found:
    """The classes of a folder or zip file, and everything that is to be said of it.

    A class is a folder with all images below it. The classes lie side by side in the topmost
    folder of which at least two folders have images directly in them; where several such folders
    lie side by side, or there is none, in the topmost one that has two folders with images at any
    depth. Folders train, val (valid, validation) and test with classes of their own are a split.
    Names are in Unicode's composed form (NFC), but where that makes one of two.

    Raises DataError where there is no such folder, fewer than `fewest` classes, a class in two
    parts of a split, and for names that are no text.
    """
    walked = walk(root)
    parts = _parts(walked.top)
    if parts:
        base, pairs = None, [pair for part in parts.values() for pair in part.holding().items()]
        pairs.sort(key=lambda pair: natural(pair[0]))
    else:
        base = _base(walked.top)
        pairs = list(base.holding().items())
    notes = [*walked.notes(), *_placing(walked, base, pairs)]
    if len(pairs) < max(1, fewest):
        said = f"{root}: no folder with images; it takes one folder of images a class"
        if pairs:
            said = f"{pairs[0][1].path}: one class only ({pairs[0][0]}); at least two are needed"
        raise DataError("; ".join([said, *notes]))
    _require_text(root, pairs)
    composed = _composed([name for name, _ in pairs])
    split = None if not parts else _split(root, parts, composed)
    if split is not None:
        counts = ", ".join(f"{name} {len(part.holding())}" for name, part in parts.items())
        notes.append(f"the folders train, val and test are the class split: {counts} classes")
    folders = {composed[name]: list(place.below()) for name, place in pairs}
    return Found(folders, split, (*notes, *_alike(folders)), len(walked.unreadable))


_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _parts(top: Place) -> dict[str, Place]:
    """The folders train, val and test, two or more, of which each has folders only; or none."""
    while len(top.holding()) == 1 and not top.files:
        (top,) = top.holding().values()
    found = top.holding()
    known = {_PARTS.get(name.lower()) for name in found}
    if len(found) < 2 or None in known or len(known) < len(found):
        return {}
    if any(place.files for place in found.values()):
        return {}
    places = {_PARTS[name.lower()]: place for name, place in found.items()}
    return {part: places[part] for part in ("train", "val", "test") if part in places}


def _split(root: Path, parts: Mapping[str, Place], composed: Mapping[str, str]) -> ClassSplit:
    owner: dict[str, Place] = {}
    for part in parts.values():
        for name in part.holding():
            if name in owner:
                raise DataError(
                    f"{root}: class '{name}' is in {owner[name].path} and in {part.path}; as a "
                    "split they need different classes: name one of them, or put each class "
                    "into one"
                )
            owner[name] = part
    names = {part: [composed[name] for name in place.holding()] for part, place in parts.items()}
    return ClassSplit(*(names.get(part, ()) for part in ("train", "val", "test")))


def _base(top: Place) -> Place:
    """The folder whose folders are the classes."""
    several, waiting = [], [top]
    while waiting:
        place = waiting.pop()
        if sum(bool(each.files) for each in place.folders.values()) >= 2:
            several.append(place)
        else:
            waiting += place.folders.values()
    if len(several) == 1:
        return several[0]
    # Down to where the ways to them, or else to the images, part.
    base = top
    while base not in several:
        ways = [
            each
            for each in base.holding().values()
            if not several or any(f"{one.path}/".startswith(f"{each.path}/") for one in several)
        ]
        if len(ways) != 1 or (not several and (ways[0].files or not ways[0].holding())):
            return base
        (base,) = ways
    return base


def _placing(walked: Walk, base: Place | None, pairs: Sequence[tuple[str, Place]]) -> list[str]:
    """Lines about images in no class, deeper than in their class's folder, and empty folders."""
    start = len(walked.top.path.rstrip("/")) + 1
    loose, inside, waiting = Counter[str](), Counter[str](), [walked.top]
    classes = {place.path for _, place in pairs}
    within = {id(walked.top): False}
    while waiting:
        place = waiting.pop()
        in_class = within[id(place)]
        if place.files and place.path not in classes:
            where = place.path[start:] or "the folder itself"
            (inside if in_class else loose)[where] += len(place.files)
        for each in place.folders.values():
            within[id(each)] = in_class or place.path in classes
            waiting.append(each)
    lines = []
    if loose:
        lines.append(
            f"images that belong to no class: {loose.total()} ({_listed(loose)}); each goes into "
            "the folder of its class, and these folders lie side by side, two at least"
        )
    if inside:
        lines.append(
            f"images in folders within a class's, taken as that class's: {inside.total()} "
            f"({_listed(inside)}); the classes are {len(pairs)}: {_first(n for n, _ in pairs)}"
        )
    if base is not None:
        empty = [
            name for name in sorted(base.folders, key=natural) if not base.folders[name].images
        ]
        if empty:
            lines.append(f"folders without an image, no classes: {len(empty)} ({_first(empty)})")
    return lines


def _listed(counts: Counter[str]) -> str:
    more = ", …" if len(counts) > 5 else ""
    shown = sorted(counts.items(), key=lambda pair: (-pair[1], natural(pair[0])))[:5]
    return ", ".join(f"{n} in {place}" for place, n in shown) + more


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _require_text(root: Path, pairs: Iterable[tuple[str, Place]]) -> None:
    wrong = []
    for name, place in pairs:
        names = [name] if not _is_text(name) else [f"{name}/{f.name}" for f in place.below()]
        wrong += [each for each in names if not _is_text(each)]
    if wrong:
        raise DataError(
            f"{root}: names that are no text in UTF-8: {len(wrong)} ({os.fsencode(wrong[0])!r}); "
            "rename them"
        )


def _is_text(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _composed(names: Sequence[str]) -> dict[str, str]:
    """Each in Unicode's composed form, where that is no other's."""
    forms = Counter(unicodedata.normalize("NFC", name) for name in names)
    return {
        name: form if forms[form := unicodedata.normalize("NFC", name)] == 1 else name
        for name in names
    }


def _alike(names: Iterable[str]) -> list[str]:
    groups = defaultdict(list)
    for name in names:
        groups[unicodedata.normalize("NFKC", name)].append(name)
    return [
        f"{len(group)} classes are written alike, {group[0]}, and differ in their bytes "
        f"({', '.join(map(ascii, group))}): they are counted as {len(group)}; merge or rename them"
        for group in groups.values()
        if len(group) > 1
    ]


COMPONENTS = (
    Component(
        "image-folder",
        image_folder,
        ImageFolderOptions,
        "one's own images: one folder a class, or a zip file of that",
    ),
)

"""Image files in folders or a zip file: found in order of name, one folder a class, and decoded."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ..core.components import Component
from ..core.draws import Ints, Roles
from ..core.errors import DataError
from ..core.options import at_least, at_most, option, own_first, within
from ..core.reading import home
from ..core.wording import escaped, is_text
from .class_names import alike, as_one, class_name, require_names
from .images import Decoded, Reading, read
from .natural import natural
from .split import ClassSplit
from .walk import Place, Walk, walk


@frozen(eq=False)
class ImageFiles:
    """Image files, decoded when asked for: EXIF orientation applied, RGB, size x size.

    `paths` are what `find_classes` finds, or `pathlib.Path`. Item i raises DataError, naming the
    file, where it is not an image, damaged, or has more than `reading.max_pixels` by its header.
    `notes`: lines that whoever reads it is told.
    """

    paths: Sequence[Any]
    labels: Ints
    classes: tuple[str, ...]
    size: int
    reading: Reading = Reading()
    groups: Ints | None = None
    split: ClassSplit | None = None
    role: Roles | None = None
    parents: Sequence[str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Class and file name of every image, wherever the folder is."""
        pairs = zip(self.labels.tolist(), self.paths, strict=True)
        return [f"{self.classes[label]}/{path.name}" for label, path in pairs]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.labels)} images of {len(self.classes)} classes)"

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.read(index).image

    def read(self, index: int) -> Decoded:
        """Item `index` and what its file is known by, from one reading of the file."""
        return read(self.paths[index], (self.size, self.size, 3), self.reading)


SUBFOLDERS = "subfolders"


def grouping(_: Any, attribute: Any, value: str) -> None:
    """A validator: nothing, `SUBFOLDERS` or a regular expression of one group, or ValueError."""
    if value in ("", SUBFOLDERS):
        return
    try:
        count = re.compile(value).groups
    except re.error as error:
        raise ValueError(
            f"'{attribute.name}' is no regular expression ({error}): {value}"
        ) from error
    if count != 1:
        raise ValueError(
            f"'{attribute.name}' must be {SUBFOLDERS} or have one pair of parentheses, around what "
            f"names the group, as in '(.+)_': {value}"
        )


@frozen(field_transformer=own_first)
class ImageOptions(Reading):
    """Options that every data set of image files has; its own are given before them."""

    size: int = option(
        64, "images are scaled to size x size pixels", within(at_least(8), at_most(4096))
    )


@frozen(field_transformer=own_first)
class ImageFolderOptions(ImageOptions):
    """Options of an image folder."""

    path: str = option("", "the folder (or zip file): one folder a class, at any depth")
    leaves: bool = option(
        False, "each folder that has images directly in it is a class, named by its path"
    )
    groups: str = option(
        "",
        f"what images of one shot or person have in common: '{SUBFOLDERS}', the folder within the "
        "class's, or a regular expression on the name from there, whose parentheses hold it",
        grouping,
    )


def image_folder(options: ImageFolderOptions) -> ImageFiles:
    """A dataset from a folder or zip file with one folder a class, as `find_classes` finds them."""
    if not options.path:
        raise DataError("image-folder needs a folder: --data PATH, or path = PATH under [dataset]")
    found = find_classes(home(options.path), leaves=options.leaves)
    files = image_files(found.folders, options, split=found.split, notes=found.notes)
    if not options.groups:
        return files
    pattern = re.compile("(.+)/" if options.groups == SUBFOLDERS else options.groups)
    matches = [pattern.search(path.name) for path in files.paths]
    groups, note = grouped([match and match[1] for match in matches], files.names)
    if groups is None:
        raise DataError(
            f"{options.path}: no image has a group by groups = {options.groups!r}; the first name "
            f"in a class's folder is {files.paths[0].name!r}"
        )
    return evolve(files, groups=groups, notes=(*files.notes, note))


def grouped(keys: Sequence[str | None], names: Sequence[str]) -> tuple[Ints | None, str]:
    """Group numbers, equal keys one group in whatever class, and a line about them.

    An image without a key (None or "") is a group of its own; where all are, there are none.
    """
    alone = [name for key, name in zip(keys, names, strict=True) if not key]
    if len(alone) == len(keys):
        return None, ""
    of_key = {key: i for i, key in enumerate(dict.fromkeys(filter(None, keys)))}
    own = iter(range(len(of_key), len(of_key) + len(alone)))
    groups = np.array([of_key[key] if key else next(own) for key in keys])
    note = f"groups: {len(of_key)}, of {len(keys) - len(alone)} images ({first_of(of_key)})"
    if alone:
        note += f"; images without one, each a group of its own: {len(alone)} ({first_of(alone)})"
    return groups, note


def image_files(
    folders: Mapping[str, Sequence[Any]],
    options: ImageOptions,
    group_of: Callable[[str], int] | None = None,
    split: ClassSplit | None = None,
    parents: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> ImageFiles:
    """`ImageFiles` of the given files by class; `group_of(file name)` numbers groups in a class.

    `parents`: of each class, the name of what it belongs to. `notes`: lines that whoever reads the
    images is told.
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
        paths, labels, classes, options.size, options, groups, split,
        parents=parents, notes=tuple(notes),
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


def find_classes(root: Path, fewest: int = 2, leaves: bool = False) -> Found:
    """The classes of a folder or zip file, and everything that is to be said of it.

    The result has `folders` (the files by class), `split`, `notes` (lines about what is left out)
    and `unreadable` (how many folders and files may not be read). A file has `name`, its path from
    the class's folder, and `open("rb")`.

    A class is a folder with all images below it. The classes lie side by side in the topmost folder
    of which at least two folders have images directly in them; where several such folders lie side
    by side, or there is none, in the topmost one that has two folders with images at any depth.
    With `leaves` every folder that has images directly in it is a class of these alone, named by
    its path from where the ways to them part. Folders train, val (valid, validation) and test with
    classes of their own are a split. Names are in Unicode's composed form (NFC), without spaces
    around them; folders of one name then are one class.

    Raises DataError where there is no such folder, fewer than `fewest` classes, a class in two
    parts of a split, for names that are no text, and for one that no class may have.
    """
    walked = walk(root)
    parts = _parts(walked.top)
    base = None if parts else (_parting if leaves else _base)(walked.top)
    classes = _leaves if leaves else Place.holding
    of_part = {part: classes(place) for part, place in parts.items()}
    places = of_part.values() if base is None else [classes(base)]
    pairs = sorted((pair for each in places for pair in each.items()), key=_by_path)
    names = [name for name, _ in pairs]
    notes = [*walked.notes(), *_placing(walked, base, pairs), *as_one(names)]
    if len({*map(class_name, names)}) < max(1, fewest):
        said = f"{root}: no folder with images; it takes one folder of images a class"
        if pairs:
            said = f"{pairs[0][1].path}: one class only ({pairs[0][0]}); at least two are needed"
        raise DataError("; ".join([said, *notes]))
    files = [(name, place.own() if leaves else list(place.below())) for name, place in pairs]
    _require_text(root, files)
    require_names(map(class_name, names), str(root))
    split = None if not parts else _split(root, of_part)
    if split is not None:
        counts = ", ".join(f"{name} {len(getattr(split, name))}" for name in of_part)
        notes.append(f"the folders train, val and test are the class split: {counts} classes")
    folders: dict[str, list[Any]] = {}
    for name, each in files:
        folders[class_name(name)] = _together(folders.get(class_name(name), []), each)
    return Found(folders, split, (*notes, *alike(folders)), len(walked.unreadable))


def _together(files: Sequence[Any], more: list[Any]) -> list[Any]:
    """The images of two folders as one class's: a name that is there already gets a number."""
    if not files:
        return more
    found, taken = [*files], {file.name for file in files}
    for file in more:
        name, (stem, ending) = file.name, os.path.splitext(file.name)  # noqa: PTH122
        for i in itertools.count(2):
            if name not in taken:
                break
            name = f"{stem} ({i}){ending}"
        taken.add(name)
        found.append(file._replace(name=name))
    return found


def _by_path(pair: tuple[str, Place]) -> list[Any]:
    return [*map(natural, class_name(pair[0]).split("/"))]


PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _parts(top: Place) -> dict[str, Place]:
    """The folders train, val and test, two or more, of which each has folders only; or none."""
    while len(top.holding()) == 1 and not top.files:
        (top,) = top.holding().values()
    found = top.holding()
    known = {PARTS.get(name.lower()) for name in found}
    if len(found) < 2 or None in known or len(known) < len(found):
        return {}
    if any(place.files for place in found.values()):
        return {}
    places = {PARTS[name.lower()]: place for name, place in found.items()}
    return {part: places[part] for part in ("train", "val", "test") if part in places}


def _split(root: Path, parts: Mapping[str, Mapping[str, Place]]) -> ClassSplit:
    owner: dict[str, Place] = {}
    names: dict[str, list[str]] = {}
    for part, classes in parts.items():
        of_part = {class_name(name): place for name, place in classes.items()}
        for name, place in of_part.items():
            if name in owner:
                raise DataError(
                    f"{root}: class '{name}' is in {owner[name].path} and in {place.path}; as a "
                    "split they need different classes: name one of train, val and test, or put "
                    "each class into one"
                )
        owner |= of_part
        names[part] = [*of_part]
    return ClassSplit(*(names.get(part, ()) for part in ("train", "val", "test")))


def _parting(top: Place) -> Place:
    """The folder where the ways to the images part."""
    while len(holding := top.holding()) == 1 and not (only := next(iter(holding.values()))).files:
        top = only
    return top


def _leaves(top: Place) -> dict[str, Place]:
    """The folders below that have images directly in them, by their paths, in order."""
    start = len(top.path.rstrip("/")) + 1
    found, waiting = [], [*top.folders.values()]
    while waiting:
        place = waiting.pop()
        if place.files:
            found.append((place.path[start:], place))
        waiting += place.folders.values()
    return dict(sorted(found, key=_by_path))


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


_ITSELF = "the folder itself"


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
            where = place.path[start:] or _ITSELF
            (inside if in_class else loose)[where] += len(place.files)
        for each in place.folders.values():
            within[id(each)] = in_class or place.path in classes
            waiting.append(each)
    lines = []
    names = {class_name(name): None for name, _ in pairs}
    way_out = "; --set dataset.leaves=true in a run: each folder with images in it is a class"
    if loose:
        lines.append(
            f"images that belong to no class: {loose.total()} ({_listed(loose)}); each goes into "
            "the folder of its class, and these folders lie side by side, two at least"
            f"{way_out if {*loose} - {_ITSELF} else ''}"
        )
    if inside:
        lines.append(
            f"images in folders within a class's, taken as that class's: {inside.total()} "
            f"({_listed(inside)}); the classes are {len(names)}: {first_of(names)}{way_out}"
        )
    if base is not None:
        empty = [
            name for name in sorted(base.folders, key=natural) if not base.folders[name].images
        ]
        if empty:
            lines.append(f"folders without an image, no classes: {len(empty)} ({first_of(empty)})")
    return lines


def _listed(counts: Counter[str]) -> str:
    more = ", …" if len(counts) > 5 else ""
    shown = sorted(counts.items(), key=lambda pair: (-pair[1], natural(pair[0])))[:5]
    return ", ".join(f"{n} in {place}" for place, n in shown) + more


def first_of(names: Iterable[str]) -> str:
    """The first five names, as text."""
    names = list(names)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _require_text(root: Path, classes: Iterable[tuple[str, Iterable[Any]]]) -> None:
    wrong = [] if is_text(str(root)) else [str(root)]
    for name, files in classes:
        names = [name] if not is_text(name) else [f"{name}/{file.name}" for file in files]
        wrong += [each for each in names if not is_text(each)]
    if wrong:
        raise DataError(
            f"{escaped(str(root))}: names that are no text in UTF-8: {len(wrong)} "
            f"({escaped(wrong[0])}); rename them"
        )


COMPONENTS = (
    Component(
        "image-folder",
        image_folder,
        ImageFolderOptions,
        "your own images: one folder a class, or a zip file of that",
    ),
)

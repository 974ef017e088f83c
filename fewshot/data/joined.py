"""Data sets joined into one, which keeps whom or where each image is from."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
from attrs import field, fields, frozen
from numpy.typing import NDArray
from PIL import Image

from ..core.components import Component
from ..core.draws import Ints, Roles, Sources
from ..core.errors import DataError
from ..core.interfaces import Dataset
from ..core.options import option, option_components, own_first
from ..core.reading import home
from .datasets import decode
from .folders import ImageFolderOptions, ImageOptions, image_folder
from .images import to_shape
from .split import ClassSplit

_PARTS = ("test", "val", "train")  # the first that any source has a class in is where it is


@frozen(eq=False)
class Joined:
    """Data sets as one: classes of equal names are one class, `source` says whose an image is.

    Images are `shape`; those of other sizes are scaled, grey ones become RGB beside RGB. Groups are
    each source's own, and no two sources share one; `grouped` "sources": each source is one group.
    Of the split a class is in test where any source has it there, else in validation where any has,
    else in training; None where no source has one. Names are SOURCE/name.

    Raises DataError for images of other channels, and no sources.
    """

    sources: Mapping[str, Dataset]
    shape: tuple[int, int, int]
    grouped: Literal["own", "sources"] = "own"
    classes: tuple[str, ...] = field(init=False)
    labels: Ints = field(init=False)

    @classes.default
    def _classes(self) -> tuple[str, ...]:
        every = [name for dataset in self.sources.values() for name in dataset.classes]
        return tuple(dict.fromkeys(every))

    @labels.default
    def _labels(self) -> Ints:
        place = {name: i for i, name in enumerate(self.classes)}
        return np.concatenate(
            [
                np.array([place[name] for name in dataset.classes], np.int64)[dataset.labels]
                for dataset in self.sources.values()
            ]
        )

    def __repr__(self) -> str:
        whose = ", ".join(self.sources)
        return f"Joined({len(self.labels)} images of {len(self.classes)} classes: {whose})"

    @property
    def _sizes(self) -> list[int]:
        return [len(dataset.labels) for dataset in self.sources.values()]

    @property
    def source(self) -> Sources:
        """Of each image the name of its source."""
        return np.repeat(np.array(list(self.sources), np.str_), self._sizes)

    @property
    def groups(self) -> Ints | None:
        """Group ids (n,); where a source has none, each of its images is one."""
        if self.grouped == "sources":
            return np.repeat(np.arange(len(self.sources)), self._sizes)
        every = [dataset.groups for dataset in self.sources.values()]
        if all(groups is None for groups in every):
            return None
        found, start = [], 0
        for groups, size in zip(every, self._sizes, strict=True):
            ids = np.arange(size) if groups is None else np.unique(groups, return_inverse=True)[1]
            found.append(start + ids)
            start += int(ids.max(initial=-1)) + 1
        return np.concatenate(found).astype(np.int64)

    @property
    def split(self) -> ClassSplit | None:
        """The sources' splits as one."""
        splits = [getattr(dataset, "split", None) for dataset in self.sources.values()]
        kept = [split for split in splits if split is not None]
        if not kept:
            return None
        part_of = {
            name: part
            for part in reversed(_PARTS)
            for split in kept
            for name in getattr(split, part)
        }
        names: dict[str, list[str]] = {part: [] for part in _PARTS}
        for name in self.classes:
            names[part_of.get(name, "train")].append(name)
        return ClassSplit(names["train"], names["val"], names["test"])

    @property
    def role(self) -> Roles | None:
        """What each image may be; either, of a source that does not say."""
        every = [getattr(dataset, "role", None) for dataset in self.sources.values()]
        if all(role is None for role in every):
            return None
        sizes = zip(every, self._sizes, strict=True)
        return np.concatenate([np.full(n, "both") if role is None else role for role, n in sizes])

    @property
    def parents(self) -> list[str] | None:
        """What each class belongs to; its source's name, of a source that does not say."""
        found: dict[str, str] = {}
        said = False
        for called, dataset in self.sources.items():
            parents: Sequence[str] | None = getattr(dataset, "parents", None)
            said = said or parents is not None
            for i, name in enumerate(dataset.classes):
                found.setdefault(name, called if parents is None else parents[i])
        return [found[name] for name in self.classes] if said else None

    @property
    def names(self) -> list[str]:
        """Source and name of every image."""
        return [
            f"{called}/{name}"
            for called, dataset in self.sources.items()
            for name in getattr(dataset, "names", None) or range(len(dataset.labels))
        ]

    @property
    def notes(self) -> list[str]:
        """What the sources have to tell."""
        return [
            f"{called}: {note}"
            for called, dataset in self.sources.items()
            for note in getattr(dataset, "notes", ())
        ]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        if not 0 <= index < len(self.labels):
            raise IndexError(index)
        ends = list(accumulate(self._sizes))
        which = int(np.searchsorted(ends, index, side="right"))
        dataset = list(self.sources.values())[which]
        return _equal(dataset[index - (ends[which] - len(dataset.labels))], self.shape)

    def load(self, progress: Callable[[int, int], None] | None = None) -> NDArray[np.uint8]:
        """All images (n, h, w, c), each source decoded in its own fastest way."""
        total, done = len(self.labels), 0
        images = np.empty((total, *self.shape), np.uint8)
        for dataset in self.sources.values():

            def shown(n: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + n, total)

            for image in decode(dataset, shown).images:
                images[done] = _equal(image, self.shape)
                done += 1
        return images


def _equal(image: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image as one of a shape: scaled, and grey as RGB."""
    h, w, c = shape
    if image.shape[:2] != (h, w):
        planes = [
            to_shape(Image.fromarray(image[..., i]), (h, w, 1)) for i in range(image.shape[2])
        ]
        image = np.concatenate(planes, axis=-1)
    return image if image.shape[2] == c else np.repeat(image, c, axis=2)


def _joined(
    sources: Mapping[str, Dataset], size: int, grouped: Literal["own", "sources"]
) -> Joined:
    channels = {}
    for called, dataset in sources.items():
        if not len(dataset.labels):
            raise DataError(f"source '{called}' has no images")
        channels[called] = dataset[0].shape[2]
    c = max(channels.values())
    for called, n in channels.items():
        if n not in (1, c):
            raise DataError(f"source '{called}' has images of {n} channels, others have {c}")
    return Joined(sources, (size, size, c), grouped)


_GROUPED_HELP = (
    "own: each source's groups; sources: each source is one, so that pairs are of two sources"
)


@frozen(field_transformer=own_first)
class JoinedOptions(ImageOptions):
    """Options of data sets as one; those that a source has, too, are handed to it."""

    sources: Mapping[str, Dataset] = option_components(
        "dataset", "the data sets, each by a name of yours: sources.NAME.name, sources.NAME.path"
    )
    path: str = option("", "handed to every source that has a path and does not say its own")
    grouped: Literal["own", "sources"] = option("own", _GROUPED_HELP)


def joined(options: JoinedOptions) -> Joined:
    """Several data sets as one: classes of equal names are one, images know whose they are.

    `--groups sources` then takes the support from each in turn and asks about the others.
    """
    if not options.sources:
        raise DataError(
            "joined needs data sets: --set dataset.sources.NAME.name=image-folder --set "
            "dataset.sources.NAME.path=FOLDER for each, or [dataset.sources.NAME] in a file"
        )
    return _joined(options.sources, options.size, options.grouped)


@frozen(field_transformer=own_first)
class PeopleOptions(ImageOptions):
    """Options of folders of people."""

    path: str = option("", "a folder of folders, one a person; in each, one folder a class")
    grouped: Literal["own", "sources"] = option("own", _GROUPED_HELP)


def people(options: PeopleOptions) -> Joined:
    """Image folders side by side, one a person (or room, or camera), as one data set.

    Each is an `image-folder` of its own, or a zip file of one; the person is the source. Raises
    DataError for a folder of fewer than two.
    """
    if not options.path:
        raise DataError("people needs a folder: --data PATH, or path = PATH under [dataset]")
    root = home(options.path)
    try:
        inside = sorted(path for path in Path(root).iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: {error.strerror}") from error
    found = [path for path in inside if path.is_dir() or path.suffix == ".zip"]
    if len(found) < 2:
        raise DataError(
            f"{root}: {len(found)} folders, where one a person is due, two at least, each with a "
            "folder a class; one person's images are an image-folder"
        )
    same = {one.name: getattr(options, one.name) for one in fields(ImageOptions)}
    folders = {
        path.name: image_folder(ImageFolderOptions(path=str(path), **same)) for path in found
    }
    return _joined(folders, options.size, options.grouped)


COMPONENTS = (
    Component("joined", joined, JoinedOptions, "several data sets as one, by names of yours"),
    Component("people", people, PeopleOptions, "one folder a person, in each one folder a class"),
)

"""Labelled images as arrays, decoded from what gives them, and the split of their classes."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray

from ..core.components import Component
from ..core.draws import ROLES, Ints, Roles, Sources, as_ints, require_vector
from ..core.errors import DataError
from ..core.interfaces import Dataset
from ..core.options import as_names, option
from ..core.reading import home
from .cache import decode_files
from .class_names import require_names
from .folders import ImageFiles
from .parallel import on_all_cores
from .split import ClassSplit


@frozen(eq=False)
class ArrayDataset:
    """Images in memory or mapped: `images` (n, h, w, c) uint8, `labels` (n,) into `classes`.

    `files_sha256` stands for the names and contents of the files they were decoded from.
    `role`: "support", "query" or "both" of each image, where not every one may be either.
    `parents`: of each class, the name of what it belongs to. `source`: of each image, the name of
    whom or where it is from. Raises DataError for another type or
    shape, unequal lengths, labels out of range, a name that no class may have or a role that is
    none.
    """

    images: NDArray[np.uint8]
    labels: Ints = field(converter=as_ints)
    classes: tuple[str, ...] = field(converter=as_names)
    groups: Ints | None = None
    names: Sequence[str] | None = None
    split: ClassSplit | None = None
    files_sha256: str | None = None
    role: Roles | None = None
    parents: Sequence[str] | None = None
    source: Sources | None = None

    def __attrs_post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be (n, h, w, c) uint8, not {self.images.shape} {self.images.dtype}"
            )
        for what, values in (
            ("labels", self.labels), ("groups", self.groups), ("roles", self.role),
            ("sources", self.source),
        ):  # fmt: skip
            if values is not None and len(values) != len(self.images):
                raise DataError(f"{len(self.images)} images, but {len(values)} {what}")
        if self.parents is not None and len(self.parents) != len(self.classes):
            raise DataError(f"{len(self.classes)} classes, but {len(self.parents)} parents")
        if len(set(self.classes)) != len(self.classes):
            raise DataError("two classes have one name")
        require_names(self.classes)
        if self.role is not None and not np.isin(self.role, ROLES).all():
            wrong = self.role[~np.isin(self.role, ROLES)][0]
            raise DataError(f"a role is '{wrong}': each is one of {', '.join(ROLES)}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(f"labels must lie in 0..{len(self.classes) - 1}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.labels)} images of {len(self.classes)} classes)"

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]


def from_arrays(
    images: NDArray[np.uint8],
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    role: ArrayLike | None = None,
    source: ArrayLike | None = None,
) -> ArrayDataset:
    """A dataset of one's own arrays; labels and groups may be names or numbers of any size.

    Raises DataError for what an `ArrayDataset` refuses and a label that is not a number (NaN).
    """
    classes, ids = np.unique(_names_or_ids(labels), return_inverse=True)
    return ArrayDataset(
        images=np.asarray(images),
        labels=ids,
        classes=[str(c) for c in classes],
        groups=None if groups is None else np.unique(_names_or_ids(groups), return_inverse=True)[1],
        role=None if role is None else np.asarray(role, np.str_),
        source=None if source is None else np.asarray(source, np.str_),
    )


def _names_or_ids(values: ArrayLike) -> NDArray[Any]:
    """As an array in which unlike values stay unlike: large ids never become floats."""
    array = require_vector(np.asarray(values), "labels and groups must be vectors")
    if array.dtype.kind != "f":
        return array
    if np.isnan(array).any():
        raise DataError(f"label {np.flatnonzero(np.isnan(array))[0]} is NaN, which is no class")
    return np.asarray(values, dtype=object)


@frozen
class ArraysOptions:
    """Options of arrays from a file."""

    path: str = option(
        "",
        "an .npz file: images (n, h, w, c) uint8, labels (n,), and groups (n,), role (n,) and "
        "source (n,) if there are any",
    )


def arrays(options: ArraysOptions) -> ArrayDataset:
    """A dataset from an .npz file; DataError, naming the file, where it does not hold one."""
    if not options.path:
        raise DataError("arrays needs a file: --data FILE.npz, or path = FILE under [dataset]")
    try:
        with np.load(home(options.path), allow_pickle=False) as file:
            more = {name: file.get(name) for name in ("groups", "role", "source")}
            return from_arrays(file["images"], file["labels"], **more)
    except Exception as error:  # a damaged file makes its reader raise anything
        raise DataError(f"{options.path}: not arrays of images and labels: {error}") from error


# -------------------------------------------------------------------------------- decode


def decode(
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> ArrayDataset:
    """All images of a dataset, decoded once on all cores.

    Those of `ImageFiles` are kept on disk and mapped (see `fewshot.data.cache`): `images` is then a
    read-only `np.memmap`. Where they cannot be kept, or another process is decoding them, `warn` is
    told in a line. A dataset that knows a faster way has a method `load(progress)` -> (n, h, w, c)
    uint8. `progress(done, total)` is called as it goes. Raises one DataError that names every image
    that cannot be read (the first five, and how many).
    """
    load = getattr(dataset, "load", None)
    files_sha256 = None
    if load is not None:
        images = load(progress)
    elif isinstance(dataset, ImageFiles):
        images, files_sha256 = decode_files(dataset, progress, warn)
    else:
        images = _decode_items(dataset, progress)
    return ArrayDataset(
        images=images,
        labels=dataset.labels,
        classes=dataset.classes,
        groups=dataset.groups,
        names=getattr(dataset, "names", None),
        split=getattr(dataset, "split", None),
        files_sha256=files_sha256,
        role=getattr(dataset, "role", None),
        parents=getattr(dataset, "parents", None),
        source=getattr(dataset, "source", None),
    )


def _decode_items(
    dataset: Dataset, progress: Callable[[int, int], None] | None
) -> NDArray[np.uint8]:
    total = len(dataset.labels)
    if not total:
        raise DataError("the dataset has no images")
    images: NDArray[np.uint8] | None = None

    def put(index: int, image: NDArray[np.uint8]) -> None:
        nonlocal images
        if images is None:
            images = np.empty((total, *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(f"image {index} is {image.shape}, others are {images.shape[1:]}")
        images[index] = image

    on_all_cores(dataset.__getitem__, range(total), put, progress)
    assert images is not None
    return images


# -------------------------------------------------------------------------- class split


COMPONENTS = (Component("arrays", arrays, ArraysOptions, "your own arrays, from an .npz file"),)

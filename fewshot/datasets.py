"""Labelled images as arrays, decoded from what gives them, and the split of their classes."""

import tomllib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray

from .cache import decode_files, on_all_cores
from .core.components import ClassSplit, SplitOptions
from .core.draws import Episode, Ints, as_ints
from .core.errors import DataError, choose_from
from .core.interfaces import Dataset
from .core.options import as_names, option
from .core.seeding import generator
from .folders import ImageFiles
from .images import UNREADABLE


@frozen(eq=False)
class ArrayDataset:
    """Images in memory or mapped: `images` (n, h, w, c) uint8, `labels` (n,) into `classes`.

    `files_sha256` stands for the names and contents of the files they were decoded from.
    Raises DataError for another type or shape, unequal lengths or labels out of range.
    """

    images: NDArray[np.uint8]
    labels: Ints = field(converter=as_ints)
    classes: tuple[str, ...] = field(converter=as_names)
    groups: Ints | None = None
    names: Sequence[str] | None = None
    split: ClassSplit | None = None
    files_sha256: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be (n, h, w, c) uint8, not {self.images.shape} {self.images.dtype}"
            )
        for what, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and len(values) != len(self.images):
                raise DataError(f"{len(self.images)} images, but {len(values)} {what}")
        if len(set(self.classes)) != len(self.classes):
            raise DataError("two classes have one name")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(f"labels must lie in 0..{len(self.classes) - 1}")

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]


def from_arrays(
    images: NDArray[np.uint8], labels: ArrayLike, groups: ArrayLike | None = None
) -> ArrayDataset:
    """A dataset of one's own arrays; labels and groups may be names or numbers of any size."""
    classes, ids = np.unique(_names_or_ids(labels), return_inverse=True)
    return ArrayDataset(
        images=images,
        labels=ids,
        classes=[str(c) for c in classes],
        groups=None if groups is None else np.unique(_names_or_ids(groups), return_inverse=True)[1],
    )


def _names_or_ids(values: ArrayLike) -> NDArray[Any]:
    """As an array in which unlike values stay unlike: large ids never become floats."""
    array = np.asarray(values)
    return np.asarray(values, dtype=object) if array.dtype.kind == "f" else array


@frozen
class ArraysOptions:
    """Options of arrays from a file."""

    path: str = option(
        "", "an .npz file: images (n, h, w, c) uint8, labels (n,), and groups (n,) if there are any"
    )


def arrays(options: ArraysOptions) -> ArrayDataset:
    """A dataset from an .npz file; DataError, naming the file, where it does not hold one."""
    if not options.path:
        raise DataError("arrays needs a file: --data FILE.npz, or path = FILE under [dataset]")
    try:
        with np.load(options.path, allow_pickle=False) as file:
            groups = file.get("groups")
            return from_arrays(file["images"], file["labels"], groups)
    except (*UNREADABLE, KeyError, TypeError) as error:
        raise DataError(f"{options.path}: not arrays of images and labels: {error}") from error


# -------------------------------------------------------------------------------- decode


def decode(
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> ArrayDataset:
    """All images of a dataset, decoded once on all cores.

    Those of `ImageFiles` are kept on disk and mapped (see `fewshot.cache`): `images` is then a
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


# --------------------------------------------------------------- episodes, written down


def image_names(dataset: Dataset) -> list[str]:
    """What each image is called: the dataset's own names, else class/index."""
    own = getattr(dataset, "names", None)
    if own is not None:
        return list(own)
    return [f"{dataset.classes[c]}/{i}" for i, c in enumerate(dataset.labels)]


def episode_classes(dataset: Dataset, episode: Episode) -> list[str]:
    """The names of an episode's classes, label 0 first."""
    return [c if isinstance(c, str) else dataset.classes[c] for c in episode.classes]


def write_episode(dataset: Dataset, episode: Episode) -> dict[str, dict[str, list[str]]]:
    """An episode as image names by class, for JSON: {"support": {class: [...]}, "query": ...}."""
    names = image_names(dataset)
    classes = episode_classes(dataset, episode)

    def by_class(positions: Ints, labels: Ints) -> dict[str, list[str]]:
        return {
            classes[label]: [names[i] for i in episode.items[positions[labels == label]]]
            for label in np.unique(labels)
        }

    return {
        "support": by_class(episode.support, episode.support_labels),
        "query": by_class(episode.query, episode.query_labels),
    }


def read_episode(dataset: Dataset, written: Mapping[str, Mapping[str, Sequence[str]]]) -> Episode:
    """The episode that `write_episode` wrote, to be replayed on the same images.

    Raises DataError for an image that the dataset does not have.
    """
    position = {name: i for i, name in enumerate(image_names(dataset))}

    def side(of: str) -> tuple[list[int], list[str]]:
        pairs = [(name, c) for c, names in written[of].items() for name in names]
        missing = [name for name, _ in pairs if name not in position]
        if missing:
            raise DataError(f"the episode names '{missing[0]}', which the dataset does not have")
        return [position[name] for name, _ in pairs], [c for _, c in pairs]

    return Episode.of(*side("support"), *side("query"))


# -------------------------------------------------------------------------- class split


def split_classes(dataset: Dataset, options: SplitOptions = SplitOptions()) -> ClassSplit:
    """The class split the options ask for: by names, from a file, the dataset's, or fractions.

    Where only validation or test classes are named, all others are for training. Classes below
    `min_images` are refused or left out, as `too_small` says. Raises DataError for
    names the dataset does not have, for overlap and for no training or test class.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    small = {
        name: int(n)
        for name, n in zip(dataset.classes, counts, strict=True)
        if n < options.min_images
    }
    if small and options.too_small == "refuse":
        listed = ", ".join(f"'{name}' ({n})" for name, n in small.items())
        raise DataError(
            f"classes with fewer than {options.min_images} images: {listed}; add images or leave "
            "them out with --set split.too_small=leave-out"
        )
    own = getattr(dataset, "split", None)
    if options.train or options.val or options.test:
        if options.file is not None:
            raise DataError("a class split by names and one from a file exclude each other")
        held_out = {*options.val, *options.test}
        rest = [c for c in dataset.classes if c not in held_out and c not in small]
        split = ClassSplit(options.train or rest, options.val, options.test)
    elif options.file is not None:
        split = _read_split(Path(options.file))
    elif own is not None and not options.draw:
        split = own
    else:
        split = _draw_split([c for c in dataset.classes if c not in small], options)
    for part in (split.train, split.val, split.test):
        for name in part:
            if name not in dataset.classes:
                raise DataError(
                    f"class split names '{name}', which the dataset does not have: "
                    f"{choose_from(name, dataset.classes)}"
                )
    train, val, test = (
        [c for c in part if c not in small] for part in (split.train, split.val, split.test)
    )
    if len(train) < 2 or not test:
        raise DataError(
            f"a class split needs at least 2 train classes and 1 test class, this one has "
            f"{len(train)} and {len(test)}; name them with --set split.train and split.test"
        )
    return ClassSplit(train, val, test)


def _read_split(path: Path) -> ClassSplit:
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, names in parts.items():
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise DataError(f"{path}: '{name}' must be a list of class names")
        unknown = sorted(parts.keys() - {"train", "val", "test"})
        if unknown:
            way_out = choose_from(unknown[0], ("train", "val", "test"))
            raise DataError(f"{path}: no list '{unknown[0]}' in a class split: {way_out}")
        return ClassSplit(*(parts.get(name, ()) for name in ("train", "val", "test")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise DataError(f"{path}: not a class split (three lists in TOML): {error}") from error


def _draw_split(classes: Sequence[str], options: SplitOptions) -> ClassSplit:
    """By fractions: at least one test class, and two to train on before any to validate."""
    order = [classes[i] for i in generator(options.seed, "split").permutation(len(classes))]
    n_test = max(1, round(len(order) * options.test_fraction))
    wanted = round(len(order) * options.val_fraction)
    n_val = max(0, min(wanted, len(order) - n_test - 2))  # two classes are left to train on
    test, val, train = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    return ClassSplit(sorted(train), sorted(val), sorted(test))


def class_ids(dataset: Dataset, names: Iterable[str]) -> list[int]:
    """Ids of the named classes."""
    return [dataset.classes.index(name) for name in names]


def only(labels: Ints, ids: Iterable[int]) -> Ints:
    """Labels with every class but these at -1, which no sampler draws."""
    return np.where(np.isin(labels, list(ids)), labels, -1)

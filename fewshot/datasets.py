"""Labelled images: arrays in memory, folders of image files, and the split of their classes."""

import tomllib
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DataError, choose_from
from .interfaces import Dataset
from .records import (
    ClassSplit,
    Episode,
    Ints,
    SplitOptions,
    as_ints,
    as_names,
    at_least,
    option,
    positive,
)
from .seeding import generator

# What Pillow and zipfile raise for damaged, encrypted or monstrous files.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


@frozen(eq=False)
class ArrayDataset:
    """Images in memory: `images` (n, h, w, c) uint8, `labels` (n,) into `classes`.

    Raises DataError for another type or shape, unequal lengths or labels out of range.
    """

    images: NDArray[np.uint8]
    labels: Ints = field(converter=as_ints)
    classes: tuple[str, ...] = field(converter=as_names)
    groups: Ints | None = None
    names: Sequence[str] | None = None
    split: ClassSplit | None = None

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
    except (*_UNREADABLE, KeyError, TypeError) as error:
        raise DataError(f"{options.path}: not arrays of images and labels: {error}") from error


# ------------------------------------------------------------------------- image files


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits scaled to 8, which Pillow's own conversion cuts off."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))


@frozen(eq=False)
class ImageFiles:
    """Image files, decoded when asked for: EXIF orientation applied, RGB, size x size.

    `paths` are `pathlib.Path` or `zipfile.Path`. Item i raises DataError, naming the file, where
    it is not an image, damaged, or has more than `max_pixels` by its header.
    """

    paths: Sequence[Any]
    labels: Ints
    classes: tuple[str, ...]
    size: int
    max_pixels: int = 50_000_000
    groups: Ints | None = None
    split: ClassSplit | None = None

    @property
    def names(self) -> list[str]:
        """Class and file name of every image, wherever the folder is."""
        pairs = zip(self.labels, self.paths, strict=True)
        return [f"{self.classes[label]}/{path.name}" for label, path in pairs]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        path = self.paths[index]
        try:
            with path.open("rb") as file, Image.open(file) as image:
                pixels = image.width * image.height
                if pixels > self.max_pixels:
                    raise DataError(
                        f"{path}: {image.width}x{image.height} pixels are more than max_pixels "
                        f"{self.max_pixels}; scale it down or raise the limit"
                    )
                upright = _eight_bit(ImageOps.exif_transpose(image)).convert("RGB")
                return np.asarray(upright.resize((self.size, self.size), Image.Resampling.BOX))
        except UnidentifiedImageError as error:
            raise DataError(f"{path}: not an image that Pillow knows, or empty") from error
        except _UNREADABLE as error:
            raise DataError(f"{path}: not a readable image ({error})") from error


@frozen
class ImageFolderOptions:
    """Options of an image folder."""

    path: str = option("", "the folder (or zip file): one folder a class, at any depth")
    size: int = option(64, "images are scaled to size x size pixels", at_least(8))
    max_pixels: int = option(50_000_000, "larger images are refused before decoding", positive)


def image_folder(options: ImageFolderOptions) -> ImageFiles:
    """A dataset from a folder or zip file with one folder a class.

    Nested roots are found; hidden and non-image files are passed over. Raises DataError where
    there is no such folder, no class or one class only.
    """
    if not options.path:
        raise DataError("image-folder needs a folder: --data PATH, or path = PATH under [dataset]")
    folders = class_folders(Path(options.path))
    return image_files(folders, options.size, options.max_pixels)


def image_files(
    folders: dict[str, list[Any]],
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


def class_folders(root: Path) -> dict[str, list[Any]]:
    """Image files by class, classes and files in order of name, from a folder or zip file."""
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    try:
        found = _roots(_archive(root) if root.is_file() else root)
    except zipfile.BadZipFile as error:
        raise DataError(f"{root}: neither a folder nor a zip file") from error
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    if not found:
        raise DataError(f"{root}: no folder with images; it takes one folder of images a class")
    if len(found) > 1:
        places = ", ".join(str(place) for place, _ in found)
        raise DataError(f"{root}: more than one folder of classes ({places}): name one of them")
    place, folders = found[0]
    if len(folders) < 2:
        raise DataError(f"{place}: one class only ({next(iter(folders))}); at least two are needed")
    return folders


def _archive(path: Path) -> zipfile.Path:
    """The inside of a zip file, which is closed when nothing refers to it any more."""
    file = path.open("rb")
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.close()
        raise
    weakref.finalize(archive, file.close)
    return zipfile.Path(archive)


def _roots(folder: Any) -> list[tuple[Any, dict[str, list[Any]]]]:
    """The shallowest folders whose sub-folders hold images; those with several classes first."""
    subfolders = sorted((p for p in _visible(folder) if p.is_dir()), key=lambda p: natural(p.name))
    images = {p.name: _images(p) for p in subfolders}
    classes = {name: files for name, files in images.items() if files}
    deeper = [root for p in subfolders if p.name not in classes for root in _roots(p)]
    if len(classes) >= 2:
        if deeper:
            raise DataError(
                f"{folder}: '{next(iter(classes))}' holds images, {deeper[0][0]} only folders of "
                "them: put the images of a class directly into its folder"
            )
        return [(folder, classes)]
    deeper = deeper or [root for p in subfolders if p.name in classes for root in _roots(p)]
    several = [root for root in deeper if len(root[1]) >= 2]
    return several or deeper or ([(folder, classes)] if classes else [])


def _visible(folder: Any) -> Iterable[Any]:
    return (p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")))


def _images(folder: Any) -> list[Any]:
    files = (p for p in _visible(folder) if Path(p.name).suffix.lower() in IMAGE_SUFFIXES)
    return sorted((p for p in files if p.is_file()), key=lambda p: natural(p.name))


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sort key that puts A2 before A10."""
    parts: list[str] = []
    for char in name:
        if parts and parts[-1].isdecimal() == char.isdecimal():
            parts[-1] += char
        else:
            parts.append(char)
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def decode(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> ArrayDataset:
    """All images of a dataset in memory, decoded once on all cores.

    A dataset that knows a faster way has a method `load(progress)` -> (n, h, w, c) uint8.
    `progress(done, total)` is called as it goes. Raises one DataError that names every image that
    cannot be read (the first five, and how many).
    """
    load = getattr(dataset, "load", None)
    return ArrayDataset(
        images=_decode_files(dataset, progress) if load is None else load(progress),
        labels=dataset.labels,
        classes=dataset.classes,
        groups=dataset.groups,
        names=getattr(dataset, "names", None),
        split=getattr(dataset, "split", None),
    )


def _decode_files(
    dataset: Dataset, progress: Callable[[int, int], None] | None
) -> NDArray[np.uint8]:
    total = len(dataset.labels)

    def read(index: int) -> NDArray[np.uint8] | DataError:
        try:
            return dataset[index]
        except DataError as error:
            return error

    images: NDArray[np.uint8] | None = None
    errors: list[DataError] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        for i, image in enumerate(pool.map(read, range(total))):
            if isinstance(image, DataError):
                errors.append(image)
            else:
                if images is None:
                    images = np.empty((total, *image.shape), np.uint8)
                if image.shape != images.shape[1:]:
                    errors.append(
                        DataError(f"image {i} is {image.shape}, others are {images.shape[1:]}")
                    )
                else:
                    images[i] = image
            if progress is not None:
                progress(i + 1, total)
    if errors:
        listed = "; ".join(str(error) for error in errors[:5])
        more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
        raise DataError(f"{listed}{more}: mend or remove, then run again")
    if images is None:
        raise DataError("the dataset has no images")
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

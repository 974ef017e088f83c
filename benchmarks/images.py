"""Made-up images: smooth, and alike within a class, so that a network can learn them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]


def _smooth(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A coarse random picture in [0, 1], scaled up."""
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    scaled = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(scaled, np.float32) / 255


def smooth_images(
    classes: int, per_class: int, size: int = 64, seed: int = 0
) -> tuple[Images, NDArray[np.int64]]:
    """Images (n, size, size, 3) and labels (n,), class after class."""
    rng = np.random.default_rng(seed)
    images = np.empty((classes * per_class, size, size, 3), np.uint8)
    for c in range(classes):
        pattern = _smooth(rng, size)
        for i in range(per_class):
            mixed = 0.6 * pattern + 0.4 * _smooth(rng, size)
            images[c * per_class + i] = np.clip(255 * mixed, 0, 255)
    return images, np.repeat(np.arange(classes), per_class)


def jpeg_folder(folder: Path, classes: int, per_class: int, size: int = 200) -> Path:
    """The same as JPEG files, one folder a class."""
    images, labels = smooth_images(classes, per_class, size)
    for c in range(classes):
        place = folder / f"class{c:02d}"
        place.mkdir(parents=True)
        for i, image in enumerate(images[labels == c]):
            Image.fromarray(image).save(place / f"{i:05d}.jpg", quality=90)
    return folder


def random_pairs(
    rng: np.random.Generator, labels: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """As a PyTorch or MLX user would draw them: left, right, same; half of one class.

    The labels are in order, class after class.
    """
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    same = np.arange(count) < count // 2
    of_left = rng.integers(len(sizes), size=count)
    other = (of_left + rng.integers(1, len(sizes), count)) % len(sizes)
    left, right = (
        starts[of] + rng.integers(sizes[of]) for of in (of_left, np.where(same, of_left, other))
    )
    return left, right, same


def folder_of_classes(photos: Path) -> Path:
    """The first folder from `photos` down that holds more than one folder."""
    inside = [path for path in photos.iterdir() if path.is_dir()]
    return folder_of_classes(inside[0]) if len(inside) == 1 else photos


def close_up(embeddings: Any) -> list[float]:
    """A few numbers of an embedding of known images, to compare between sides."""
    return [float(x) for x in np.asarray(embeddings)[:, ::24].ravel()]

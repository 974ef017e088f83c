"""What a classifier knows and what it answers."""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ..core.draws import Ints
from ..core.errors import DataError
from ..core.options import as_names
from ..data.images import Shape


@frozen(eq=False)
class Support:
    """n support images in the order they were enrolled.

    `images` (n, h, w, c) uint8 as the network sees them, `embeddings` (n, d), `labels` (n,) into
    the classifier's classes, `names` and SHA-256 of the images' files, or of their pixels.
    `crops` (n, c, d): embeddings of what each image brings with it, its corners or nothing (c 0).
    """

    images: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    labels: Ints
    names: tuple[str, ...] = field(converter=as_names)
    sha256: tuple[str, ...] = field(converter=as_names)
    crops: NDArray[np.float32] = field()

    @crops.default
    def _nothing(self) -> NDArray[np.float32]:
        return np.empty((len(self.embeddings), 0, self.embeddings.shape[-1]), np.float32)

    def __attrs_post_init__(self) -> None:
        lengths = {len(value) for value in attrs.asdict(self, recurse=False).values()}
        if len(lengths) != 1:
            raise DataError(f"a support has one entry an image in all its parts, not {lengths}")
        if not (np.isfinite(self.embeddings).all() and np.isfinite(self.crops).all()):
            raise DataError("a support embedding is not finite")

    def __len__(self) -> int:
        return len(self.labels)

    def with_crops(self) -> tuple[NDArray[np.float32], Ints]:
        """Embeddings (n + n c, d), those of all crops below the others, and the rows (n, c) of each
        image's crops among them.
        """
        n, c, d = self.crops.shape
        rows = np.concatenate([self.embeddings, self.crops.reshape(-1, d)])
        return rows, n + np.arange(n * c).reshape(n, c)

    def neighbours(
        self, classes: Sequence[str], rows: Ints, distances: NDArray[np.float32]
    ) -> tuple["Neighbour", ...]:
        """The images of some rows; `distances` of all rows from an image that was asked about."""
        return tuple(
            Neighbour(
                int(row),
                classes[self.labels[row]],
                self.names[row],
                self.sha256[row],
                float(distances[row]),
            )
            for row in rows
        )

    def only(self, rows: NDArray[np.bool_], labels: Ints) -> "Support":
        """Some of the rows (n,), with other labels (n,)."""
        kept = np.flatnonzero(rows)
        return Support(
            self.images[kept],
            self.embeddings[kept],
            labels[kept],
            [self.names[i] for i in kept],
            [self.sha256[i] for i in kept],
            self.crops[kept],
        )

    def joined(self, more: "Support") -> "Support":
        """This support, then another."""
        return Support(
            np.concatenate([self.images, more.images]),
            np.concatenate([self.embeddings, more.embeddings]),
            np.concatenate([self.labels, more.labels]),
            self.names + more.names,
            self.sha256 + more.sha256,
            np.concatenate([self.crops, more.crops]),
        )


@frozen
class Neighbour:
    """A support image near a query: its row in the support, class, name, SHA-256 and distance."""

    row: int
    label: str
    name: str
    sha256: str
    distance: float


@frozen
class Prediction:
    """The answer for one image.

    `label`: the class, None where nothing is near enough. `best`: the class that it is most like
    in any case, of which `score` (higher is better) and `confidence` speak: how likely it is right
    if the image is of any enrolled class; None for a classifier without calibration. `distance`: to
    the nearest prototype, or support image, as the head compares. `nearest`: support images.
    `pixels` (h, w, c): the image as the network sees it.
    """

    image: str
    label: str | None
    best: str
    score: float
    confidence: float | None
    distance: float
    nearest: tuple[Neighbour, ...]
    pixels: NDArray[np.uint8] = field(eq=False, repr=False)

    def facts(self) -> dict[str, Any]:
        """All of it but the pixels, as JSON can hold it."""
        return attrs.asdict(self, filter=lambda a, _: a.name != "pixels")


def no_support(shape: Shape, embedding_dim: int, crops: int = 0) -> Support:
    """Of no image, each of which is to bring so many crops."""
    embeddings = np.empty((0, embedding_dim), np.float32)
    images, labels = np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
    return Support(images, embeddings, labels, (), (), embeddings[:, None].repeat(crops, axis=1))


def with_others(
    classes: Sequence[str], support: Support, new_classes: Sequence[str], more: Support, start: int
) -> tuple[list[str], Support]:
    """Classes and support with the rows of another's from `start` on, but those that are there."""
    joined = list(classes)
    names = [classes[label] for label in support.labels]
    there = {*zip(names, support.sha256, strict=True)}
    fresh, labels = np.zeros(len(more), bool), np.zeros(len(more), np.int64)
    for row in range(start, len(more)):
        name = new_classes[more.labels[row]]
        if name not in joined:
            joined.append(name)
        labels[row] = joined.index(name)
        fresh[row] = (name, more.sha256[row]) not in there
        there.add((name, more.sha256[row]))
    return joined, support.joined(more.only(fresh, labels)) if fresh.any() else support

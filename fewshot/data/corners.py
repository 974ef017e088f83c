"""The four corners of images, as images of the same size."""

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from ..core.draws import Ints
from ..core.interfaces import Dataset

CORNERS = 4
SIDE = 0.8  # of an image's sides


def corner(image: NDArray[np.uint8], which: int) -> NDArray[np.uint8]:
    """(h, w, c) -> (h, w, c): a corner of four fifths of the sides, scaled up (bicubic).

    `which`: 0 to 3, the top left, top right, bottom left or bottom right.
    """
    h, w, _ = image.shape
    left, top = (1 - SIDE) * w * (which % 2), (1 - SIDE) * h * (which // 2)
    box = (left, top, left + SIDE * w, top + SIDE * h)
    planes = [
        Image.fromarray(plane).resize((w, h), Image.Resampling.BICUBIC, box)
        for plane in np.ascontiguousarray(image.transpose(2, 0, 1))
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def corners(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(b, h, w, c) -> (4 b, h, w, c): those of the first image, then of the next."""
    found = [corner(image, which) for image in images for which in range(CORNERS)]
    return np.stack(found) if found else images[:0]


@frozen(eq=False)
class Corners:
    """The corners of some images of a dataset, as a dataset: item 4 i + j is corner j of image i
    of `rows` (m,).
    """

    whole: Dataset
    rows: Ints
    groups: None = None

    @property
    def labels(self) -> Ints:
        """Of each corner, that of its image."""
        return self.whole.labels[self.rows].repeat(CORNERS)

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self.whole.classes

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return corner(self.whole[int(self.rows[index // CORNERS])], index % CORNERS)

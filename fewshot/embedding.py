"""From images to embeddings: the one path that training, evaluation and prediction share."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from .compute.modules import evaluating
from .core.draws import Ints
from .core.errors import TrainingError
from .core.interfaces import Dataset, Transform
from .core.seeding import generator
from .data.batches import ahead, gather, load
from .metrics import unit
from .transforms import normalise


def five_crops(images: mx.array) -> mx.array:
    """(b, h, w, c) -> (5, b, h, w, c): each image and its corners, five sixths of the sides,
    scaled to its size (bilinear).
    """
    _, h, w, _ = images.shape
    down, across = mx.array(crop_matrices(h, False)), mx.array(crop_matrices(w, True))
    channels_first = images.transpose(0, 3, 1, 2)
    crops = down[:, None, None] @ channels_first @ across[:, None, None].swapaxes(-1, -2)
    return crops.transpose(0, 1, 3, 4, 2)


@cache
def crop_matrices(n: int, across: bool) -> NDArray[np.float32]:
    """(5, n, n): what takes n pixels in a row to those of the five crops, down or across."""
    kept = n - n // 6
    places = np.clip((np.arange(n) + 0.5) * kept / n - 0.5, 0, kept - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n)))
    first, last = weights, np.roll(weights, n - kept, axis=1)
    corners = [first, last, first, last] if across else [first, first, last, last]
    return np.stack([np.eye(n), *corners]).astype(np.float32)


@frozen
class Embedder:
    """A backbone, what is done to every image before it, and to every embedding after it."""

    backbone: Any
    preprocess: tuple[Transform, ...] = field(
        factory=lambda: (normalise(),),
        converter=tuple,
    )
    normalize: Literal["none", "l2"] = "l2"
    crops: Literal["one", "five"] = "one"

    def __call__(self, images: mx.array) -> mx.array:
        """Preprocessed images (b, h, w, c) -> embeddings (b, d), of length 1 under l2.

        With five crops, and not in training, the mean over `five_crops`.
        """
        if self.crops == "one" or self.backbone.training:
            return self.scaled(self.backbone(images))
        embeddings = self.scaled(self.backbone(five_crops(images).reshape(-1, *images.shape[1:])))
        return self.scaled(embeddings.reshape(5, len(images), -1).mean(axis=0))

    def scaled(self, embeddings: mx.array) -> mx.array:
        """To length 1 under l2."""
        return unit(embeddings) if self.normalize == "l2" else embeddings


def embed(
    embedder: Embedder,
    dataset: Dataset,
    indices: Ints | None = None,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Embeddings (n, d) of a dataset, in eval mode, `batch` images or crops at a time.

    With `indices` only those rows are computed and all others are NaN, so that an index means the
    same image everywhere and a row that was not asked for cannot pass unnoticed. Raises
    TrainingError where an embedding is not finite.
    """
    if embedder.crops == "five":
        batch = max(1, batch // 5)
    n = len(dataset.labels)
    wanted = np.arange(n) if indices is None else np.unique(indices)
    rng = generator(0, "preprocess")
    blocks = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
    out: NDArray[np.float32] | None = None
    with evaluating(embedder.backbone):
        images = ahead(lambda i: load(dataset, blocks[i], embedder.preprocess, rng), len(blocks))
        for done, (block, pixels) in enumerate(zip(blocks, images, strict=True), start=1):
            rows = np.array(embedder(mx.array(pixels)))
            if not np.isfinite(rows).all():
                raise TrainingError(
                    "embeddings are no longer finite: lower training.learning_rate, or look for "
                    "a transform that divides by zero"
                )
            if out is None:
                out = np.full((n, rows.shape[1]), np.nan, np.float32)
            out[block] = rows
            if progress is not None:
                progress(done, len(blocks))
    return np.empty((n, 0), np.float32) if out is None else out


def raw_pixels(dataset: Dataset, indices: Ints, size: int = 16) -> NDArray[np.float32]:
    """The floor: images averaged down to size x size, as vectors (n, size · size · c).

    Rows not in `indices` are NaN. An image's sides are cut to the next multiple of `size`; smaller
    images are taken as they are.
    """
    out: NDArray[np.float32] | None = None
    wanted = np.unique(indices)
    for block in np.array_split(wanted, max(1, len(wanted) // 512)):
        images = gather(dataset, block).astype(np.float32) / np.float32(255)
        b, h, w, c = images.shape
        down, across = max(1, h // size), max(1, w // size)
        rows, columns = min(size, h), min(size, w)
        images = images[:, : rows * down, : columns * across]
        images = images.reshape(b, rows, down, columns, across, c).mean(axis=(2, 4))
        if out is None:
            out = np.full((len(dataset.labels), rows * columns * c), np.nan, np.float32)
        out[block] = images.reshape(b, -1)
    assert out is not None
    return out

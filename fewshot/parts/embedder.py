"""A backbone with what is done before and after it."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from ..compute.modules import in_float16
from ..core.errors import ConfigError
from ..core.interfaces import Head, Transform
from ..core.options import above, at_most, option, within
from ..core.seeding import generator
from ..data.batches import prepared
from ..data.corners import CORNERS
from .metrics import unit
from .transforms import normalise

_DIRECTIONS = 512  # of a whitening, at the most: a matrix of them is kept with the weights


class Centre(nn.Module):
    """A point (d,) that is subtracted from embeddings; zeros until `recentre` takes it.

    Kept with what is trained, but never trained itself. Wang, Chao, Weinberger & van der Maaten
    2019, "SimpleShot": CL2N is the mean of the training classes' embeddings, then length 1.

    `whitens`: the directions in which images of one class differ are made shorter, too:
    x − x u uᵀ, u (d, r) from `within_classes`.

    `of` (d,): which numbers it is about, here at length 1; the others stay as they are. Where
    networks are beside each other these are the frozen ones': of what learned beside them,
    training has brought its own classes' images together already, and no others'.
    """

    def __init__(
        self, embedding_dim: int, whitens: bool = False, of: NDArray[np.bool_] | None = None
    ) -> None:
        super().__init__()
        self.of = of
        self.mean = mx.zeros(embedding_dim)
        if whitens:
            self.within = mx.zeros((embedding_dim, min(embedding_dim, _DIRECTIONS)))
        self.freeze()

    def __call__(self, embeddings: mx.array) -> mx.array:
        """(…, d) -> (…, d)."""
        x = embeddings - self.mean
        x = x - (x @ self.within) @ self.within.T if "within" in self else x
        if self.of is None:
            return x
        of = mx.array(self.of) | (self.mean != 0)  # a centre that was kept before is of all
        return mx.where(of, unit(mx.where(of, x, 0.0)), embeddings)


def within_classes(
    rows: NDArray[np.float32], units: NDArray[np.int64], directions: int, ridge: float = 3.0
) -> NDArray[np.float32]:
    """u (d, directions), by which x − x u uᵀ is x whitened by how rows (n, d) of one unit differ.

    Times √λ, that is (S + λ)^(−1/2) in the directions in which the covariance S within units (n,)
    is largest, λ in all others; λ: `ridge` times the mean of S in those. Zeros where there are
    fewer. Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006), made for voices
    that were recorded by other microphones.
    """
    _, of = np.unique(units, return_inverse=True)
    counts = np.bincount(of)[:, None]
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, of, rows)
    apart = rows - (sums / counts)[of]
    sizes, left = np.linalg.eigh(apart @ apart.T / len(rows))
    kept = min(directions, len(rows), int((sizes > 1e-9 * sizes[-1]).sum()))
    sizes, left = sizes[::-1][:kept], left[:, ::-1][:, :kept]
    flat = ridge * sizes.mean()
    along = apart.T @ left / np.sqrt(sizes * len(rows))
    u = np.zeros((rows.shape[1], directions), np.float32)
    u[:, :kept] = along * np.sqrt(1 - np.sqrt(flat / (sizes + flat)))
    return u


@frozen
class Embedder:
    """A backbone, what is done to every image before it, and to every embedding after it.

    Outside training what the backbone gives is raised to `power` (`powered`), and then `centre`
    subtracted, before length 1.
    `crops` "support": as "one" here; a task's support is embedded by its corners, too.
    `mirror`: every view of an image is seen in a mirror, too.
    `precision`: of the backbone's numbers outside training; embeddings are float32 all the same.
    `fitted`: a head that an adapter fitted with the backbone: it answers about the classes of the
    adapter's support in the place of a task's own, and takes no support.
    """

    backbone: Any
    preprocess: tuple[Transform, ...] = field(
        factory=lambda: (normalise(),),
        converter=tuple,
    )
    normalize: Literal["none", "l2"] = "l2"
    crops: Literal["one", "five", "support"] = "one"
    mirror: bool = False
    centre: Centre | None = None
    power: float = 1.0
    precision: Literal["float32", "float16"] = "float32"
    fitted: Head | None = None

    @property
    def support_crops(self) -> int:
        """How many crops a support image brings with it: its corners, or none."""
        return CORNERS if self.crops == "support" else 0

    @property
    def views(self) -> int:
        """How many views of an image its embedding is the mean of."""
        return (5 if self.crops == "five" else 1) * (2 if self.mirror else 1)

    def view_matrices(self, h: int, w: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What takes an image's columns and rows to those of its views, (v, h, h) and (v, w, w).

        That is the image; with five crops its corners, five sixths of the sides, scaled to its size
        (bilinear); and the mirror images of all of them.
        """
        views = self.crops == "five", self.mirror
        return _view_matrices(h, False, *views), _view_matrices(w, True, *views)

    def for_any_classes(self) -> "Embedder":
        """Itself; ConfigError where a head was fitted with it, which knows its classes alone."""
        if self.fitted is not None:
            raise ConfigError(
                "the embedder's adapter fitted a head for the classes of its support, which takes "
                "no others: adapt by finetune, lora or whiten, or take the head logistic"
            )
        return self

    def prepared(
        self,
        images: NDArray[np.uint8],
        augment: Sequence[Transform] = (),
        rng: np.random.Generator | None = None,
    ) -> NDArray[np.float32]:
        """Images (b, h, w, c) uint8 as they go in: float32 in [0, 1], augmented, then preprocessed.

        `rng`: of the augmentation. NumPy only, so that any thread may call it.
        """
        rng = generator(0, "preprocess") if rng is None else rng
        return prepared(images, [*augment, *self.preprocess], rng)

    def __call__(self, images: mx.array) -> mx.array:
        """Preprocessed images (b, h, w, c) -> embeddings (b, d), of length 1 under l2.

        Of several views, and not in training, which a frozen backbone never is, the mean.
        """
        if self.backbone.training:
            return self.scaled(self.backbone(images))
        if self.views == 1:
            return self.scaled(self._centred(images))
        b, h, w, _ = images.shape
        views = _viewed(images, *map(mx.array, self.view_matrices(h, w)))
        embeddings = self.scaled(self._centred(views.reshape(-1, *images.shape[1:])))
        return self.scaled(embeddings.reshape(self.views, b, -1).mean(axis=0))

    def of_names(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (n, d) of classes' names, by the backbone's `text`; of length 1 under l2."""
        return np.array(self.scaled(self.backbone.text(names)))

    def _centred(self, images: mx.array) -> mx.array:
        half = self.precision == "float16" and isinstance(self.backbone, nn.Module)
        raw = in_float16(self.backbone, images) if half else self.backbone(images)
        embeddings = powered(raw, self.power)
        return embeddings if self.centre is None else self.centre(embeddings)

    def scaled(self, embeddings: mx.array) -> mx.array:
        """To length 1 under l2."""
        return unit(embeddings) if self.normalize == "l2" else embeddings


@frozen
class EmbeddingOptions:
    """What `embed` does after the backbone."""

    normalize: Literal["none", "l2"] = option("l2", "scale each embedding to length 1, or not")
    crops: Literal["one", "five", "support"] = option(
        "one",
        "outside training, embed the image alone; or also its four corners and take the mean (five "
        "times the work); or take the corners of support images for support, too (five times the "
        "work where classes are enrolled, none where a query is asked)",
    )
    mirror: bool = option(
        False,
        "outside training, embed the mirror image, too, and take the mean (twice the work); not "
        "where left and right tell classes apart",
    )
    centre: Literal["none", "train", "whiten"] = option(
        "none",
        "outside training, subtract the mean embedding of the training classes' images, before "
        "length 1, or not; whiten: and shorten the directions in which these differ within a class "
        "(and a source, where the data set has sources); of networks beside each other not of one "
        "that learns beside a frozen one",
    )
    power: float = option(
        1.0,
        "outside training, raise each number of an embedding to it, its sign kept, before the "
        "centre and length 1: 0.5 for square roots; 1: no change",
        within(above(0.0), at_most(1.0)),
    )
    precision: Literal["float32", "float16"] = option(
        "float32",
        "of the backbone outside training; float16 is for Metal and CUDA: MLX is many times slower "
        "with it on a CPU, and ONNX Runtime computes in float32 whatever is asked",
    )


def powered(embeddings: mx.array, power: float) -> mx.array:
    """sign(x) |x|^power of each number, which brings skewed features nearer to a Gaussian.

    Of features >= 0, as after a ReLU, Tukey's ladder (Yang, Liu & Xu 2021, "Free Lunch for Few-Shot
    Learning", eq. 3) and, for 0.5, the power transform (Hu, Gripon & Pateux 2021, eq. 1), which
    both recommend. The gradient at 0 is 0.
    """
    if power == 1:
        return embeddings
    zero = embeddings == 0
    return mx.sign(embeddings) * mx.where(zero, 1.0, mx.abs(embeddings)) ** power


def _viewed(images: mx.array, down: mx.array, across: mx.array) -> mx.array:
    """(b, h, w, c), (v, h, h), (v, w, w) -> (v, b, h, w, c)."""
    channels_first = images.transpose(0, 3, 1, 2)
    views = down[:, None, None] @ channels_first @ across[:, None, None].swapaxes(-1, -2)
    return views.transpose(0, 1, 3, 4, 2)


@cache
def _view_matrices(n: int, across: bool, five: bool, mirror: bool) -> NDArray[np.float32]:
    """(v, n, n): what takes n pixels in a row to those of the views, down or across."""
    kept = n - n // 6
    places = np.clip((np.arange(n) + 0.5) * kept / n - 0.5, 0, kept - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n)))
    first, last = weights, np.roll(weights, n - kept, axis=1)
    corners = [first, last, first, last] if across else [first, first, last, last]
    views = np.stack([np.eye(n), *corners] if five else [np.eye(n)]).astype(np.float32)
    return np.concatenate([views, views[:, ::-1] if across else views]) if mirror else views

"""A linear map of frozen embeddings."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from ...core.components import Component
from ...core.draws import Ints
from ...core.interfaces import Adapter, Metric
from ...core.options import option, positive, share
from ...core.seeding import generator
from ..embedder import Embedder, powered
from .copies import COLOUR_HELP, CROP_HELP, SHARE, Images, augmentation, in_order, own


@frozen
class WhitenOptions:
    """Options of whiten."""

    shrinkage: float = option(0.8, "weight of the unit matrix; 1: no change", SHARE)
    views: int = option(5, "augmented copies of every support image", positive)
    crop: float = option(0.6, CROP_HELP, SHARE)
    colour: float = option(0.3, COLOUR_HELP, share)


class Mapped(nn.Module):
    """A backbone, its embeddings `powered`, times a matrix (d, d): (b, h, w, c) -> (b, d)."""

    def __init__(self, backbone: nn.Module, matrix: mx.array, power: float = 1.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.matrix = matrix
        self.power = power
        self.embedding_dim = matrix.shape[1]

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return powered(self.backbone(images), self.power) @ self.matrix


def whiten(options: WhitenOptions = WhitenOptions()) -> Adapter[Embedder]:
    """Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006), embeddings frozen.

    Embeddings are multiplied by C^(-1/2), C being the covariance of the support's augmented copies
    about their class's mean, shrunk towards the unit matrix: directions in which images of one
    class differ count less. Scaled so that C equal in all directions changes nothing; nor does a
    support without any spread. The order of the support does not matter.
    """
    augment = augmentation(options.crop, options.colour)

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = in_order(images, labels)
        mine, rows = own(embedder), []
        for view in range(options.views):
            rng = generator(seed, "whiten", view)
            for block in np.array_split(images, -(-len(images) // 128)):
                pixels = embedder.prepared(block, augment, rng)
                rows.append(np.array(mine(mx.array(pixels))))
        of_row = np.tile(labels, options.views)
        matrix = _inverse_root(np.concatenate(rows).astype(np.float64), of_row, options.shrinkage)
        # Under l2 the lengths of the frozen embeddings need not be 1: the products' will be.
        backbone = Mapped(mine.backbone, mx.array(matrix.astype(np.float32)), mine.power)
        if mine.centre is not None:
            mine.centre.mean = mine.centre.mean @ backbone.matrix  # (x − c) C^(-1/2)
        return evolve(mine, backbone=backbone.eval(), power=1.0)

    return adapt


def _inverse_root(rows: NDArray[np.float64], labels: Ints, shrinkage: float) -> NDArray[np.float64]:
    """(n, d), (n,) -> C^(-1/2) (d, d) of the shrunk covariance about the classes' means."""
    d = rows.shape[1]
    members = np.eye(labels.max() + 1)[labels]
    centred = rows - members @ (members.T @ rows / members.sum(axis=0)[:, None])
    covariance = centred.T @ centred
    mean = np.trace(covariance) / d
    if mean <= (10 * np.finfo(np.float32).eps) ** 2 * np.square(rows).mean():
        return np.eye(d)  # nothing but rounding
    shrunk = (1 - shrinkage) * covariance / mean + shrinkage * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    return (vectors / np.sqrt(values)) @ vectors.T


COMPONENTS = (
    Component(
        "whiten",
        whiten,
        WhitenOptions,
        "a linear map of frozen embeddings: their spread within classes made alike",
    ),
)

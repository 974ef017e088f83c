"""A copy of an embedder, and what adapters have in common."""

import mlx.core as mx
import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ...compute.modules import copied
from ...core.components import Component
from ...core.draws import Ints
from ...core.interfaces import Adapter, Metric, Transform
from ...core.options import NoOptions, above, at_most, within
from ..embedder import Embedder
from ..transforms import ColourOptions, CropOptions, colour_jitter, random_resized_crop

Images = NDArray[np.uint8]

SHARE = within(above(0.0), at_most(1.0))
CROP_HELP = "smallest share of an image's area in a random crop; 1: no crop"
COLOUR_HELP = "strength of random brightness, contrast and saturation; 0: none"


def own(embedder: Embedder) -> Embedder:
    """A copy in eval mode: batch norm keeps its statistics, so that a single image will do.

    It keeps the centre, that of the training classes before adapting.
    """
    backbone, centre = copied(embedder.backbone).eval(), copied(embedder.centre)
    return evolve(embedder, backbone=backbone, centre=centre, fitted=None)


def in_order(images: Images, labels: Ints) -> tuple[Images, Ints]:
    """By label, then by content: the order in which the support came has no effect."""
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return images[order], labels[order]


def augmentation(crop: float, colour: float) -> list[Transform]:
    """Of what support images are shown as, again and again."""
    return [
        random_resized_crop(CropOptions(min_scale=crop)),
        colour_jitter(ColourOptions(colour, colour, colour)),
    ]


def rows_of(embedder: Embedder, images: Images) -> NDArray[np.float32]:
    """Embeddings, some images at a time."""
    blocks = np.array_split(images, -(-len(images) // 128))
    return np.concatenate([np.array(embedder(mx.array(embedder.prepared(b)))) for b in blocks])


def none(_: NoOptions = NoOptions()) -> Adapter[Embedder]:
    """No training: a copy of the embedder."""

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        return own(embedder)

    return adapt


COMPONENTS = (Component("none", none, summary="the embedder as it was trained"),)

"""Losses around another loss."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import evolve, frozen

from ...core.components import Component
from ...core.errors import ConfigError
from ...core.interfaces import Loss
from ...core.options import option, option_component, positive


@frozen
class CrossBatchOptions:
    """Options of the cross-batch memory."""

    loss: Loss = option_component("loss", "contrastive", "of pairs, triplets or batches")
    size: int = option(1024, "images of earlier batches that it compares with", positive)


def cross_batch(options: CrossBatchOptions) -> Loss:
    """A loss whose images are compared with those of earlier batches, too.

    Wang et al. 2020 ("XBM"), algorithm 1: a queue of embeddings as they were when their batch was
    trained on, and labels; no gradient flows into it. A miner chooses among all of them. Mined
    triplets take size² numbers an image. Raises ConfigError for a loss of scores.
    """
    if options.loss.layout == "episode":
        raise ConfigError(
            "loss.loss: cross-batch compares images with images, and this loss scores them against "
            "classes: take one of pairs, triplets or batches"
        )
    return evolve(options.loss, memory=options.size, draws="labelled")


@frozen
class RotationOptions:
    """Options of rotation as an auxiliary loss."""

    loss: Loss = option_component("loss", "prototypical", "any")
    weight: float = option(1.0, "of telling rotations, beside the loss", positive)


class Rotated(nn.Module):
    """A loss's `fn`, and a linear layer that tells four rotations of images by embeddings."""

    def __init__(self, fn: Any, embedding_dim: int, weight: float) -> None:
        super().__init__()
        self.fn, self.weight = fn, weight
        self.told = nn.Linear(embedding_dim, 4)

    def __call__(self, *inputs: mx.array) -> mx.array:
        """The values of the loss."""
        return self.fn(*inputs)

    def auxiliary(self, backbone: nn.Module, images: mx.array) -> mx.array:
        """Of every fourth image (b, h, w, c), in all four rotations, −log softmax of the true one.

        Raises ConfigError for images that are not square.
        """
        if images.shape[1] != images.shape[2]:
            raise ConfigError(
                f"the loss rotation turns images, which are {images.shape[1]}x{images.shape[2]} "
                "here: it takes square ones"
            )
        some = images[::4]
        flipped = some.swapaxes(1, 2)
        turned = [some, flipped[:, ::-1], some[:, ::-1, ::-1], flipped[:, :, ::-1]]
        logits = self.told(backbone(mx.concatenate(turned)))
        truth = mx.repeat(mx.arange(4), len(some))
        return self.weight * nn.losses.cross_entropy(logits, truth)


def rotation(options: RotationOptions, *, embedding_dim: int) -> Loss:
    """Another loss, plus telling by how much images were turned: by 0, 90, 180 or 270 degrees.

    Gidaris, Singh & Komodakis 2018; beside a loss of classes, S2M2 (Mangla et al. 2020, section
    3.2, eq. 3). By a linear layer on what the backbone gives; every fourth image of a batch is
    turned, in all four ways, which takes the time of a second batch.
    """
    module = Rotated(options.loss.fn, embedding_dim, options.weight)
    return evolve(options.loss, fn=module, auxiliary=module.auxiliary)


COMPONENTS = (
    Component(
        "cross-batch",
        cross_batch,
        CrossBatchOptions,
        "another loss, its images compared with earlier batches' too",
    ),
    Component(
        "rotation",
        rotation,
        RotationOptions,
        "another loss, and telling by how much images were turned",
    ),
)

"""Images mixed with others of their batch, and their targets alike. NumPy only."""

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..core.components import Component
from ..core.interfaces import Mixer
from ..core.options import NoOptions, option, positive

Floats = NDArray[np.float32]


def none(_: NoOptions = NoOptions()) -> Mixer:
    """Images and targets as they are."""
    return Mixer(None)


@frozen
class MixupOptions:
    """Options of mixup."""

    alpha: float = option(0.2, "shares are drawn from Beta(alpha, alpha): 1 is evenly", positive)


def mixup(options: MixupOptions = MixupOptions()) -> Mixer:
    """λ of an image and 1 − λ of another of its batch: Zhang et al. 2018, equation 1.

    Every image draws its own λ; which other it meets is a random order of the batch.
    """

    def mix(images: Floats, targets: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        b = len(images)
        other = rng.permutation(b)
        kept = rng.beta(options.alpha, options.alpha, b).astype(np.float32)
        mixed = _between(images[other], images, kept[:, None, None, None])
        return np.clip(mixed, 0, 1, out=mixed), _between(targets[other], targets, kept[:, None])

    return Mixer(mix)


@frozen
class CutmixOptions:
    """Options of CutMix."""

    alpha: float = option(
        1.0, "shares of the area that is kept, from Beta(alpha, alpha): 1 is evenly", positive
    )


def cutmix(options: CutmixOptions = CutmixOptions()) -> Mixer:
    """A rectangle of another image of the batch is pasted in: Yun et al. 2019, equations 1 and 2.

    Its sides are √(1 − λ) of the image's, about a pixel drawn evenly. Where it reaches over the
    border it is cut there, and targets go by the pixels that are pasted, as in the paper's code.
    Every image draws its own λ and place; which other it meets is a random order of the batch.
    """

    def mix(images: Floats, targets: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        b, h, w, _ = images.shape
        other = rng.permutation(b)
        side = np.sqrt(1 - rng.beta(options.alpha, options.alpha, b))
        rows, columns = (_window(rng, side, n) for n in (h, w))
        pasted = rows[:, :, None] & columns[:, None, :]
        kept = 1 - pasted.mean(axis=(1, 2), dtype=np.float32)
        mixed = np.where(pasted[..., None], images[other], images)
        return mixed, _between(targets[other], targets, kept[:, None])

    return Mixer(mix)


def _window(rng: np.random.Generator, side: NDArray[np.float64], n: int) -> NDArray[np.bool_]:
    """(b, n): a run of pixels of the length side · n (b,) about a pixel drawn evenly."""
    length = (side * n).astype(np.int64)[:, None]
    start = rng.integers(n, size=(len(side), 1)) - length // 2
    at = np.arange(n)
    return (start <= at) & (at < start + length)


def _between(a: Floats, b: Floats, part: Floats) -> Floats:
    return a + (b - a) * part


COMPONENTS = (
    Component("none", none, summary="images and targets as they are"),
    Component("mixup", mixup, MixupOptions, "a weighted mean of two images, and of their targets"),
    Component("cutmix", cutmix, CutmixOptions, "a rectangle of another image, targets by area"),
)

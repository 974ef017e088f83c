"""The transform PLUGIN_NAME: a square of each image is hidden."""

import numpy as np
from attrs import frozen
from fewshot import Component, Transform, above, at_most, hookimpl, option, within
from numpy.typing import NDArray


@frozen
class Options:
    """Options of the transform."""

    side: float = option(
        0.4, "of the square, as a share of the image's", within(above(0), at_most(1))
    )


def transform(options: Options) -> Transform:
    """A random square of every image takes its mean colour.

    After DeVries and Taylor 2017, "cutout".
    """

    def apply(
        images: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        b, h, w, _ = images.shape
        high, wide = max(1, round(options.side * h)), max(1, round(options.side * w))
        tops, lefts = rng.integers(0, h - high + 1, b), rng.integers(0, w - wide + 1, b)
        out = images.copy()
        for image, top, left in zip(out, tops, lefts, strict=True):
            image[top : top + high, left : left + wide] = image.mean(axis=(0, 1))
        return out

    return apply


@hookimpl
def fewshot_transforms() -> list[Component]:
    return [Component("PLUGIN_NAME", transform, Options, "hides a random square")]

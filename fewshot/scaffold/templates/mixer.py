"""The mixer PLUGIN_NAME: the lower part of each image is another's."""

import numpy as np
from attrs import frozen
from fewshot import Component, Mixer, above, at_most, hookimpl, option, within
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@frozen
class Options:
    """Options of the mixer."""

    highest: float = option(
        0.5, "share of the image that is another's", within(above(0), at_most(1))
    )


def mixer(options: Options) -> Mixer:
    """Every image of a batch draws its own share; targets go by the rows of pixels."""

    def mix(
        images: Floats, targets: Floats, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        b, h, _, _ = images.shape
        other = rng.permutation(b)
        replaced = np.round(rng.uniform(0, options.highest, b) * h)
        below = np.arange(h) >= h - replaced[:, None]
        mixed = np.where(below[:, :, None, None], images[other], images)
        part = below.mean(axis=1, dtype=np.float32)[:, None]
        return mixed, targets * (1 - part) + targets[other] * part

    return Mixer(mix)


@hookimpl
def fewshot_mixers() -> list[Component]:
    return [Component("PLUGIN_NAME", mixer, Options, "the lower part of another image")]

"""The data set PLUGIN_NAME: stripes of different directions, drawn by program.

Put your own images in place of `draw`: any (n, h, w, c) uint8 with labels, and groups
where some images show one thing and must not be support and query of one episode.
"""

import numpy as np
from attrs import frozen
from fewshot import ArrayDataset, Component, at_least, from_arrays, hookimpl, option
from numpy.typing import NDArray


@frozen
class Options:
    """Options of the data set."""

    classes: int = option(12, "directions", at_least(3))
    per_class: int = option(20, "images of each", at_least(2))
    size: int = option(32, "height and width in pixels", at_least(8))
    noise: float = option(40.0, "standard deviation, of 255", at_least(0))


def draw(angles: NDArray[np.float64], size: int, noise: float) -> NDArray[np.uint8]:
    """(n,) radians -> (n, size, size, 3): stripes at a random place, in noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    angle = angles[:, None, None]
    phase = rng.uniform(0, 2 * np.pi, angle.shape)
    stripes = np.sin(30 * (columns * np.cos(angle) + rows * np.sin(angle)) + phase)
    grey = 128 + 60 * stripes[..., None] + rng.normal(0, noise, (*stripes.shape, 3))
    return np.clip(grey, 0, 255).astype(np.uint8)


def dataset(options: Options) -> ArrayDataset:
    """Every direction `per_class` times."""
    labels = np.repeat(np.arange(options.classes), options.per_class)
    images = draw(labels * np.pi / options.classes, options.size, options.noise)
    return from_arrays(images, labels)


@hookimpl
def fewshot_datasets() -> list[Component]:
    return [Component("PLUGIN_NAME", dataset, Options, "stripes, drawn by program")]

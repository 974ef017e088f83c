"""The drawn alphabet: the data set that needs no download."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fewshot import DataError, Ints, at_least, at_most, cores, generator, option, within

from .alphabet import CLASSES, SPLIT
from .drawing import LARGEST, SMALLEST, draw


@frozen
class SyntheticOptions:
    """Options of the drawn alphabet."""

    size: int = option(
        48, "images are size x size pixels", within(at_least(SMALLEST), at_most(LARGEST))
    )
    images: int = option(240, "images of each class", at_least(1))
    seed: int = option(0, "seed of the drawing", at_least(0))


@frozen(eq=False)
class Drawn:
    """A dataset whose image i is drawn when asked for, from (seed, i) alone."""

    options: SyntheticOptions
    labels: Ints
    classes: tuple[str, ...] = CLASSES
    groups: None = None
    split = SPLIT

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        name = self.classes[self.labels[index]]
        return draw(name, generator(self.options.seed, "drawn", index), self.options.size)

    @property
    def names(self) -> list[str]:
        """What tells an image from all others, whatever its size."""
        return [
            f"{self.classes[c]}/{i} of seed {self.options.seed}" for i, c in enumerate(self.labels)
        ]

    def load(self, progress: Callable[[int, int], None] | None = None) -> NDArray[np.uint8]:
        """All images (n, size, size, 3), drawn by one process a core.

        Processes of their own, not forks: a fork after MLX has run hangs, and a spawned one would
        run the caller's script again.
        """
        total, size = len(self.labels), self.options.size
        images = np.empty((total, size, size, 3), np.uint8)
        count = min(cores(), 8)
        with ThreadPoolExecutor(count) as pool:
            others = [pool.submit(_elsewhere, self.options, w, count) for w in range(1, count)]
            for index in range(0, total, count):
                images[index] = self[index]
                if progress is not None:
                    progress(min(index + count, total), total)
            for worker, other in enumerate(others, start=1):
                rows = np.frombuffer(other.result(), np.uint8)
                images[worker::count] = rows.reshape(-1, size, size, 3)
        return images


def _elsewhere(options: SyntheticOptions, worker: int, count: int) -> bytes:
    """Every `count`-th image from `worker` on, drawn by another Python."""
    numbers = (options.size, options.images, options.seed, worker, count)
    done = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, numbers)], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise DataError(f"drawing ended with exit code {done.returncode}")
    return done.stdout


def synthetic(options: SyntheticOptions) -> Drawn:
    """26 hand poses, two gestures and the empty scene, drawn; the photos' classes and split.

    Every image draws its own skin tone, light, scale, position and background, so there are no
    groups: no two images are of one shot.
    """
    return Drawn(options, np.repeat(np.arange(len(CLASSES)), options.images))


if __name__ == "__main__":
    asked = [int(number) for number in sys.argv[1:]]
    drawn = synthetic(SyntheticOptions(*asked[:3]))
    try:
        for i in range(asked[3], len(drawn.labels), asked[4]):
            sys.stdout.buffer.write(drawn[i].tobytes())
    except KeyboardInterrupt:  # the parent says it
        sys.exit(130)

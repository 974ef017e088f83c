"""How fast embedding is."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from ..compute.modules import evaluating
from ..core.figures import Speed
from ..core.seeding import generator
from ..data.batches import batch_size
from ..parts.embedder import Embedder
from .inference import Engine, Name, as_engine


def median_time(function: Callable[[], object], seconds: float) -> float:
    """Seconds of a call: the median of as many as fit in `seconds`, at least three."""
    function()  # the first call sets up
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def embedding_speed(
    embedder: Embedder,
    shape: tuple[int, int, int],
    batch: int = 128,
    seconds: float = 1.0,
    engine: Name | Engine = "auto",
) -> Speed:
    """Embedding rate in images/s, in batches and one by one; images are prepared beforehand.

    Batches are of `batch` images, of large ones as many as `embed` takes at a time. The median of
    as many rounds as fit in `seconds` each, at least three.
    """
    rng, batch = generator(0, "speed"), batch_size(shape, batch)

    def rate(size: int) -> float:
        pixels = rng.integers(256, size=(size, *shape), dtype=np.uint8)
        return size / median_time(partial(run, embedder.prepared(pixels)), seconds)

    with evaluating(embedder.backbone):
        run = as_engine(engine).of(embedder, shape)
        in_batches, one_by_one = rate(batch), rate(1)
    return Speed(in_batches, one_by_one, 1000 / one_by_one, float(batch))

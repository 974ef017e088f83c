"""How fast embedding is."""

import time
from collections.abc import Callable
from functools import partial

import mlx.core as mx
import numpy as np

from ..compute.modules import evaluating
from ..core.seeding import generator
from ..parts.embedder import Embedder


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
    embedder: Embedder, shape: tuple[int, int, int], batch: int = 128, seconds: float = 1.0
) -> dict[str, float]:
    """Embedding rate in images/s, in batches and one by one; images decoded beforehand.

    The median of as many rounds as fit in `seconds` each, at least three.
    """
    rng = generator(0, "speed")

    def embed_all(images: mx.array) -> None:
        mx.eval(embedder(images))

    with evaluating(embedder.backbone):
        figures: dict[str, float] = {}
        for name, size in (("batch", batch), ("single", 1)):
            images = mx.array(rng.random((size, *shape), dtype=np.float32))
            took = median_time(partial(embed_all, images), seconds)
            figures[f"{name}_images_per_second"] = size / took
        figures["single_latency_ms"] = 1000 / figures["single_images_per_second"]
    return {**figures, "batch": float(batch)}

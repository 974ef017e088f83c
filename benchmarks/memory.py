"""Peak memory of embedding and evaluating a large data set that lies on disk."""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import network
from .settings import Settings
from .sides import Result, SkippedError, side
from .worker import Turn

CLASSES, TEST_CLASSES, REPEATS = 29, 6, 5


def anonymous_mb() -> float:
    """Memory that is the process's own: pages of mapped files are not in it (proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon")


class Peak:
    """The largest of what a thread sees every 10 ms, inside a `with`."""

    def __enter__(self) -> "Peak":
        self.mb = anonymous_mb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.mb = max(self.mb, anonymous_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.mb = max(self.mb, anonymous_mb())


def ours(path: str, k_shot: int) -> tuple[dict[str, Any], Turn]:
    """Embed all images and evaluate as `fewshot eval` does, once whatever n says."""
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    images = np.load(path, mmap_mode="r")
    labels = np.arange(len(images)) * CLASSES // len(images)
    data = fs.from_arrays(images, labels)
    known, asked = data.classes[:-TEST_CLASSES], data.classes[-TEST_CLASSES:]
    split = fs.ClassSplit(known, (), asked)
    options = fs.EvaluationOptions(k_shot=(k_shot,), repeats=REPEATS)

    def turn(n: int) -> dict[str, Any]:
        before = anonymous_mb()
        began = time.perf_counter()
        with Peak() as peak:
            (episodes,) = fs.k_shot_episodes(data, split, options).values()
            embeddings = fs.embed(embedder, data)
            embedded = time.perf_counter() - began
            with_episodes = fs.evaluate(
                embeddings, episodes, fs.nearest_prototype(), fs.euclidean(), data.classes
            )
        return {
            "before": before,
            "peak": peak.mb,
            "embedding": embedded,
            "each": time.perf_counter() - began,
            "accuracy": with_episodes.accuracy,
        }

    return {
        "images": len(images),
        "embeddings MB": len(images) * network.EMBEDDING * 4 / 2**20,
    }, turn


def measure(settings: Settings) -> Result:
    if sys.platform != "linux":
        raise SkippedError("reads /proc/self/status, which only Linux has")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "images.npy")
        shape = (settings.images, network.SIZE, network.SIZE, 3)
        images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        rng = np.random.default_rng(0)
        for i in range(0, len(images), 1000):
            block = images[i : i + 1000]
            block[:] = rng.integers(0, 256, block.shape, np.uint8)
        images.flush()
        del images
        with side("memory:ours", path=str(path), k_shot=settings.k_shot) as part:
            reply = part.ask(1)
            embeddings = part.facts["embeddings MB"]
    return Result(
        what=f"peak memory of evaluating {settings.images:,} images, K = {settings.k_shot}",
        ours=f"{reply['peak']:.0f} MB",
        note=f"{reply['before']:.0f} MB before it starts, {embeddings:.0f} MB are the embeddings; "
        f"the images are mapped from a file and not counted; {reply['each']:.0f} s, "
        f"{reply['embedding']:.0f} of them embedding",
        figures=reply,
    )

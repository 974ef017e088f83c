"""From dataset indices to float batches, ahead of need. NumPy only: MLX stays on one thread."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.draws import Ints
from ..core.interfaces import Dataset, Transform
from .datasets import ArrayDataset

T = TypeVar("T")

# Of the images that a network sees at a time, where nothing but their embeddings is wanted: what
# its layers hold grows with them, and twenty photos of 224x224 keep all cores busy.
_PIXELS = 1 << 20


def batch_size(shape: tuple[int, ...], most: int) -> int:
    """How many images (h, w, c) to embed at a time, `most` where they are small."""
    return max(1, min(most, _PIXELS // (shape[0] * shape[1])))


def gather(dataset: Dataset, indices: Ints) -> NDArray[np.uint8]:
    """Images `indices` of a dataset as one batch (b, h, w, c) uint8."""
    if isinstance(dataset, ArrayDataset):
        return dataset.images[indices]
    return np.stack([dataset[int(i)] for i in indices])


def prepared(
    images: NDArray[np.uint8], transforms: Sequence[Transform], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Images (b, h, w, c) uint8 as float32 in [0, 1], transformed in order."""
    out: NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
    for transform in transforms:
        out = transform(out, rng)
    return out.astype(np.float32, copy=False)


def ahead(make: Callable[[int], T], count: int, depth: int = 2) -> Iterator[T]:
    """make(0), make(1), …, make(count - 1) in order, `depth` of them made ahead on a thread."""
    pool = ThreadPoolExecutor(1)
    waiting: deque[Future[T]] = deque()
    try:
        for index in range(count):
            waiting.append(pool.submit(make, index))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waited for: where the garbage collector ends this, that may be amid a thread's start,
        # which holds the lock that the end of another thread takes.
        pool.shutdown(wait=False, cancel_futures=True)

"""Images to enrol, and whether two classifiers are one."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fewshot as fs

SIZE = 16  # of the images of the run folder `trained`


def photo(rng: np.random.Generator, size: int = SIZE) -> Any:
    return rng.integers(0, 256, (size, size, 3), np.uint8)


def write_folder(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder of 20x24 pixels' images for each class, the brighter the later it comes."""
    rng = np.random.default_rng(seed)
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            pixels = rng.integers(0, 120, (20, 24, 3)) + 60 * i
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{j}.png")
    return root


def equal(a: fs.Classifier, b: fs.Classifier) -> bool:
    parts = [(x.images, x.embeddings, x.labels) for x in (a.support, b.support)]
    texts = [(x.classes, x.support.names, x.support.sha256, x.threshold) for x in (a, b)]
    return texts[0] == texts[1] and all(map(np.array_equal, *parts))

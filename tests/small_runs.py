"""A run that takes a second or two, and images for it."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, PER_CLASS = 7, 12
SMALL = (
    *("--set", "backbone.name=conv4", "--set", "backbone.width=4"),
    *("--set", "dataset.name=image-folder", "--set", "dataset.size=16"),
)
QUICK = (
    *("--steps", "4", "--k-shot", "1,3", "--set", "training.validate_every=2"),
    *("--set", "evaluation.repeats=2", "--set", "evaluation.pairs=50"),
    *("--set", "split.test_fraction=0.3", "--set", "split.val_fraction=0.3"),
)


def write_images(root: Path, counts: dict[str, int]) -> Path:
    """Noise with a tint of the class, hard enough that accuracies lie between 0 and 1."""
    rng = np.random.default_rng(0)
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        tint = np.array([12 * i, 80 - 12 * i, 40])
        for j in range(count):
            noise = rng.integers(0, 160, (32, 32, 3)) + rng.integers(0, 40, 3)
            Image.fromarray(np.clip(noise + tint, 0, 255).astype(np.uint8)).save(
                root / name / f"{j}.png"
            )
    return root

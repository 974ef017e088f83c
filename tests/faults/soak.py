"""Whether memory stays level in a long training: `python -m tests.faults.soak`, 2,000 steps.

`--full` is the same. Prints the resident megabytes as it goes, and ends with 1 where the second
half of the steps took more than 16 MB on top of the first.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import fewshot as fs

STEPS, MOST = 2000, 16.0


def resident() -> float:
    """Megabytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """A line for every tenth of the steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="the same")
    parser.parse_args()
    fs.prepare()
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 20)
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    data = fs.from_arrays(images, labels)
    embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=16), (32, 32, 3)))
    split = fs.ClassSplit(data.classes[:8], data.classes[8:10], data.classes[10:])
    head, metric = fs.nearest_prototype(), fs.euclidean()
    seen: list[float] = []

    def told(step: int, steps: int, _: str) -> None:
        if step % (steps // 10) == 0:
            seen.append(resident())
            print(f"{step} steps: {seen[-1]:.0f} MB", flush=True)

    fs.fit(
        embedder,
        data,
        fs.all_pairs(fs.BalancedOptions(classes=8, per_class=4), np.where(labels < 8, labels, -1)),
        fs.contrastive(),
        metric,
        options=fs.TrainingOptions(steps=STEPS, validate_every=50, patience=0),
        augment=[fs.random_resized_crop(), fs.colour_jitter()],
        validate=fs.validation(embedder, data, split, head, metric),
        progress=told,
    )
    grown = max(seen[5:]) - max(seen[:5])
    print(f"the second half took {grown:.1f} MB more")
    return int(grown > MOST)


if __name__ == "__main__":
    sys.exit(main())

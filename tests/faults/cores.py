"""How far one core and two come apart in training: `python -m tests.faults.cores`.

The same seeds and steps on drawn noise, the batch divided over one stream and over two: the largest
difference of a weight and of an embedding, as a share of the largest one, and the images whose
nearest other image is the same.
"""

import numpy as np
from numpy.typing import NDArray

import fewshot as fs
from fewshot.compute import runtime

_STEPS = (1, 10, 100, 400)


def trained(streams: int, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All weights (p,) and embeddings (n, d) of a small network after so many steps."""
    import mlx.core as mx  # after `prepare`
    from mlx.utils import tree_flatten

    runtime.streams = lambda: streams
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 14)
    noise = rng.normal(0, 40, (len(labels), 32, 32, 3))
    images = np.clip(rng.integers(0, 256, (8, 32, 32, 3))[labels] + noise, 0, 255).astype(np.uint8)
    mx.random.seed(0)
    embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=16), (32, 32, 3)))
    sampler = fs.all_pairs(fs.BalancedOptions(classes=8, per_class=4), labels)
    data, options = fs.from_arrays(images, labels), fs.TrainingOptions(steps=steps)
    fs.fit(embedder, data, sampler, fs.contrastive(), fs.euclidean(), options=options)
    weights = [np.array(a).ravel() for _, a in tree_flatten(embedder.backbone.parameters())]
    return np.concatenate(weights), np.array(embedder(mx.array(embedder.prepared(images))))


def nearest(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, d) -> (n,): the nearest other point of each."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(axis=1)


def main() -> None:
    """A line for every number of steps."""
    fs.prepare()
    for steps in _STEPS:
        one, two = trained(1, steps), trained(2, steps)
        pairs = zip(one, two, strict=True)
        weights, points = (np.abs(a - b).max() / np.abs(a).max() for a, b in pairs)
        same = (nearest(one[1]) == nearest(two[1])).mean()
        print(f"{steps} steps: weights {weights:.0e}, embeddings {points:.0e}, nearest {same:.0%}")


if __name__ == "__main__":
    main()

"""Distance calibration (Yang, Liu & Xu 2021, "Free lunch"): what training classes tell of new ones.

`python calibration.py RUN` asks it of a run's network and classes; without one, of drawn points.
A support image is taken for a draw from a normal distribution whose mean and covariance are near
those of the training classes most like it (eq. 6, without α), and brings draws from that to the
support.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fewshot as fs

fs.prepare()

NEIGHBOURS, DRAWS = 2, 50  # the paper's k; its draws are 750 of a class

Rows = NDArray[np.float32]


def draws(support: Rows, known: Rows, labels: NDArray[np.int64]) -> Rows:
    """(m, d) -> (m, DRAWS, d), by embeddings (n, d) of training classes and their labels (n,)."""
    rng = np.random.default_rng(0)
    classes = [known[labels == c] for c in np.unique(labels)]
    means = np.stack([rows.mean(axis=0) for rows in classes])
    found = []
    for image in support:
        nearest = np.square(means - image).sum(axis=1).argsort()[:NEIGHBOURS]
        drawn = np.tile((means[nearest].sum(axis=0) + image) / (NEIGHBOURS + 1), (DRAWS, 1))
        for c in nearest:  # normal draws by the class's own covariance, without making it
            apart = (classes[c] - means[c]) / np.sqrt(len(classes[c]) - 1)
            drawn += rng.standard_normal((DRAWS, len(apart))) @ apart / np.sqrt(NEIGHBOURS)
        found.append(drawn)
    return np.stack(found).astype(np.float32)


def points() -> tuple[Rows, NDArray[np.int64], NDArray[np.bool_]]:
    """24 classes of points, of which six are new; all differ in the same few directions."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 20)
    along = rng.normal(0, 0.6, (480, 4)) @ rng.normal(0, 1, (4, 16))
    rows = rng.normal(0, 1, (24, 16))[labels] + along
    return rows.astype(np.float32), labels, labels >= 18


def of_run(folder: Path) -> tuple[Rows, NDArray[np.int64], NDArray[np.bool_]]:
    """A run's embeddings of its training classes and of at most 20 images of each test class."""
    parts = fs.trained(folder, fs.build_registry()[0])
    labels, new = parts.dataset.labels, np.isin(parts.dataset.classes, parts.split.test)
    test = np.concatenate([np.flatnonzero(labels == c)[:20] for c in np.flatnonzero(new)])
    asked = np.concatenate([parts.training_images, test])
    rows = fs.embed(parts.embedder, parts.dataset, asked)[asked]
    return rows, labels[asked], new[labels[asked]]


rows, labels, new = of_run(Path(sys.argv[1])) if sys.argv[1:] else points()
brought = draws(rows[new], rows[~new], labels[~new])
_, own = np.unique(labels[new], return_inverse=True)
n = len(own)
support = np.concatenate([rows[new], brought.reshape(n * DRAWS, -1)])
crops = n + np.arange(n * DRAWS).reshape(n, DRAWS)  # the rows that each image brings
names = [str(c) for c in range(own.max() + 1)]
tasks = list(fs.episodes(fs.EpisodesOptions(n_way=5, k_shot=1, n_query=10), own).blocks(0, 200))
for what, head, more in (
    ("nearest prototype", fs.nearest_prototype(), None),
    ("logistic regression", fs.logistic(), None),
    ("logistic regression, calibrated", fs.logistic(), crops),
):
    result = fs.evaluate(support, tasks, head, fs.euclidean(), names, crops=more)
    low, high = (100 * edge for edge in result.ci95)
    print(f"5-way 1-shot, {what}: {result.accuracy:.1%} ({low:.1f} to {high:.1f})")

"""Same class or different: pairs of images, a threshold on their distance, the ROC curve."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ..compute.modules import evaluating
from ..core.draws import Pairs
from ..core.figures import Verification
from ..core.interfaces import Metric


def pair_distances(
    embeddings: NDArray[np.float32], draw: Pairs, metric: Metric, block: int = 4096
) -> NDArray[np.float32]:
    """Distances (p,) of a draw's pairs."""
    left, right = draw.items[draw.left], draw.items[draw.right]
    with evaluating(metric.fn):
        return np.concatenate(
            [
                np.array(
                    metric.fn(
                        mx.array(embeddings[left[i : i + block]]),
                        mx.array(embeddings[right[i : i + block]]),
                    )
                )
                for i in range(0, len(left), block)
            ]
        )


def roc_auc(distances: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """Chance that a same pair is nearer than a different one, ties counted half."""
    different = np.sort(distances[~same])
    below = np.searchsorted(different, distances[same], side="left")
    up_to = np.searchsorted(different, distances[same], side="right")
    return float(1 - (below + up_to).mean() / (2 * len(different)))


def best_threshold(distances: NDArray[np.float32], same: NDArray[np.bool_]) -> float:
    """The distance t at which "same if distance < t" is right most often on balanced classes."""
    order = np.argsort(distances, kind="stable")
    ordered = same[order]
    hits = np.concatenate([[0.0], np.cumsum(ordered) / max(1, same.sum())])
    alarms = np.concatenate([[0.0], np.cumsum(~ordered) / max(1, (~same).sum())])
    edges = np.concatenate([distances[order], np.array([np.inf], np.float32)])
    apart = np.concatenate([[True], np.diff(distances[order]) > 0, [True]])
    cut = int(np.argmax(np.where(apart, hits - alarms, -np.inf)))
    if cut == len(distances):
        return float(np.nextafter(edges[-2], np.float32(np.inf)))
    return float(edges[cut])


def verify(
    embeddings: NDArray[np.float32],
    tuning: Pairs,
    test: Pairs,
    metric: Metric,
    margin: float | None = None,
) -> Verification:
    """Same class or different on `test`, with a threshold chosen on `tuning`."""
    tuned_on = pair_distances(embeddings, tuning, metric)
    threshold = best_threshold(tuned_on, tuning.same)
    distances = pair_distances(embeddings, test, metric)

    def accuracy(at: float) -> float:
        return float(np.mean((distances < at) == test.same))

    return Verification(
        auc=roc_auc(distances, test.same),
        threshold=threshold,
        accuracy=accuracy(threshold),
        tuning_accuracy=float(np.mean((tuned_on < threshold) == tuning.same)),
        margin=margin,
        accuracy_at_margin=None if margin is None else accuracy(margin),
        pairs=len(test.same),
    )

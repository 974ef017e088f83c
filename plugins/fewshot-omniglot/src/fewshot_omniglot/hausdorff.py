"""The modified Hausdorff distance (Dubuisson & Jain 1994), the baseline of Lake et al. (2015)."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from fewshot import ArrayDataset, Episode


def inked(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Coordinates (n, 2) of the pixels of an inverted image that are not 0, about their mean."""
    points = np.argwhere(image[..., 0] > 0).astype(np.float64)
    return points - points.mean(axis=0)


def modified_hausdorff(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """max(mean over x of the distance to y, mean over y of the distance to x), (n, 2) and (m, 2).

    Dubuisson & Jain 1994, distance 22 (d6 combined by the maximum); 0 for the same points.
    """
    return float(max(KDTree(y).query(x)[0].mean(), KDTree(x).query(y)[0].mean()))


def hausdorff_error(dataset: ArrayDataset, episode: Episode) -> float:
    """Share of queries whose nearest support image, of inverted 105x105 drawings, is another's."""
    support, query = (
        [inked(dataset[i]) for i in episode.items[side]]
        for side in (episode.support, episode.query)
    )
    table = np.array([[modified_hausdorff(x, y) for y in support] for x in query])
    answers = episode.support_labels[table.argmin(axis=1)]
    return float(np.mean(answers != episode.query_labels))

"""Episodes written down with the names of their images, and read again."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.draws import Episode, Ints
from ..core.errors import DataError
from ..core.interfaces import Dataset


def image_names(dataset: Dataset) -> list[str]:
    """What each image is called: the dataset's own names, else class/index."""
    own = getattr(dataset, "names", None)
    if own is not None:
        return list(own)
    return [f"{dataset.classes[c]}/{i}" for i, c in enumerate(dataset.labels)]


def episode_classes(dataset: Dataset, episode: Episode) -> list[str]:
    """The names of an episode's classes, label 0 first."""
    return [c if isinstance(c, str) else dataset.classes[c] for c in episode.classes]


def write_episode(dataset: Dataset, episode: Episode) -> dict[str, dict[str, list[str]]]:
    """An episode as image names by class, for JSON: {"support": {class: [...]}, "query": ...}."""
    names = image_names(dataset)
    classes = episode_classes(dataset, episode)

    def by_class(positions: Ints, labels: Ints) -> dict[str, list[str]]:
        return {
            classes[label]: [names[i] for i in episode.items[positions[labels == label]]]
            for label in np.unique(labels)
        }

    return {
        "support": by_class(episode.support, episode.support_labels),
        "query": by_class(episode.query, episode.query_labels),
    }


def read_episode(dataset: Dataset, written: Mapping[str, Mapping[str, Sequence[str]]]) -> Episode:
    """The episode that `write_episode` wrote, to be replayed on the same images.

    Raises DataError for an image that the dataset does not have.
    """
    position = {name: i for i, name in enumerate(image_names(dataset))}

    def side(of: str) -> tuple[list[int], list[str]]:
        pairs = [(name, c) for c, names in written[of].items() for name in names]
        missing = [name for name, _ in pairs if name not in position]
        if missing:
            raise DataError(f"the episode names '{missing[0]}', which the dataset does not have")
        return [position[name] for name, _ in pairs], [c for _, c in pairs]

    return Episode.of(*side("support"), *side("query"))

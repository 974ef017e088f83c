"""What early stopping asks."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..core.draws import Grouping, Pairs
from ..core.interfaces import Dataset, Head, Metric
from ..core.seeding import generator
from ..data.split import ClassSplit, class_ids, only
from ..parts.embedder import Embedder
from ..parts.samplers import PairsOptions, all_way, pairs
from .embedding import embed
from .evaluation import evaluate
from .protocol import needed
from .verification import verify


def validation(
    embedder: Embedder,
    dataset: Dataset,
    split: ClassSplit,
    head: Head,
    metric: Metric,
    grouping: Grouping = "separate",
    pool: int = 30,
    draws: int = 20,
    seed: int = 0,
) -> Callable[[], Mapping[str, float]] | None:
    """What early stopping asks: a function that examines the embedder as it is now.

    "score": accuracy on fixed draws, K = 5 (fewer where a class is smaller), support of training
    and validation classes, queries of the validation classes; "auc" and "pair_accuracy": pair
    verification on the validation classes, at the threshold that is best on pairs of the training
    classes, and "train_pair_accuracy" on these. All from at most `pool` images a class, so that it
    stays cheap. Test classes are not read. None without validation classes.
    """
    if not split.val:
        return None
    known, asked = class_ids(dataset, split.train), class_ids(dataset, split.val)
    rng = generator(seed, "validation")
    labels = np.full_like(dataset.labels, -1)
    smallest = pool
    for c in (*known, *asked):
        chosen = rng.permutation(np.flatnonzero(dataset.labels == c))[:pool]
        labels[chosen] = c
        smallest = min(smallest, len(chosen))
    groups = dataset.groups if grouping == "separate" else None
    sampler = all_way(labels, groups, asked, max(1, min(5, smallest // 2)))
    tasks = list(sampler.blocks(seed, draws))
    # A training class of one group has no pair of its own that is no near copy.
    unit = np.arange(len(labels)) if groups is None else groups
    paired = [c for c in known if len(np.unique(unit[labels == c])) >= 2]

    def draw(classes: Sequence[int]) -> Pairs:
        spec = PairsOptions(1000, groups=grouping)
        return pairs(spec, only(labels, classes), groups).draw(seed, 0)

    drawn = None
    if len(asked) >= 2 and len(paired) >= 2:
        drawn = draw(paired), draw(asked)
    images = needed([*tasks, *(drawn or ())])

    def examine() -> dict[str, float]:
        embeddings = embed(embedder, dataset, images)
        figures = {"score": evaluate(embeddings, tasks, head, metric, dataset.classes).accuracy}
        if drawn is not None:
            found = verify(embeddings, *drawn, metric)
            figures["auc"] = found.auc
            figures["pair_accuracy"] = found.accuracy
            figures["train_pair_accuracy"] = found.tuning_accuracy
        return figures

    return examine

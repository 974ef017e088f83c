"""What early stopping asks."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..compute.modules import is_frozen
from ..core.draws import Apart
from ..core.interfaces import Dataset, Head, Metric
from ..data.split import ClassSplit
from ..parts.embedder import Embedder
from .embedding import embed, recentre, settled, spread
from .evaluation import evaluate
from .inference import Name
from .protocol import ValidationDraws, needed, validation_draws
from .verification import verify


def validation(
    embedder: Embedder,
    dataset: Dataset,
    split: ClassSplit,
    head: Head,
    metric: Metric,
    grouping: Apart = "separate",
    pool: int = 30,
    draws: int = 20,
    seed: int = 0,
) -> Callable[[], Mapping[str, float]] | None:
    """What early stopping asks: a function that examines the embedder as it is now.

    "score": accuracy on fixed draws, K = 5 (fewer where a class is smaller), support of training
    and validation classes, queries of the validation classes; "auc" and "pair_accuracy": pair
    verification on the validation classes, at the threshold that is best on pairs of the training
    classes, and "train_pair_accuracy" on these; the "spread" of the embeddings. All from at most
    `pool` images a class, so that it stays cheap. An embedder that centres does so by the training
    classes' images of this pool, at every call. Test classes are not read; a frozen backbone embeds
    once. None without validation classes.
    """
    drawn = validation_draws(dataset, split, grouping, pool, draws, seed)
    return None if drawn is None else validating(embedder, dataset, head, metric, drawn)


def validating(
    embedder: Embedder, dataset: Dataset, head: Head, metric: Metric, drawn: ValidationDraws
) -> Callable[[], Mapping[str, float]]:
    """`validation` on draws that are made already."""
    images = needed([*drawn.tasks, *(drawn.pairs or ())])
    once = is_frozen(embedder.backbone)
    kept: list[NDArray[np.float32]] = []
    text = embedder.of_names(dataset.classes) if head.names else None

    def embedded() -> NDArray[np.float32]:
        engine: Name = "auto" if once else "mlx"  # a session is for weights that stay
        recentre(embedder, dataset, drawn.training, engine=engine)
        return embed(embedder, dataset, images, engine=engine)

    def examine() -> dict[str, float]:
        if not (once and kept):
            kept[:] = [embedded()]
        apart, embeddings = spread(kept[0]), settled(kept[0])
        evaluation = evaluate(embeddings, drawn.tasks, head, metric, dataset.classes, text=text)
        figures = {"score": evaluation.accuracy, "spread": apart}
        if drawn.pairs is not None:
            verified = verify(embeddings, *drawn.pairs, metric)
            figures["auc"] = verified.auc
            figures["pair_accuracy"] = verified.accuracy
            figures["train_pair_accuracy"] = verified.tuning_accuracy
        return figures

    return examine

"""Episodes answered by embedders that are adapted to each one's own support; the gain and cost."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ..compute.modules import evaluating
from ..core.draws import Episode, EpisodeBlock, Ints
from ..core.figures import AdapterGain
from ..core.interfaces import Adapter, Dataset, Head, Metric
from ..data.batches import gather
from ..parts.embedder import Embedder
from .embedding import embed_task
from .evaluation import Evaluation, predict, tally
from .statistics import paired_test


def adapted_embeddings(
    adapter: Adapter[Embedder],
    embedder: Embedder,
    dataset: Dataset,
    episode: Episode,
    metric: Metric,
    seed: int = 0,
) -> tuple[NDArray[np.float32], Ints | None, Head | None, float]:
    """Embeddings (n, d) of an episode's images after adapting to its support, and the seconds.

    Between them the crops that the support brings (`embed_task`), and the head that the adapter
    fitted, or None.

    The adapter gets the support images and their labels, nothing else; the embedder stays as it
    is. Rows of other images are NaN. The seconds are those of adapting alone.
    """
    support = gather(dataset, episode.items[episode.support])
    began = time.perf_counter()
    with evaluating(metric.fn):
        adapted = adapter(embedder, support, episode.support_labels, metric, seed)
    mx.eval(adapted.backbone.parameters())
    seconds = time.perf_counter() - began
    task = [EpisodeBlock.of([episode])]
    rows, crops = embed_task(adapted, dataset, episode.items, task, engine="mlx")
    return rows, crops, adapted.fitted, seconds


def evaluate_adapted(
    adapter: Adapter[Embedder],
    embedder: Embedder,
    dataset: Dataset,
    tasks: Iterable[EpisodeBlock],
    head: Head,
    metric: Metric,
    names: Sequence[str] | None = None,
    seed: int = 0,
    memory: int = 256,
    progress: Callable[[int], object] | None = None,
    once: bool = False,
    by_query: bool = False,
) -> tuple[Evaluation, float]:
    """`evaluate`, each episode with a copy of the embedder adapted to its support.

    Where the adapter fits a head, that answers.

    Returns the mean seconds of an adaptation too; embedding the queries is not counted.
    `progress(done)` is called after each episode.
    """
    seconds: list[float] = []

    def answered() -> Iterator[tuple[EpisodeBlock, Ints]]:
        for block in tasks:
            for i in range(len(block)):
                episode = block.episode(i)
                rows, crops, fitted, took = adapted_embeddings(
                    adapter, embedder, dataset, episode, metric, seed
                )
                seconds.append(took)
                if progress is not None:
                    progress(len(seconds))
                answers = predict(rows, episode, fitted or head, metric, memory, crops=crops)
                yield EpisodeBlock.of([episode]), answers[None]

    evaluation = tally(answered(), dataset.classes, names, once, by_query)
    return evaluation, float(np.mean(seconds))


def gain(frozen: Evaluation, adapted: Evaluation, seconds: float) -> AdapterGain:
    """What an adapter adds to its row of results: paired on the same episodes."""
    test = paired_test(frozen.per_episode, adapted.per_episode)
    return AdapterGain(frozen.accuracy, frozen.ci95, test.difference, test.ci95, test.p, seconds)

"""How good embeddings are: many episodes with intervals, pair verification, speed."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from .embedding import Embedder, embed, evaluating
from .errors import ConfigError, DataError
from .interfaces import Dataset, Head, Metric, Sampler
from .records import (
    ClassSplit,
    Episode,
    Evaluation,
    EvaluationOptions,
    Grouping,
    Ints,
    Pairs,
    Verification,
)
from .samplers import EpisodesOptions, PairsOptions, all_way, episodes, pairs
from .seeding import generator

Floats = NDArray[np.float64]

# Numbers in the largest temporary of one block of queries: 64 MB of float32.
_BLOCK = 1 << 24


def t_interval(values: Floats) -> tuple[float, float]:
    """95 % Student t interval of the mean of independent values in [0, 1], cut to [0, 1]."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return 0.0, 1.0
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5
    return max(0.0, mean - half), min(1.0, mean + half)


def bootstrap_interval(values: Floats, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; the same values give the same interval.

    (0, 1) for fewer than two values, which say nothing of their spread.
    """
    if len(values) < 2:
        return 0.0, 1.0
    rng = generator(0, "bootstrap")
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def predict(embeddings: NDArray[np.float32], episode: Episode, head: Head, metric: Metric) -> Ints:
    """Labels (q,) in 0..n_way-1 of an episode's queries; the first of equal scores wins.

    Queries are answered in blocks, so memory does not grow with their number. Raises ConfigError
    for an image that was not embedded.
    """
    support = mx.array(embeddings[episode.items[episode.support]])
    labels = mx.array(episode.support_labels)
    query = embeddings[episode.items[episode.query]]
    if np.isnan(embeddings[episode.items]).any():
        raise ConfigError("an episode uses images that were not embedded (their rows are NaN)")
    wide = episode.n_way if metric.matrix is not None else max(episode.n_way, query.shape[1])
    block = max(1, _BLOCK // (len(episode.support) * wide))
    answers = [
        np.array(
            head.scores(
                support, labels, mx.array(query[i : i + block]), metric, episode.n_way
            ).argmax(axis=-1)
        )
        for i in range(0, len(query), block)
    ]
    return np.concatenate([np.empty(0, np.int64), *answers]).astype(np.int64)


def _class_ids(task: Episode, classes: Sequence[str]) -> Ints:
    """The dataset's ids of an episode's classes, which are names or ids."""
    position: dict[Any, int] = {name: i for i, name in enumerate(classes)}
    position |= {i: i for i in range(len(classes))}
    strangers = [c for c in task.classes if c not in position]
    if strangers:
        raise DataError(f"an episode has class {strangers[0]!r}, which the dataset does not have")
    return np.array([position[c] for c in task.classes], dtype=np.int64)


def evaluate(
    embeddings: NDArray[np.float32],
    tasks: Iterable[Episode],
    head: Head,
    metric: Metric,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Accuracy of `head` on episodes over embedded images (n, d), any iterable of `Episode`.

    An episode's accuracy is the mean over its query classes. `classes` are the dataset's; an
    episode's classes are names among them or ids. `names` of the images, where given, are part of
    the digest. Raises ConfigError for no episode or one without queries, DataError for a class that
    the dataset does not have.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    digest = hashlib.sha256("\0".join(classes).encode())
    accuracies: list[float] = []
    for task in tasks:
        if not len(task.query):
            raise ConfigError("an episode without queries has no accuracy")
        ids = _class_ids(task, classes)
        answers = predict(embeddings, task, head, metric)
        _, of_class = np.unique(task.query_labels, return_inverse=True)
        right = np.bincount(of_class, answers == task.query_labels) / np.bincount(of_class)
        accuracies.append(float(right.mean()))
        np.add.at(confusion, (ids[task.query_labels], ids[answers]), 1)
        digest.update(np.array([len(task.support), len(task.query)]).tobytes())
        for part in (task.support, task.query):
            items = task.items[part]
            digest.update(
                items.tobytes() if names is None else "\0".join(names[i] for i in items).encode()
            )
        digest.update(ids[task.support_labels].tobytes())
        digest.update(ids[task.query_labels].tobytes())
    if not accuracies:
        raise ConfigError("nothing to evaluate: no episode was given")
    per_episode = np.array(accuracies)
    asked = np.flatnonzero(confusion.sum(axis=1)).tolist()
    per_class = confusion[asked, asked] / confusion[asked].sum(axis=1)
    return Evaluation(
        accuracy=float(per_episode.mean()),
        ci95=t_interval(per_episode),
        ci95_classes=bootstrap_interval(per_class),
        per_episode=per_episode,
        per_class={classes[i]: float(a) for i, a in zip(asked, per_class, strict=True)},
        confusion=confusion,
        classes=tuple(classes),
        digest=digest.hexdigest(),
    )


# -------------------------------------------------------------------- the run's episodes


def class_ids(dataset: Dataset, names: Iterable[str]) -> list[int]:
    """Ids of the named classes."""
    return [dataset.classes.index(name) for name in names]


def only(labels: Ints, ids: Iterable[int]) -> Ints:
    """Labels with every class but these at -1, which no sampler draws."""
    return np.where(np.isin(labels, list(ids)), labels, -1)


def _groups(dataset: Dataset, grouping: Grouping) -> Ints | None:
    return dataset.groups if grouping == "separate" else None


def k_shot_episodes(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> dict[int, list[Episode]]:
    """The episodes on the test classes for every k_shot, drawn with the evaluation's own seed.

    n_way 0: support of all classes of the split, queries all other images of the test classes,
    `repeats` times. Otherwise `episodes` standard episodes. Raises DataError where a class has too
    few images.
    """
    test = class_ids(dataset, split.test)
    groups = _groups(dataset, options.groups)

    def sampler(k: int) -> Sampler[Episode]:
        if options.n_way == 0:
            every = class_ids(dataset, (*split.train, *split.val, *split.test))
            return all_way(only(dataset.labels, every), groups, test, k)
        spec = EpisodesOptions(options.n_way, k, options.n_query, options.groups)
        return episodes(spec, only(dataset.labels, test), groups)

    count = options.repeats if options.n_way == 0 else options.episodes
    samplers = {k: sampler(k) for k in options.k_shot}
    return {k: [s.draw(options.seed, i) for i in range(count)] for k, s in samplers.items()}


def verification_pairs(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> tuple[Pairs, Pairs] | None:
    """Pairs to choose a threshold on (validation classes, else training) and pairs to test.

    None where no pairs are asked for or there is one test class only.
    """
    if options.pairs == 0 or len(split.test) < 2:
        return None
    chosen_on = split.val if len(split.val) >= 2 else split.train
    spec = PairsOptions(options.pairs, groups=options.groups)
    tuning, test = (
        pairs(spec, only(dataset.labels, class_ids(dataset, names)), dataset.groups).draw(
            options.seed, 0
        )
        for names in (chosen_on, split.test)
    )
    return tuning, test


def needed(tasks: Iterable[Episode | Pairs]) -> Ints:
    """Every image that some draw uses, once."""
    return np.unique(np.concatenate([task.items for task in tasks]))


# -------------------------------------------------------------------- pair verification


def pair_distances(
    embeddings: NDArray[np.float32], draw: Pairs, metric: Metric, block: int = 4096
) -> NDArray[np.float32]:
    """Distances (p,) of a draw's pairs."""
    left, right = draw.items[draw.left], draw.items[draw.right]
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
    threshold = best_threshold(pair_distances(embeddings, tuning, metric), tuning.same)
    distances = pair_distances(embeddings, test, metric)

    def accuracy(at: float) -> float:
        return float(np.mean((distances < at) == test.same))

    return Verification(
        auc=roc_auc(distances, test.same),
        threshold=threshold,
        accuracy=accuracy(threshold),
        margin=margin,
        accuracy_at_margin=None if margin is None else accuracy(margin),
        pairs=len(test.same),
    )


# --------------------------------------------------------------------------- validation


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
    and validation classes, queries of the validation classes; "auc": pair verification on the
    validation classes. Both from at most `pool` images a class, so that it stays cheap. Test
    classes are not read. None without validation classes.
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
    groups = _groups(dataset, grouping)
    sampler = all_way(labels, groups, asked, max(1, min(5, smallest // 2)))
    tasks = [sampler.draw(seed, i) for i in range(draws)]
    verification = None
    if len(asked) >= 2:
        verification = pairs(PairsOptions(1000, groups=grouping), only(labels, asked), groups)
    chosen_pairs = None if verification is None else verification.draw(seed, 0)
    images = needed([*tasks, *([] if chosen_pairs is None else [chosen_pairs])])

    def examine() -> dict[str, float]:
        embeddings = embed(embedder, dataset, images)
        figures = {"score": evaluate(embeddings, tasks, head, metric, dataset.classes).accuracy}
        if chosen_pairs is not None:
            distances = pair_distances(embeddings, chosen_pairs, metric)
            figures["auc"] = roc_auc(distances, chosen_pairs.same)
        return figures

    return examine


# -------------------------------------------------------------------------------- speed


def embedding_speed(
    embedder: Embedder, shape: tuple[int, int, int], batch: int = 128, seconds: float = 1.0
) -> dict[str, float]:
    """Embedding rate in images/s, in batches and one by one; images decoded beforehand.

    The median of as many rounds as fit in `seconds` each, at least three.
    """
    rng = generator(0, "speed")
    with evaluating(embedder.backbone):
        figures: dict[str, float] = {}
        for name, size in (("batch", batch), ("single", 1)):
            images = mx.array(rng.random((size, *shape), dtype=np.float32))
            mx.eval(embedder(images))  # the first call sets up
            times: list[float] = []
            while len(times) < 3 or sum(times) < seconds:
                began = time.perf_counter()
                mx.eval(embedder(images))
                times.append(time.perf_counter() - began)
            figures[f"{name}_images_per_second"] = size / float(np.median(times))
        figures["single_latency_ms"] = 1000 / figures["single_images_per_second"]
    return {**figures, "batch": float(batch)}

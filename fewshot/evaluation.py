"""How good embeddings are: many episodes with intervals, pair verification, speed."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from .compute import runtime
from .compute.modules import evaluating
from .compute.streams import on_stream
from .core.components import Evaluation, EvaluationOptions, Setting
from .core.draws import Episode, EpisodeBlock, Grouping, Ints, Pairs, in_blocks
from .core.errors import ConfigError, DataError
from .core.interfaces import Dataset, Head, Metric, Sampler
from .core.seeding import generator
from .data.split import ClassSplit, class_ids, only
from .embedding import embed
from .parts.embedder import Embedder
from .parts.samplers import EpisodesOptions, PairsOptions, all_way, episodes, pairs
from .verification import verify

Floats = NDArray[np.float64]

# How many arrays of the largest size are alive at once, in the built-in heads and metrics.
_ALIVE = 4

# Numbers in the largest array of episodes that are answered together, where several fit: 2 MB stay
# in a core's cache, which makes them twice as fast as 10 MB.
_CACHED = 1 << 19


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


def unembedded(embeddings: NDArray[np.float32], items: Ints | None = None) -> NDArray[np.bool_]:
    """Which rows of a table of embeddings, of these images or of all, hold a NaN."""
    n, step = len(embeddings if items is None else items), 4096
    parts = [slice(i, i + step) for i in range(0, n, step)]
    found = [np.isnan(embeddings[p if items is None else items[p]]).any(axis=1) for p in parts]
    return np.concatenate([np.empty(0, bool), *found])


def _require_embedded(missing: NDArray[np.bool_]) -> None:
    if missing.any():
        raise ConfigError("an episode uses images that were not embedded (their rows are NaN)")


def _gather(rows: Any, indices: Ints) -> mx.array:
    """Embeddings (…, d) of images (…)."""
    return rows[mx.array(indices)] if isinstance(rows, mx.array) else mx.array(rows[indices])


def _waiting() -> int:
    """How many parts may be under way at once: more would push each other out of the caches."""
    return max(2, runtime.streams())


def _numbers(memory: int) -> int:
    """Float32 numbers in the largest array, where all of them together take `memory` MB."""
    return max(1, memory * (1 << 20) // 4 // _ALIVE // _waiting())


def _width(metric: Metric, s: int, d: int, n_way: int) -> int:
    """Numbers that a head holds at once for one query: distances to all support or to n_way."""
    return max(d, metric.width(s, d), metric.width(n_way, d))


def _ask(
    rows: Any, block: EpisodeBlock, part: slice, head: Head, metric: Metric, numbers: int
) -> mx.array:
    """Labels (e, q) of a part's queries; where one episode is too large, its queries in parts."""
    query, n_way = block.query[part], block.n_way
    e, q = query.shape
    support = _gather(rows, block.support[part])
    shared = block.support_labels.ndim == 1
    labels = mx.array(block.support_labels if shared else block.support_labels[part])
    labels = mx.broadcast_to(labels, support.shape[:-1])
    s, d = support.shape[1:]
    at_once = max(1, numbers // _width(metric, s, d, n_way)) if e == 1 else q
    if at_once < q and head.condense is not None:
        support, labels = head.condense(support, labels, n_way)
        at_once = max(1, numbers // _width(metric, support.shape[1], d, n_way))
    answers = [mx.zeros((e, 0), mx.uint32)]
    for i in range(0, q, at_once):
        asked = _gather(rows, query[:, i : i + at_once])
        answers.append(head.scores(support, labels, asked, metric, n_way).argmax(axis=-1))
        if at_once < q:
            mx.eval(answers)  # or the parts would be in memory together
    return mx.concatenate(answers, axis=1)


def _parts(block: EpisodeBlock, metric: Metric, d: int, numbers: int) -> Iterator[slice]:
    """As many episodes at a time as fit, at least one."""
    (e, q), s = block.query.shape, block.support.shape[1]
    largest = max(1, s * d, q * _width(metric, s, d, block.n_way))
    at_once = max(1, min(numbers, _CACHED) // largest)
    return (slice(i, i + at_once) for i in range(0, e, at_once))


def predict(
    embeddings: NDArray[np.float32],
    episode: Episode,
    head: Head,
    metric: Metric,
    memory: int = 256,
) -> Ints:
    """Labels (q,) in 0..n_way-1 of an episode's queries; the first of equal scores wins.

    Queries are answered in parts, so that temporary arrays take about `memory` MB whatever their
    number. Raises ConfigError for an image that was not embedded.
    """
    block = EpisodeBlock.of([episode])
    _require_embedded(unembedded(embeddings, episode.items))
    with evaluating(head.scores, metric.fn):
        answers = _ask(embeddings, block, slice(None), head, metric, _numbers(memory))
    return np.array(answers[0]).astype(np.int64)


def _class_ids(block: EpisodeBlock, classes: Sequence[str]) -> Ints:
    """The dataset's ids (e, n_way) of a block's classes, which are names or ids."""
    ids = block.classes
    if ids.dtype.kind in "iu":
        strangers = ids[(ids < 0) | (ids >= len(classes))].tolist()
    else:
        position: dict[Any, int] = {name: i for i, name in enumerate(classes)}
        position |= {i: i for i in range(len(classes))}
        strangers = [c for c in ids.flat if c not in position]
        ids = np.array([[position.get(c, -1) for c in row] for row in ids], dtype=np.int64)
    if strangers:
        raise DataError(f"an episode has class {strangers[0]!r}, which the dataset does not have")
    return ids


def _of_labels(ids: Ints, labels: Ints) -> Ints:
    """Class ids (e, n) of labels (e, n), or (n,) that all episodes share."""
    return ids[:, labels] if labels.ndim == 1 else np.take_along_axis(ids, labels, axis=1)


def _image_keys(names: Sequence[str]) -> Ints:
    """64 bits (n,) of a hash of each name."""
    hashes = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(hashes), "<i8").astype(np.int64)


def evaluate(
    embeddings: NDArray[np.float32],
    tasks: Iterable[Episode | EpisodeBlock],
    head: Head,
    metric: Metric,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    memory: int = 256,
    missing: NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Accuracy of `head` on episodes over embedded images (n, d).

    `tasks`: any iterable of `Episode` or of `EpisodeBlock` (`sampler.blocks(seed, count)` is the
    fastest); how episodes are put together changes no figure. An episode's accuracy is the mean
    over its query classes. `classes` are the dataset's; an episode's classes are names among them
    or ids. `names` of the images, where given, are part of the digest. `memory`: MB that temporary
    arrays take, about. `missing`: `unembedded(embeddings)`, where it is known already. Raises
    ConfigError for no episode, one without queries or an image that was not embedded, DataError for
    a class that the dataset does not have.
    """
    if missing is None:
        missing = unembedded(embeddings)
    with evaluating(head.scores, metric.fn):
        return tally(_answered(embeddings, tasks, head, metric, missing, memory), classes, names)


def tally(
    answered: Iterable[tuple[EpisodeBlock, Ints]],
    classes: Sequence[str],
    names: Sequence[str] | None = None,
) -> Evaluation:
    """The evaluation that blocks of episodes and the answers (e, q) to their queries come to.

    `classes` and `names` as in `evaluate`, whose ConfigError and DataError it raises.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    digest = hashlib.sha256("\0".join(classes).encode())
    keys = None if names is None else _image_keys(names)
    accuracies: list[Floats] = []

    def count(block: EpisodeBlock, answers: Ints) -> None:
        e, n_way = block.classes.shape
        ids = _class_ids(block, classes)
        query_labels = np.broadcast_to(block.query_labels, block.query.shape)
        of_class = query_labels + n_way * np.arange(e)[:, None]
        asked, right = (
            np.bincount(found.ravel(), minlength=e * n_way).reshape(e, n_way)
            for found in (of_class, of_class[answers == query_labels])
        )
        accuracies.append((right / np.maximum(asked, 1)).sum(axis=1) / (asked > 0).sum(axis=1))
        truth = _of_labels(ids, block.query_labels)
        cells = truth * len(classes) + np.take_along_axis(ids, answers, axis=1)
        np.add.at(confusion.reshape(-1), cells.ravel(), 1)
        shape = np.broadcast_to([block.support.shape[1], block.query.shape[1]], (e, 2))
        items = [block.support, block.query]
        items = items if keys is None else [keys[part] for part in items]
        known = _of_labels(ids, block.support_labels)
        rows = np.concatenate([shape, *items, known, truth], axis=1)
        digest.update(rows.astype("<i8", copy=False).tobytes())

    for block, answers in answered:
        count(block, answers)
    if not accuracies:
        raise ConfigError("nothing to evaluate: no episode was given")
    per_episode = np.concatenate(accuracies)
    seen = np.flatnonzero(confusion.sum(axis=1)).tolist()
    per_class = confusion[seen, seen] / confusion[seen].sum(axis=1)
    return Evaluation(
        accuracy=float(per_episode.mean()),
        ci95=t_interval(per_episode),
        ci95_classes=bootstrap_interval(per_class),
        per_episode=per_episode,
        per_class={classes[i]: float(a) for i, a in zip(seen, per_class, strict=True)},
        confusion=confusion,
        classes=tuple(classes),
        digest=digest.hexdigest(),
    )


def _answered(
    embeddings: NDArray[np.float32],
    tasks: Iterable[Episode | EpisodeBlock],
    head: Head,
    metric: Metric,
    missing: NDArray[np.bool_],
    memory: int,
) -> Iterator[tuple[EpisodeBlock, Ints]]:
    """Blocks of the episodes and their answers (e, q), in order.

    MLX answers blocks, a part on each stream in turn, while NumPy draws the next and counts the
    last.
    """
    numbers, d = _numbers(memory), embeddings.shape[1]
    # Gathering in MLX is three times faster, but needs a copy.
    fits = embeddings.size <= numbers * _waiting()
    rows: Any = mx.array(embeddings) if fits else embeddings
    under_way: deque[mx.array] = deque()
    asked: deque[tuple[EpisodeBlock, list[mx.array]]] = deque()
    for block in in_blocks(tasks):
        if not block.query.shape[1]:
            raise ConfigError("an episode without queries has no accuracy")
        for items in (block.support, block.query):
            _require_embedded(missing[items])
        asked.append((block, []))
        for part in _parts(block, metric, d, numbers):
            if len(under_way) == _waiting():
                mx.eval(under_way.popleft())
            with on_stream(len(asked[-1][1])):
                answers = _ask(rows, block, part, head, metric, numbers)
            mx.async_eval(answers)
            under_way.append(answers)
            asked[-1][1].append(answers)
        if len(asked) > 1:
            yield _collected(*asked.popleft())
    while asked:
        yield _collected(*asked.popleft())


def _collected(block: EpisodeBlock, answers: list[mx.array]) -> tuple[EpisodeBlock, Ints]:
    return block, np.concatenate([np.array(part) for part in answers]).astype(np.int64)


# -------------------------------------------------------------------- the run's episodes


def k_shot_episodes(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> dict[Setting, list[EpisodeBlock]]:
    """The episodes on the test classes, drawn with the evaluation's own seed.

    For every n_way, grouping ("none" where the dataset knows no groups) and k_shot of the options.
    n_way 0: support of all classes of the split, queries all other images of the test classes,
    `repeats` times. Otherwise `episodes` standard episodes. Raises DataError where a class has too
    few images.
    """
    test = class_ids(dataset, split.test)
    every = class_ids(dataset, (*split.train, *split.val, *split.test))

    def sampler(setting: Setting) -> Sampler[Episode]:
        groups = dataset.groups if setting.groups == "separate" else None
        if setting.n_way == 0:
            return all_way(only(dataset.labels, every), groups, test, setting.k_shot)
        spec = EpisodesOptions(setting.n_way, setting.k_shot, options.n_query)
        return episodes(spec, only(dataset.labels, test), groups)

    samplers = {
        setting: sampler(setting)
        for n_way in options.n_way
        for groups in (("none",) if dataset.groups is None else options.groups)
        for setting in (Setting(k, n_way, groups) for k in options.k_shot)
    }
    return {
        setting: list(
            s.blocks(options.seed, options.episodes if setting.n_way else options.repeats)
        )
        for setting, s in samplers.items()
    }


def needed(tasks: Iterable[Episode | EpisodeBlock | Pairs]) -> Ints:
    """Every image that some draw uses, once."""
    parts = [
        np.unique(items)
        for task in tasks
        for items in (
            (task.support, task.query) if isinstance(task, EpisodeBlock) else (task.items,)
        )
    ]
    return np.unique(np.concatenate(parts))


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


# -------------------------------------------------------------------------------- speed


def median_time(function: Callable[[], object], seconds: float) -> float:
    """Seconds of a call: the median of as many as fit in `seconds`, at least three."""
    function()  # the first call sets up
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def embedding_speed(
    embedder: Embedder, shape: tuple[int, int, int], batch: int = 128, seconds: float = 1.0
) -> dict[str, float]:
    """Embedding rate in images/s, in batches and one by one; images decoded beforehand.

    The median of as many rounds as fit in `seconds` each, at least three.
    """
    rng = generator(0, "speed")

    def embed_all(images: mx.array) -> None:
        mx.eval(embedder(images))

    with evaluating(embedder.backbone):
        figures: dict[str, float] = {}
        for name, size in (("batch", batch), ("single", 1)):
            images = mx.array(rng.random((size, *shape), dtype=np.float32))
            took = median_time(partial(embed_all, images), seconds)
            figures[f"{name}_images_per_second"] = size / took
        figures["single_latency_ms"] = 1000 / figures["single_images_per_second"]
    return {**figures, "batch": float(batch)}

"""How good embeddings are: many episodes with intervals, pair verification, speed."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import frozen
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from ..compute import runtime
from ..compute.modules import evaluating
from ..compute.streams import each
from ..core.draws import Episode, EpisodeBlock, Ints, in_blocks
from ..core.errors import ConfigError, DataError
from ..core.interfaces import Head, Metric
from .statistics import Floats, bootstrap_interval, t_interval, wilson_interval


@frozen(eq=False)
class Evaluation:
    """What one embedding achieves on a list of episodes; accuracies are shares, 0 to 1.

    `accuracy`: the mean of `per_episode`, each the mean over the episode's query classes.

    `per_episode` (e,); `ci95`: Student t over episodes; `ci95_classes`: bootstrap over the query
    classes, which reflects how few they are. `confusion` (c, c): queries of class row answered
    as class column. `digest` names the episodes: equal digests, equal episodes. Where every image
    is asked once, each is an episode: `per_episode` (q,) is 0 or 1, `ci95` Wilson's over images.
    `balance`: how evenly the queries of an episode are spread over its classes, the mean entropy
    of their shares over log n_way: 1 where there are as many of each, 0 where all are of one.
    """

    accuracy: float
    ci95: tuple[float, float]
    ci95_classes: tuple[float, float]
    per_episode: NDArray[np.float64]
    per_class: Mapping[str, float]
    confusion: Ints
    classes: tuple[str, ...]
    digest: str
    balance: float = 1.0


Rows = NDArray[np.float32]

# How many arrays of the largest size are alive at once, in the built-in heads and metrics.
_ALIVE = 4

# Numbers in the largest array of episodes that are answered together, where several fit: 2 MB stay
# in a core's cache, which makes them twice as fast as 10 MB. Heads that ask queries together take
# hundreds of small steps, each of which costs the same for a few episodes more, as do the layers of
# learned heads.
_CACHED = {"alone": 1 << 19, "together": 1 << 22}


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


def _under_way() -> int:
    """How many parts are under way at once: one on each stream, and the next ones."""
    return 2 * runtime.streams()


def _numbers(memory: int) -> int:
    """Float32 numbers in the largest array, where all of them together take `memory` MB."""
    return max(1, memory * (1 << 20) // 4 // _ALIVE // _under_way())


def _with_text(embeddings: Rows, text: Rows | None) -> Rows:
    return embeddings if text is None else np.concatenate([embeddings, text])


def _as_asked(
    block: EpisodeBlock, head: Head, names: Ints | None, crops: Ints | None
) -> EpisodeBlock:
    """A block with its support's `crops`, where there are any, and the rows (e, n_way) of its
    classes' names, where the head is asked with them.
    """
    if crops is not None:
        block = block.with_crops(crops)
    if block.support.shape[1] and not head.names:
        return block
    if names is None:
        raise ConfigError("an episode is to be answered by its classes' names: give `text`")
    return block.with_names(names)


def _width(head: Head, metric: Metric, s: int, d: int, n_way: int) -> int:
    """Numbers that a head holds at once for one query: distances to all support or to n_way.

    A learned one, as many as an embedding has for each class.
    """
    compared = 0 if head.module is None else n_way * d
    return max(d, compared, metric.width(s, d), metric.width(n_way, d))


def _rows(state: Any) -> int:
    """How many rows, at most, a fitted head compares a query with."""
    leaves: Any = tree_flatten(state)
    return max(array.shape[-2] for _, array in leaves if array.ndim > 1)


def _ask(
    rows: Any, block: EpisodeBlock, part: slice, head: Head, metric: Metric, numbers: int
) -> mx.array:
    """Labels (e, q) of a part's queries.

    Where one episode is too large, its queries in parts, unless the head asks them together.
    """
    query, n_way = block.query[part], block.n_way
    e, q = query.shape
    support = _gather(rows, block.support[part])
    shared = block.support_labels.ndim == 1
    labels = mx.array(block.support_labels if shared else block.support_labels[part])
    labels = mx.broadcast_to(labels, support.shape[:-1])
    state, d = head.fit(support, labels, metric, n_way), support.shape[2]
    at_once = q
    if e == 1 and head.queries == "alone":
        at_once = max(1, numbers // _width(head, metric, _rows(state), d, n_way))
    answers = [mx.zeros((e, 0), mx.uint32)]
    for i in range(0, q, at_once):
        asked = _gather(rows, query[:, i : i + at_once])
        answers.append(head.scores(state, asked, metric).argmax(axis=-1))
        if at_once < q:
            mx.eval(answers)  # or the parts would be in memory together
    return mx.concatenate(answers, axis=1)


def _parts(
    block: EpisodeBlock, head: Head, metric: Metric, d: int, numbers: int
) -> Iterator[slice]:
    """As many episodes at a time as fit, at least one, and as many parts on every stream."""
    (e, q), s = block.query.shape, block.support.shape[1]
    largest = max(1, s * d, q * _width(head, metric, s, d, block.n_way))
    cached = _CACHED["alone" if head.queries == "alone" and head.module is None else "together"]
    most = max(1, min(numbers, cached) // largest)
    rounds = -(-e // (most * runtime.streams()))
    at_once = -(-e // (rounds * runtime.streams()))
    return (slice(i, i + at_once) for i in range(0, e, at_once))


def predict(
    embeddings: NDArray[np.float32],
    episode: Episode,
    head: Head,
    metric: Metric,
    memory: int = 256,
    text: Rows | None = None,
    crops: Ints | None = None,
) -> Ints:
    """Labels (q,) in 0..n_way-1 of an episode's queries; the first of equal scores wins.

    Queries are answered in parts, so that temporary arrays take about `memory` MB whatever their
    number; a head that looks at queries together is asked about all of them at once. `text`
    (n_way, d): embeddings of the classes' names, for a head that reads them. `crops` as in
    `evaluate`. Raises ConfigError for an image that was not embedded.
    """
    block = EpisodeBlock.of([episode])
    _require_embedded(unembedded(embeddings, episode.items))
    names = None if text is None else len(embeddings) + np.arange(block.n_way)[None]
    asked = _as_asked(block, head, names, crops)
    rows = _with_text(embeddings, text)
    with evaluating(head.module, metric.fn):
        answers = _ask(rows, asked, slice(None), head, metric, _numbers(memory))
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
    once: bool = False,
    text: Rows | None = None,
    by_query: bool = False,
    crops: Ints | None = None,
) -> Evaluation:
    """Accuracy of `head` on episodes over embedded images (n, d).

    `tasks`: any iterable of `Episode` or of `EpisodeBlock` (`sampler.blocks(seed, count)` is the
    fastest); how episodes are put together changes no figure. An episode's accuracy is the mean
    over its query classes. `classes` are the dataset's; an episode's classes are names among them
    or ids. `names` of the images, where given, are part of the digest. `memory`: MB that temporary
    arrays take, about, but for a head that looks at all queries of an episode together. `missing`:
    `unembedded(embeddings)`, where it is known already. `once`: the episodes ask every image once
    (`leave_one_out`), and each image counts alike. `text` (c, d): embeddings of the classes' names,
    which a head that reads names has ahead of the support, and any head where an episode has no
    support. `by_query`: an episode's accuracy is the share of its queries that are right, as where
    classes have unlike numbers of them on purpose. `crops` (n, c): the rows of embeddings that
    support image i brings with it, as images of its class (`embed_task`). Raises ConfigError for no
    episode, one without queries, one without support or names, or an image that was not embedded,
    DataError for a class that the dataset does not have.
    """
    if missing is None:
        missing = unembedded(embeddings)
    with evaluating(head.module, metric.fn):
        answered = _answered(embeddings, tasks, head, metric, missing, memory, classes, text, crops)
        return tally(answered, classes, names, once, by_query)


def tally(
    answered: Iterable[tuple[EpisodeBlock, Ints]],
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    once: bool = False,
    by_query: bool = False,
) -> Evaluation:
    """The evaluation that blocks of episodes and the answers (e, q) to their queries come to.

    `classes`, `names`, `once` and `by_query` as in `evaluate`; its ConfigError and DataError.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    digest = hashlib.sha256("\0".join(classes).encode())
    keys = None if names is None else _image_keys(names)
    accuracies: list[Floats] = []
    balances: list[Floats] = []

    def count(block: EpisodeBlock, answers: Ints) -> None:
        e, n_way = block.classes.shape
        ids = _class_ids(block, classes)
        query_labels = np.broadcast_to(block.query_labels, block.query.shape)
        of_class = query_labels + n_way * np.arange(e)[:, None]
        correct = answers == query_labels
        asked, right = (
            np.bincount(found.ravel(), minlength=e * n_way).reshape(e, n_way)
            for found in (of_class, of_class[correct])
        )
        of_episodes = (right / np.maximum(asked, 1)).sum(axis=1) / (asked > 0).sum(axis=1)
        if by_query:
            of_episodes = correct.mean(axis=1)
        accuracies.append(correct.ravel().astype(float) if once else of_episodes)
        balances.append(_evenness(asked))
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
        ci95=(
            wilson_interval(round(per_episode.sum()), len(per_episode))
            if once
            else t_interval(per_episode)
        ),
        ci95_classes=bootstrap_interval(per_class),
        per_episode=per_episode,
        per_class={classes[i]: float(a) for i, a in zip(seen, per_class, strict=True)},
        confusion=confusion,
        classes=tuple(classes),
        digest=digest.hexdigest(),
        balance=float(np.concatenate(balances).mean()),
    )


def _evenness(counts: Ints) -> Floats:
    """Entropy (e,) of the shares that counts (e, n) are, over log n; 1 where n is 1."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    return entropy / np.log(counts.shape[1]) if counts.shape[1] > 1 else np.ones(len(counts))


def _answered(
    embeddings: NDArray[np.float32],
    tasks: Iterable[Episode | EpisodeBlock],
    head: Head,
    metric: Metric,
    missing: NDArray[np.bool_],
    memory: int,
    classes: Sequence[str],
    text: Rows | None,
    crops: Ints | None,
) -> Iterator[tuple[EpisodeBlock, Ints]]:
    """Blocks of the episodes and their answers (e, q), in order.

    MLX answers blocks, a part on each stream, while NumPy draws the next and counts the last. Parts
    of all streams are handed over together: MLX lets few steps wait, and takes steps of one call in
    turns, but of two calls one after the other, so that a single core would be busy.
    """
    numbers, d = _numbers(memory), embeddings.shape[1]
    rows: Any = _with_text(embeddings, text)
    # Gathering in MLX is three times faster, but needs a copy.
    if rows.size <= numbers * _under_way():
        rows = mx.array(rows)
    under_way: list[mx.array] = []
    asked: deque[tuple[EpisodeBlock, list[mx.array]]] = deque()
    for block in in_blocks(tasks):
        if not block.query.shape[1]:
            raise ConfigError("an episode without queries has no accuracy")
        for items in (block.support, block.query):
            _require_embedded(missing[items])
        asked.append((block, []))
        names = None if text is None else len(embeddings) + _class_ids(block, classes)
        whole = _as_asked(block, head, names, crops)
        parts = _parts(whole, head, metric, d, numbers)
        ask = partial(_ask, rows, whole, head=head, metric=metric, numbers=numbers)
        while together := list(islice(parts, runtime.streams())):
            answers = each(ask, together)
            mx.async_eval(answers)
            mx.eval(under_way)
            under_way = answers
            asked[-1][1].extend(answers)
        if len(asked) > 1:
            yield _collected(*asked.popleft())
    while asked:
        yield _collected(*asked.popleft())


def _collected(block: EpisodeBlock, answers: list[mx.array]) -> tuple[EpisodeBlock, Ints]:
    return block, np.concatenate([np.array(part) for part in answers]).astype(np.int64)

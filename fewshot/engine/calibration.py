"""When an answer is "unknown" and how sure another is, calibrated on held-out classes.

Every query of an episode is asked twice: once with its class among the support, and once with that
class left out, when it is of none of them. Both need one table of distances.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from ..compute.modules import evaluating
from ..core.draws import EpisodeBlock, Ints
from ..core.errors import ConfigError
from ..core.figures import DistanceCounts, UnknownFigures, UnknownRow
from ..core.interfaces import Head, Metric
from ..parts.heads.nearest import nearest_of_class
from ..parts.heads.prototypes import prototypes
from .protocol import leave_one_out, thinned
from .verification import roc_auc

Floats = NDArray[np.float64]

FOLDS = 5  # at the most, of the enrolled images: a head is fitted once for each
MOST_ASKED = 2000  # of the enrolled images: a share is then known to about two points
RECALL = 0.95  # of queries of known classes, which the threshold is to keep
BINS = 15  # of the reliability diagram and of ECE, as in Guo et al. 2017


@frozen
class Calibration:
    """For K images of a class: farther than `threshold` is unknown; scores / `temperature`.

    `origin`: found on a run's validation classes, or on the enrolled ones (`from_enrolled`).
    """

    k_shot: int
    threshold: float
    temperature: float
    origin: Literal["validation", "enrolled"] = "validation"


def from_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Calibration, ...]:
    """As they are written in results and in classifier files."""
    return tuple(
        Calibration(
            int(row["k_shot"]),
            float(row["threshold"]),
            float(row["temperature"]),
            "enrolled" if row.get("origin") == "enrolled" else "validation",
        )
        for row in rows
    )


def from_results(results: Mapping[str, Any]) -> tuple[Calibration, ...]:
    """Those of a run; none if it trained nothing: the enrolled classes tell as much then."""
    untrained = (results.get("training") or {}).get("steps") == 0
    return () if untrained else from_rows(results.get("unknown", []))


def for_counts(calibrations: Sequence[Calibration], counts: Sequence[int]) -> Calibration | None:
    """The one whose K is nearest, by ratio, to the median number of images of a class."""
    if not calibrations or not any(counts):
        return None
    middle = np.log(max(1, np.median(counts)))
    return min(calibrations, key=lambda c: abs(np.log(c.k_shot) - middle))


@frozen(eq=False)
class Fitted:
    """A head's state, and what the distance to a class is measured to: `points` with `labels`.

    That is the class's prototype or, for a head of votes, its nearest support image, by the
    metric; a head may measure it itself (`Head.distances`).
    """

    state: Any
    points: mx.array
    labels: mx.array


def fitted(support: mx.array, labels: mx.array, head: Head, metric: Metric, n_way: int) -> Fitted:
    """A head fitted to a support (…, s, d), labels (…, s)."""
    with evaluating(head.module, metric.fn):
        state = head.fit(support, labels, metric, n_way)
    if head.votes:
        return Fitted(state, support, labels)
    means = prototypes(support, labels, n_way)
    return Fitted(state, means, mx.broadcast_to(mx.arange(n_way), means.shape[:-1]))


def by_class(
    to: Fitted, query: mx.array, head: Head, metric: Metric, n_way: int
) -> tuple[mx.array, mx.array, mx.array]:
    """A head's scores, logits and distances to each class, (…, q, n_way).

    Logits: the scores, or minus the distances where these are votes.
    """
    with evaluating(head.module, metric.fn):
        scores = head.scores(to.state, query, metric)
        if head.distances is not None:
            distances = head.distances(to.state, query, scores)
        else:
            distances = nearest_of_class(metric.table(query, to.points), to.labels, n_way)
    return scores, -distances if head.votes else scores, distances


# ------------------------------------------------------------------------------ episodes


@frozen(eq=False)
class Answers:
    """What q queries got: logits (q, n_way), their labels (q,), and nearest distances (q,).

    `known`: with their own class among the support, `unknown`: without it.
    """

    logits: Floats
    labels: NDArray[np.int64]
    known: Floats
    unknown: Floats


def answers(
    embeddings: NDArray[np.float32],
    blocks: Sequence[EpisodeBlock],
    head: Head,
    metric: Metric,
    text: NDArray[np.float32] | None = None,
    crops: Ints | None = None,
) -> Answers:
    """The answers to all queries of the episodes, over embedded images (n, d).

    `text` (c, d): embeddings of the names of all classes, for a head that reads them. `crops` as in
    `evaluate`. Raises ConfigError for a head that looks at queries together: none has an answer of
    its own.
    """
    if head.queries == "together":
        raise ConfigError(
            "the head looks at all queries of a task together, and no query has an answer of its "
            "own to calibrate: take a head that answers each query alone"
        )
    images, parts = len(embeddings), list[tuple[Any, ...]]()
    if crops is not None:
        blocks = [whole.with_crops(crops) for whole in blocks]
    if text is not None:
        embeddings = np.concatenate([embeddings, text])
        blocks = [whole.with_names(images + whole.classes) for whole in blocks]
    for whole in blocks:
        for i in range(len(whole)):  # one at a time: a table of distances each
            task = whole.episode(i)
            support, query = (
                mx.array(embeddings[task.items[rows]]) for rows in (task.support, task.query)
            )
            to = fitted(support, mx.array(task.support_labels), head, metric, task.n_way)
            _, logits, table = by_class(to, query, head, metric, task.n_way)
            distances = np.array(table, np.float64)
            own = np.arange(task.n_way) == task.query_labels[:, None]
            known, unknown = distances.min(axis=1), np.where(own, np.inf, distances).min(axis=1)
            parts.append((np.array(logits, np.float64), task.query_labels, known, unknown))
    return Answers(*(np.concatenate(column) for column in zip(*parts, strict=True)))


# -------------------------------------------------------------------------------- figures


def calibrate(k_shot: int, found: Answers) -> Calibration:
    """The distance that keeps 95 % of the known, and the temperature of least log loss.

    Temperature scaling: Guo et al. 2017, equation 9; the log loss is convex in 1 / temperature.
    """
    from scipy.optimize import minimize_scalar  # late: a third of a second

    queries = np.arange(len(found.labels))
    scale = max(float(np.abs(found.logits).mean()), 1e-12)

    def loss(log_temperature: float) -> float:
        logits = found.logits / (scale * np.exp(log_temperature))
        return -float(log_softmax(logits, axis=1)[queries, found.labels].mean())

    best = minimize_scalar(loss, bounds=(-10, 10), method="bounded")
    return Calibration(
        k_shot=k_shot,
        threshold=float(np.quantile(found.known, RECALL, method="inverted_cdf")),
        temperature=scale * float(np.exp(best.x)),
    )


def from_enrolled(
    embeddings: NDArray[np.float32],
    labels: Ints,
    head: Head,
    metric: Metric,
    text: NDArray[np.float32] | None = None,
    crops: Ints | None = None,
) -> Calibration | None:
    """The calibration on the support (n, d) itself, labels (n,): `calibrate` by leave-one-out.

    Each image, or of many an even share, is asked once among those of other folds, as known, and
    with its class left out, as unknown. None where fewer than three classes have two images, and
    for a head that looks at queries together. `text` and `crops` as in `answers`.
    """
    counts = np.bincount(labels)
    asked = np.flatnonzero(counts >= 2)
    if len(asked) < 3 or head.queries == "together":
        return None
    folds = leave_one_out(labels, None, asked.tolist(), FOLDS)
    blocks = [thinned(fold, MOST_ASKED // len(folds)) for fold in folds]
    found = calibrate(
        round(float(np.median(counts[counts > 0]))),
        answers(embeddings, blocks, head, metric, text, crops),
    )
    return evolve(found, origin="enrolled")


def reliability(
    logits: Floats, labels: NDArray[np.int64]
) -> tuple[tuple[tuple[float, float, float], ...], float]:
    """Rows (confidence, accuracy, share of queries) of the bins that are not empty, and the ECE.

    Expected calibration error: Guo et al. 2017, equation 3.
    """
    shares = softmax(logits, axis=1)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = tuple(
        (
            float(confidence[bins == b].mean()),
            float(right[bins == b].mean()),
            float((bins == b).mean()),
        )
        for b in np.unique(bins)
    )
    return rows, sum(share * abs(right - sure) for sure, right, share in rows)


def figures(calibration: Calibration, found: Answers) -> UnknownFigures:
    """How a calibration does on queries: AUROC of known against unknown, errors, reliability."""
    n = len(found.known)
    distances = np.concatenate([found.known, found.unknown])
    edges = np.linspace(0, distances.max(), 41)
    known, unknown = (np.histogram(of, edges)[0].tolist() for of in (found.known, found.unknown))
    at_recall = np.quantile(found.known, RECALL, method="inverted_cdf")
    bins, ece = reliability(found.logits / calibration.temperature, found.labels)
    before, ece_before = reliability(found.logits, found.labels)
    return UnknownFigures(
        n_way=found.logits.shape[1],
        queries=n,
        auroc=roc_auc(distances, np.arange(2 * n) < n),
        false_accepts_at_95_recall=float((found.unknown <= at_recall).mean()),
        recall=float((found.known <= calibration.threshold).mean()),
        false_accepts=float((found.unknown <= calibration.threshold).mean()),
        ece=ece,
        ece_uncalibrated=ece_before,
        reliability=bins,
        reliability_uncalibrated=before,
        distances=DistanceCounts(tuple(edges.tolist()), tuple(known), tuple(unknown)),
    )


def calibrated(
    embeddings: NDArray[np.float32],
    held_out: Mapping[int, tuple[list[EpisodeBlock], list[EpisodeBlock]]],
    head: Head,
    metric: Metric,
    text: NDArray[np.float32] | None = None,
    crops: Ints | None = None,
) -> tuple[UnknownRow, ...]:
    """A row for each K: the calibration, its figures on the classes it was found on, and on test.

    The test classes decide nothing. `text` and `crops` as in `answers`.
    """

    def row(k: int, validation: list[EpisodeBlock], test: list[EpisodeBlock]) -> UnknownRow:
        found = answers(embeddings, validation, head, metric, text, crops)
        calibration = calibrate(k, found)
        return UnknownRow(
            k,
            calibration.threshold,
            calibration.temperature,
            figures(calibration, found),
            figures(calibration, answers(embeddings, test, head, metric, text, crops)),
        )

    return tuple(row(k, *both) for k, both in held_out.items())

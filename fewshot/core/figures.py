"""What is found out about a run and a study: the rows of results.json and study.json, typed.

Accuracies and other rates are shares, 0 to 1; intervals are 95 % and (low, high).
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

Interval = tuple[float, float]

# By query class, how often each class was answered.
Answered = Mapping[str, Mapping[str, int]]


@frozen
class AdapterGain:
    """What an adapter adds to a row of K-shot accuracy, paired on the same episodes.

    `frozen`: the accuracy without it. `adapting_seconds`: of one episode, embedding not counted.
    """

    frozen: float
    frozen_ci95: Interval
    gain: float
    gain_ci95: Interval
    gain_p: float
    adapting_seconds: float


@frozen
class KShotRow:
    """Accuracy in one setting: for one K, n_way and grouping.

    `ci95`: Student t over episodes, `ci95_classes`: bootstrap over query classes. `floor`: raw
    pixels, `untrained`: the backbone before training (None: not examined), both by the same head
    on the same episodes. `digest` names the episodes: equal digests, equal episodes. `protocol`
    "leave-one-out": every
    image is asked once, `episodes` are folds, `k_shot` is the fewest support images that a query's
    class had, `per_episode` 0 or 1 of each image, `ci95` Wilson's over images.

    `dirichlet` above 0: the classes' shares of the queries were drawn from a Dirichlet distribution
    of it, and an episode's accuracy is over its queries, not the mean over its classes. `balance`:
    mean entropy of these shares over log n_way, 1 where there are as many queries of each.
    """

    k_shot: int
    n_way: int
    accuracy: float
    ci95: Interval
    ci95_classes: Interval
    floor: float
    floor_ci95: Interval
    untrained: float | None
    untrained_ci95: Interval | None
    groups: str
    episodes: int
    queries: int
    per_class: Mapping[str, float]
    per_episode: tuple[float, ...]
    confusion: Answered
    digest: str
    adapter: AdapterGain | None = None
    protocol: str = "episodes"
    dirichlet: float = 0.0
    balance: float = 1.0


@frozen
class Verification:
    """Same class or different, on pairs of images; smaller distance means same.

    `auc`: area under the ROC curve. `accuracy`: at `threshold`, chosen on other classes.
    `tuning_accuracy`: on these. `accuracy_at_margin`: at the loss's own margin, where it has one.
    """

    auc: float
    threshold: float
    accuracy: float
    tuning_accuracy: float
    margin: float | None
    accuracy_at_margin: float | None
    pairs: int


@frozen
class DistanceCounts:
    """Histograms (b,) of distances to the nearest class, of known and unknown; `edges` (b + 1,)."""

    edges: tuple[float, ...]
    known: tuple[int, ...]
    unknown: tuple[int, ...]


@frozen
class UnknownFigures:
    """Known or unknown class, and how far confidence can be trusted, on some classes' queries.

    `recall`, `false_accepts`: at the calibration's threshold, of known and unknown queries.
    `ece`: expected calibration error. `reliability`: (confidence, accuracy, share of queries) of
    every bin that is not empty.
    """

    n_way: int
    queries: int
    auroc: float
    false_accepts_at_95_recall: float
    recall: float
    false_accepts: float
    ece: float
    ece_uncalibrated: float
    reliability: tuple[tuple[float, float, float], ...]
    reliability_uncalibrated: tuple[tuple[float, float, float], ...]
    distances: DistanceCounts


@frozen
class UnknownRow:
    """The calibration for one K, on the validation classes that it was chosen on and on test."""

    k_shot: int
    threshold: float
    temperature: float
    validation: UnknownFigures
    test: UnknownFigures


@frozen
class Speed:
    """Embedding, decoding excluded: in batches of `batch` images and one by one."""

    batch_images_per_second: float
    single_images_per_second: float
    single_latency_ms: float
    batch: float


@frozen
class TrainingSummary:
    """What happened in training. `stopped`: "steps", "patience" or "interrupted"."""

    steps: int
    best_step: int
    best_score: float | None
    images_per_second: float
    seconds: float
    stopped: str


@frozen
class HeadRow:
    """Another head on the episodes of a `KShotRow`, from the same embeddings.

    `queries`: whether it answered each "alone", or those of a task "together". `gain`: over the
    run's own head, paired by episode. `cpu_seconds`: of one episode, on all cores, embedding not
    counted.
    """

    head: str
    queries: str
    k_shot: int
    n_way: int
    groups: str
    accuracy: float
    ci95: Interval
    gain: float
    gain_ci95: Interval
    gain_p: float
    cpu_seconds: float
    protocol: str = "episodes"
    dirichlet: float = 0.0
    balance: float = 1.0


@frozen
class Astray:
    """An image by its name, and the class that its nearest neighbours are all of, not its own."""

    image: str
    nearest: str


@frozen
class RunResults:
    """results.json. `training`: None where a run is evaluated again.

    `queries`: whether the head answered each query "alone", or those of a task "together".
    `heads`: what others make of the same embeddings.
    `spread`: how far embeddings lie apart for their length, as `collapsed` judges it.
    `astray`: images that may lie in a wrong folder, the worst first.
    """

    k_shot: tuple[KShotRow, ...]
    verification: Verification | None
    speed: Speed
    unknown: tuple[UnknownRow, ...] = ()
    queries: str = "alone"
    training: TrainingSummary | None = None
    heads: tuple[HeadRow, ...] = ()
    spread: float | None = None
    astray: tuple[Astray, ...] = ()


_COLLAPSED = 1e-3  # a spread below which embeddings hardly tell images apart


def collapsed(spread: float | None) -> list[str]:
    """A line of warning where embeddings have collapsed, by their spread (`embedding.spread`)."""
    if spread is None or spread >= _COLLAPSED:
        return []
    return [
        f"embeddings have collapsed: they lie {spread:.1g} of their length apart and hardly tell "
        "images from each other"
    ]


@frozen
class PairedTest:
    """The mean of b − a over `n` pairs, its 95 % t interval and the two-sided p-value."""

    difference: float
    ci95: Interval
    p: float
    n: int


@frozen
class Compared:
    """A run's row beside the first run's on the same episodes; no tests for the first itself."""

    run: str
    row: KShotRow
    draws: PairedTest | None = None
    classes: PairedTest | None = None


@frozen
class StudyFigures:
    """One setting of a study's row, over its seeds.

    `per_draw`: by seed and draw. `ci95_seeds`: Student t over the seeds' accuracies, None for one
    seed; `ci95_draws`: over draws, and `ci95_classes`: bootstrap over classes, both of means over
    seeds. `draw_std`: standard deviation of a single draw, within a seed. `lower_next`: the chance
    that one draw at the next K of this setting is lower; None at the last.
    """

    k_shot: int
    n_way: int
    groups: str
    episodes: int
    digest: str
    accuracy: float
    ci95_seeds: Interval | None
    ci95_draws: Interval
    ci95_classes: Interval
    draw_std: float
    floor: float
    untrained: float | None
    per_draw: tuple[tuple[float, ...], ...]
    per_class: Mapping[str, float]
    confusion: Answered
    published: float | None = None
    lower_next: float | None = None
    protocol: str = "episodes"
    dirichlet: float = 0.0
    balance: float = 1.0


def part_of(row: KShotRow | StudyFigures | HeadRow) -> tuple[str, int, str, float]:
    """What the rows of one table share: protocol, n_way, grouping and shares of queries."""
    return row.protocol, row.n_way, row.groups, row.dirichlet


@frozen
class StudiedRun:
    """One run of a study's row; `records`: the lines of its metrics.jsonl."""

    folder: str
    seed: int
    parameters: int
    training: TrainingSummary
    speed: Speed
    verification: Verification | None
    records: tuple[Mapping[str, Any], ...]
    heads: tuple[HeadRow, ...] = ()


@frozen
class Cost:
    """What a row of a study costs: means over its runs."""

    parameters: int
    training_images_per_second: float
    training_seconds: float
    steps: float
    best_step: float
    embedding_images_per_second: float
    one_image_ms: float


@frozen
class StudyRow:
    """A row of a study: its figures in every setting, what it costs, and its runs."""

    row: str
    figures: tuple[StudyFigures, ...]
    cost: Cost
    runs: tuple[StudiedRun, ...]


@frozen
class PairedRows:
    """Two rows of a study on the same episodes, means over seeds: the second minus the first."""

    rows: tuple[str, str]
    k_shot: int
    n_way: int
    groups: str
    draws: PairedTest
    classes: PairedTest
    dirichlet: float = 0.0


@frozen
class StudyResults:
    """study.json. `failed`: why, by run; `changed`: what the command changed, layer by layer."""

    study: str
    rows: Mapping[str, StudyRow]
    paired: tuple[PairedRows, ...]
    classes: tuple[str, ...]
    manifest: Mapping[str, Any]
    failed: Mapping[str, str]
    changed: tuple[Mapping[str, Any], ...]

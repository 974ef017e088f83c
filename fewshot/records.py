"""The values that travel between the parts: draws, class splits, components, results. No MLX."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from attrs import Factory, define, field, frozen, has, validators
from numpy.typing import NDArray

from .errors import DataError

Ints = NDArray[np.int64]
Layout = Literal["pairs", "triplets", "episode"]
Grouping = Literal["separate", "mixed"]


def as_ints(values: Any) -> Ints:
    """As an int64 vector: class and image ids are never floats."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise DataError(f"indices must be a vector of integers, not {array.dtype} {array.shape}")
    return array.astype(np.int64)


# ------------------------------------------------------------------------------- draws


def _classes(values: Iterable[int | str]) -> tuple[int | str, ...]:
    return tuple(values)


@frozen(eq=False)
class Pairs:
    """n images and p pairs among them.

    `items` (n,): dataset indices, each embedded once. `left`, `right` (p,): positions into
    `items`. `same` (p,) bool: whether the two images are of one class.
    """

    items: Ints = field(converter=as_ints)
    left: Ints = field(converter=as_ints)
    right: Ints = field(converter=as_ints)
    same: NDArray[np.bool_]


@frozen(eq=False)
class Triplets:
    """n images and t triplets among them: `anchor`, `positive`, `negative` (t,) into `items`."""

    items: Ints = field(converter=as_ints)
    anchor: Ints = field(converter=as_ints)
    positive: Ints = field(converter=as_ints)
    negative: Ints = field(converter=as_ints)


@frozen(eq=False)
class Episode:
    """One few-shot task: s support images with labels, q query images with labels.

    `items` (n,): dataset indices. `support` (s,), `query` (q,): positions into `items`; any
    number per class. `support_labels`, `query_labels`: 0..n_way-1. `classes`: what label i is
    in the dataset: a class id (int) or a class name (str).

    Raises DataError where an image is both support and query, a label is out of range or a
    class has no support.
    """

    items: Ints = field(converter=as_ints)
    support: Ints = field(converter=as_ints)
    support_labels: Ints = field(converter=as_ints)
    query: Ints = field(converter=as_ints)
    query_labels: Ints = field(converter=as_ints)
    classes: tuple[int | str, ...] = field(converter=_classes)

    def __attrs_post_init__(self) -> None:
        if len(self.support) != len(self.support_labels) or len(self.query) != len(
            self.query_labels
        ):
            raise DataError("an episode needs one label per support and per query image")
        for part in (self.support, self.query):
            if part.size and not 0 <= part.min() <= part.max() < len(self.items):
                raise DataError(f"positions must lie in 0..{len(self.items) - 1}, the items")
        shared = np.intersect1d(self.items[self.support], self.items[self.query])
        if shared.size:
            raise DataError(f"images {shared[:5].tolist()} are both support and query")
        if not np.array_equal(np.unique(self.support_labels), np.arange(self.n_way)):
            raise DataError(f"support labels must cover 0..{self.n_way - 1}, every class once")
        if self.query.size and not 0 <= self.query_labels.min() <= self.query_labels.max() < (
            self.n_way
        ):
            raise DataError(f"query labels must lie in 0..{self.n_way - 1}")

    @property
    def n_way(self) -> int:
        """Number of classes that have support."""
        return len(self.classes)

    @classmethod
    def of(
        cls,
        support: Sequence[int],
        support_labels: Sequence[Any],
        query: Sequence[int],
        query_labels: Sequence[Any],
    ) -> "Episode":
        """An episode from dataset indices and labels of any kind (names, large ids, …).

        A label stands for the class that bears it as its name, as in `from_arrays`. Classes take
        the order of their first support image. Raises DataError for a query label
        that has no support.
        """
        of_support, of_query = [str(y) for y in support_labels], [str(y) for y in query_labels]
        classes = list(dict.fromkeys(of_support))
        position = {name: i for i, name in enumerate(classes)}
        strangers = sorted({name for name in of_query if name not in position})
        if strangers:
            raise DataError(f"query labels without support: {', '.join(strangers)}")
        return cls.joined(
            as_ints(support),
            as_ints([position[name] for name in of_support]),
            as_ints(query),
            as_ints([position[name] for name in of_query]),
            classes,
        )

    @classmethod
    def joined(
        cls,
        support: Ints,
        support_labels: Ints,
        query: Ints,
        query_labels: Ints,
        classes: Sequence[int | str],
    ) -> "Episode":
        """An episode from dataset indices (s,), (q,) and labels 0..n_way-1."""
        s, q = len(support), len(query)
        return cls(
            items=np.concatenate([support, query]),
            support=np.arange(s),
            support_labels=support_labels,
            query=np.arange(s, s + q),
            query_labels=query_labels,
            classes=classes,
        )


@frozen(eq=False)
class EpisodeBlock:
    """e episodes of one shape, which evaluation answers together.

    `support` (e, s), `query` (e, q): dataset indices, never negative. `support_labels`,
    `query_labels`: (e, s), (e, q), or (s,), (q,) where all episodes share them. `classes`
    (e, n_way): what label i is in the dataset: class ids, or class names.

    Raises DataError for shapes that do not fit and for what an `Episode` refuses.
    """

    support: Ints
    support_labels: Ints
    query: Ints
    query_labels: Ints
    classes: NDArray[Any]

    def __attrs_post_init__(self) -> None:
        e = len(self.classes)
        for name in ("support", "query"):
            items, labels = getattr(self, name), getattr(self, f"{name}_labels")
            if items.ndim != 2 or len(items) != e:
                raise DataError(f"{name} must be ({e}, …), as there are {e} episodes")
            if items.size and items.min() < 0:
                raise DataError(f"{name} has the index {items.min()}: none is negative")
            if labels.shape not in (items.shape, items.shape[1:]):
                raise DataError(f"{name}_labels {labels.shape} do not fit {name} {items.shape}")
            if labels.size and not 0 <= labels.min() <= labels.max() < self.n_way:
                raise DataError(f"{name} labels must lie in 0..{self.n_way - 1}")
        of_class = np.atleast_2d(self.support_labels)
        seen = np.zeros((len(of_class), self.n_way), bool)
        np.put_along_axis(seen, of_class, True, axis=1)
        if not seen.all():
            raise DataError(f"support labels must cover 0..{self.n_way - 1}, every class once")
        # The side as the lowest bit: the two sides of one image become neighbours when sorted.
        sides = np.sort(np.concatenate([2 * self.support, 2 * self.query + 1], axis=1), axis=1)
        both = (np.diff(sides, axis=1) == 1) & (sides[:, :-1] % 2 == 0)
        if both.any():
            shared = np.unique(sides[:, :-1][both] // 2)
            raise DataError(f"images {shared[:5].tolist()} are both support and query")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def n_way(self) -> int:
        """Number of classes that have support."""
        return int(self.classes.shape[1])

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "EpisodeBlock":
        """A block of one or more episodes of one shape, labels shared where they are equal."""

        def labels(rows: list[Ints]) -> Ints:
            shared = all(np.array_equal(row, rows[0]) for row in rows)
            return rows[0] if shared else np.stack(rows)

        named = any(isinstance(c, str) for task in episodes for c in task.classes)
        return cls(
            support=np.stack([task.items[task.support] for task in episodes]),
            support_labels=labels([task.support_labels for task in episodes]),
            query=np.stack([task.items[task.query] for task in episodes]),
            query_labels=labels([task.query_labels for task in episodes]),
            classes=np.array([task.classes for task in episodes], object if named else np.int64),
        )

    def episode(self, index: int) -> Episode:
        """Episode `index` of the block."""
        e, s, q = len(self), self.support.shape[1], self.query.shape[1]
        return Episode.joined(
            self.support[index],
            np.broadcast_to(self.support_labels, (e, s))[index],
            self.query[index],
            np.broadcast_to(self.query_labels, (e, q))[index],
            self.classes[index].tolist(),
        )

    def part(self, start: int, stop: int) -> "EpisodeBlock":
        """Episodes start..stop-1."""
        rows = slice(start, stop)
        return EpisodeBlock(
            self.support[rows],
            self.support_labels if self.support_labels.ndim == 1 else self.support_labels[rows],
            self.query[rows],
            self.query_labels if self.query_labels.ndim == 1 else self.query_labels[rows],
            self.classes[rows],
        )


def in_blocks(
    tasks: Iterable[Episode | EpisodeBlock], at_most: int = 256
) -> Iterator[EpisodeBlock]:
    """The same episodes in the same order, neighbours of one shape put together."""
    waiting: list[Episode] = []

    def shape(task: Episode | EpisodeBlock) -> tuple[int, ...]:
        return task.support.shape[-1], task.query.shape[-1], task.n_way

    for task in tasks:
        alone = isinstance(task, EpisodeBlock) or len(waiting) == at_most
        if waiting and (alone or shape(task) != shape(waiting[0])):
            yield EpisodeBlock.of(waiting)
            waiting = []
        if isinstance(task, EpisodeBlock):
            yield task
        else:
            waiting.append(task)
    if waiting:
        yield EpisodeBlock.of(waiting)


Draw = Pairs | Triplets | Episode


def as_names(values: Iterable[str]) -> tuple[str, ...]:
    """As a tuple."""
    return tuple(values)


@frozen
class ClassSplit:
    """Names of the train, validation and test classes; disjoint, or DataError."""

    train: tuple[str, ...] = field(converter=as_names)
    val: tuple[str, ...] = field(converter=as_names)
    test: tuple[str, ...] = field(converter=as_names)

    def __attrs_post_init__(self) -> None:
        parts = (("train", self.train), ("val", self.val), ("test", self.test))
        seen: dict[str, str] = {}
        for part, names in parts:
            for name in names:
                if name in seen:
                    raise DataError(
                        f"class '{name}' is in {seen[name]} and in {part}: a class split must be "
                        "disjoint; take it out of one"
                    )
                seen[name] = part


# -------------------------------------------------------------------------- components


def option(
    default: Any, help: str, validator: Any = None, factory: Callable[[], Any] | None = None
) -> Any:
    """A field of an options class: its default, its help text and what values it takes."""
    if factory is not None:
        default = Factory(factory)
    return field(default=default, validator=validator, metadata={"help": help})


at_least = validators.ge
at_most = validators.le
above = validators.gt
below = validators.lt
within = validators.and_


@frozen
class ZeroOr:
    """A validator: 0, which means something of its own, or at least `least`."""

    least: int

    def __call__(self, _: Any, attribute: Any, value: int) -> None:
        """Raise ValueError for any other value."""
        if value != 0 and value < self.least:
            raise ValueError(f"'{attribute.name}' must be 0 or >= {self.least}: {value}")


def _is_options(_: Any, attribute: Any, value: type) -> None:
    if not has(value):
        raise TypeError(f"'{attribute.name}' must be an attrs class, not {value!r}")


@frozen
class NoOptions:
    """Options of a component that has none."""


@frozen
class Component:
    """A named part that a plugin offers: how to make it and which options it takes.

    `options` is a frozen attrs class; its fields, types, defaults and help texts (see `option`)
    serve the command line, the TOML file, `fewshot show` and the manifest alike.
    """

    name: str = field(validator=validators.matches_re(r"[a-z0-9][a-z0-9_.-]*"))
    factory: Callable[..., Any] = field(validator=validators.is_callable())
    options: type = field(default=NoOptions, validator=_is_options)
    summary: str = ""


@frozen
class Preset:
    """A named partial configuration: what a TOML file would say."""

    name: str = field(validator=validators.matches_re(r"[a-z0-9][a-z0-9_.-]*"))
    values: Mapping[str, Any]
    summary: str = ""


# --------------------------------------------------------- options of the run's own steps


positive = above(0)
share = within(at_least(0.0), at_most(1.0))


@frozen
class EmbeddingOptions:
    """What `embed` does after the backbone."""

    normalize: Literal["none", "l2"] = option("l2", "scale each embedding to length 1, or not")


@frozen
class SplitOptions:
    """How classes become train, validation and test; nothing given: the dataset's own split."""

    train: tuple[str, ...] = option((), "names of the training classes")
    val: tuple[str, ...] = option((), "names of the validation classes")
    test: tuple[str, ...] = option((), "names of the test classes")
    file: str | None = option(None, "a TOML file with the three lists train, val, test")
    draw: bool = option(False, "draw by fractions even where the data set has its own split")
    val_fraction: float = option(0.2, "share of the classes, in a drawn split", share)
    test_fraction: float = option(0.2, "share of the classes, in a drawn split", share)
    seed: int = option(0, "of the draw by fractions", at_least(0))
    too_small: Literal["refuse", "leave-out"] = option(
        "refuse", "what to do with a class of fewer images than `min_images`"
    )
    min_images: int = option(2, "fewest images a class must have", at_least(1))


@frozen
class TrainingOptions:
    """How `fit` trains."""

    steps: int = option(300, "optimizer steps at the most", at_least(0))
    draws_per_step: int = option(1, "draws (batches, episodes) in one step", positive)
    optimizer: Literal["adam", "adamw", "sgd"] = option("adam", "the optimizer")
    learning_rate: float = option(1e-3, "at the start of the schedule", positive)
    schedule: Literal["constant", "cosine"] = option("cosine", "cosine: decays to 0 over `steps`")
    warmup: int = option(0, "steps of linear rise before the schedule", at_least(0))
    weight_decay: float = option(0.0, "adamw and sgd only", at_least(0))
    momentum: float = option(0.9, "sgd only", share)
    validate_every: int = option(50, "steps between two validations", positive)
    patience: int = option(
        8, "validations without a better score before training stops; 0: never", at_least(0)
    )
    validation_pool: int = option(30, "images of a class that validation draws from", at_least(6))


@frozen
class EvaluationOptions:
    """How a trained backbone is examined."""

    k_shot: tuple[int, ...] = option(
        (1, 2, 5, 10),
        "support images per class, a list",
        validators.and_(validators.min_len(1), validators.deep_iterable(at_least(1))),
    )
    n_way: int = option(
        0,
        "0: support of all classes, queries all other images of the test classes; "
        "else standard episodes of this many test classes",
        ZeroOr(2),
    )
    n_query: int = option(15, "queries per class in standard episodes", positive)
    episodes: int = option(600, "standard episodes", at_least(2))
    repeats: int = option(20, "support draws where n_way is 0", at_least(2))
    groups: Grouping = option(
        "separate",
        "separate: support and query share no group (shot, signer), where the dataset has groups",
    )
    pairs: int = option(4000, "pairs for verification; 0: none", ZeroOr(2))
    seed: int = option(
        0, "of the draws: two runs of one evaluation seed meet the same", at_least(0)
    )
    memory: int = option(
        256, "MB that temporary arrays take, about; changes speed, no figure", at_least(1)
    )


# ------------------------------------------------------------------------------ results


@frozen(eq=False)
class Evaluation:
    """What one embedding achieves on a list of episodes; accuracies are shares, 0 to 1.

    `accuracy`: the mean of `per_episode`, each the mean over the episode's query classes.

    `per_episode` (e,); `ci95`: Student t over episodes; `ci95_classes`: bootstrap over the query
    classes, which reflects how few they are. `confusion` (c, c): queries of class row answered
    as class column. `digest` names the episodes: equal digests, equal episodes.
    """

    accuracy: float
    ci95: tuple[float, float]
    ci95_classes: tuple[float, float]
    per_episode: NDArray[np.float64]
    per_class: Mapping[str, float]
    confusion: Ints
    classes: tuple[str, ...]
    digest: str


@frozen
class Verification:
    """Same class or different, on pairs of images; smaller distance means same.

    `auc`: area under the ROC curve. `accuracy`: at `threshold`, chosen on other classes.
    `accuracy_at_margin`: at the loss's own margin, where it has one.
    """

    auc: float
    threshold: float
    accuracy: float
    margin: float | None
    accuracy_at_margin: float | None
    pairs: int


@define
class History:
    """What happened in training. `stopped`: "steps", "patience" or "interrupted"."""

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    images_per_second: float = 0.0
    seconds: float = 0.0
    stopped: str = "steps"
    records: list[dict[str, Any]] = Factory(list)

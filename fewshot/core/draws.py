"""Draws: pairs, triplets, episodes, blocks of episodes, and labelled images. No MLX."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from .errors import DataError

Ints = NDArray[np.int64]
Roles = NDArray[np.str_]  # of images, in an episode: each one of `ROLES`
Layout = Literal["pairs", "triplets", "episode", "batch"]  # of what a loss compares
DrawLayout = Literal["pairs", "triplets", "episode", "labelled"]
Grouping = Literal["separate", "mixed"]
Apart = Literal["separate", "mixed", "sources"]  # what an evaluation keeps apart
Sources = NDArray[np.str_]  # of images: whom, or where, each is from
Within = Literal["any", "parent"]  # which classes a draw puts together
Parents = Sequence[str]  # of each class of a data set, by its id, what it belongs to
ROLES = ("support", "query", "both")
Protocol = Literal["episodes", "leave-one-out"]  # which draws an evaluation is made of


def require_vector(values: NDArray[Any], rule: str) -> NDArray[Any]:
    """The same; DataError, with the way out, where they are a column or one-hot rows."""
    if values.ndim != 2:
        return values
    said = f"{rule}, not {values.shape}"
    if values.shape[1] == 1:
        raise DataError(f"{said}: take their one column, labels[:, 0]")
    if values.size and np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all():
        raise DataError(f"{said}: these are one-hot, take labels.argmax(axis=1)")
    raise DataError(said)


def as_ints(values: Any) -> Ints:
    """As an int64 vector: class and image ids are never floats."""
    array = require_vector(np.asarray(values), "labels and indices must be a vector of integers")
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise DataError(
            f"labels and indices must be a vector of integers, not {array.dtype} {array.shape}; "
            "names of classes become these by from_arrays(images, labels).labels"
        )
    return array.astype(np.int64)


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
class Labelled:
    """n images and their classes: `items` (n,), `labels` (n,) 0..n_way-1.

    `classes`: the dataset's id of every class there is to learn, whether or not it is drawn.
    """

    items: Ints = field(converter=as_ints)
    labels: Ints = field(converter=as_ints)
    classes: tuple[int | str, ...] = field(converter=_classes)

    @property
    def n_way(self) -> int:
        """Number of classes there are to learn."""
        return len(self.classes)


@frozen(eq=False)
class Episode:
    """One few-shot task: s support images with labels, q query images with labels.

    `items` (n,): dataset indices. `support` (s,), `query` (q,): positions into `items`; any
    number per class. `support_labels`, `query_labels`: 0..n_way-1. `classes`: what label i is
    in the dataset: a class id (int) or a class name (str).

    Raises DataError where an image is both support and query, a label is out of range or a
    class has no support, unless none has: such an episode is answered by the classes' names.
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
        covered = np.array_equal(np.unique(self.support_labels), np.arange(self.n_way))
        if self.support.size and not covered:
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
        if self.support.size and not seen.all():
            raise DataError(f"support labels must cover 0..{self.n_way - 1}, every class once")
        # The side as the lowest bit: the two sides of one image become neighbours when sorted.
        sides = np.sort(np.concatenate([2 * self.support, 2 * self.query + 1], axis=1), axis=1)
        both = (sides[:, 1:] ^ sides[:, :-1]) == 1
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

    def with_names(self, rows: Ints) -> "EpisodeBlock":
        """The same with more support, ahead of the other: rows (e, n_way), one for each class."""
        labels = self.support_labels
        names = np.broadcast_to(np.arange(self.n_way), (*labels.shape[:-1], self.n_way))
        return evolve(
            self,
            support=np.concatenate([rows, self.support], axis=1),
            support_labels=np.concatenate([names, labels], axis=-1),
        )

    def with_crops(self, crops: Ints) -> "EpisodeBlock":
        """The same with more support: of image i the rows crops[i], crops (n, c), of its class."""
        more = crops[self.support].reshape(len(self), -1)
        return evolve(
            self,
            support=np.concatenate([self.support, more], axis=1),
            support_labels=labels_with_crops(self.support_labels, crops.shape[1]),
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


def labels_with_crops(labels: Ints, c: int) -> Ints:
    """Labels (…, s) of support -> (…, s + s c): those of its images, then of the crops of each."""
    return np.concatenate([labels, labels.repeat(c, axis=-1)], axis=-1)


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


Draw = Pairs | Triplets | Episode | Labelled

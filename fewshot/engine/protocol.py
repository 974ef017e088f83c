"""Which draws an evaluation is made of."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import get_args

import numpy as np
from attrs import evolve, frozen, validators

from ..core.draws import Apart, Episode, EpisodeBlock, Ints, Pairs, Protocol, Roles, Sources
from ..core.errors import ClassTooSmallError, DataError
from ..core.interfaces import Dataset, Sampler
from ..core.options import ZeroOr, at_least, option, positive
from ..core.seeding import generator
from ..data.split import ClassSplit, class_ids, only
from ..parts.episodes import EpisodesOptions, all_way, episodes
from ..parts.pools import sides
from ..parts.samplers import PairsOptions, pairs

_EPISODES, _N_WAY, _N_QUERY = 100, 20, 15  # at the most
_FOLDS = 20  # at the most, of an evaluation by leave-one-out
_NAMED = 3  # sources that a row of results names, at the most
_ASKED = 2000  # queries to calibrate on, about: a share is then known to a point


@frozen
class EvaluationOptions:
    """How a trained backbone is examined."""

    k_shot: tuple[int, ...] = option(
        (1, 2, 5, 10),
        "support images per class, a list; 0: none, the classes' names answer",
        validators.and_(validators.min_len(1), validators.deep_iterable(at_least(0))),
    )
    n_way: tuple[int, ...] = option(
        (0,),
        "0: support of all classes, queries all other images of the test classes; "
        "else standard episodes of this many test classes; of a list, each",
        validators.and_(validators.min_len(1), validators.deep_iterable(ZeroOr(2))),
    )
    n_query: int = option(15, "queries per class in standard episodes", positive)
    episodes: int = option(600, "standard episodes", at_least(2))
    repeats: int = option(20, "support draws where n_way is 0", at_least(2))
    dirichlet: tuple[float, ...] = option(
        (),
        "in standard episodes 0: as many queries of each class; above: their shares are drawn from "
        "a Dirichlet distribution of it, n_query is the mean; of a list, each; empty: 0, and for a "
        "head that asks queries together 2 as well",
        validators.deep_iterable(at_least(0.0)),
    )
    groups: tuple[Apart, ...] = option(
        ("separate",),
        "separate: support and query share no group (shot, signer), where the dataset has groups; "
        "mixed: they may; sources: all support is of one source (person), queries of the others, "
        "for each in turn; of a list, each, and the first for validation and pairs",
        validators.and_(
            validators.min_len(1), validators.deep_iterable(validators.in_(get_args(Apart)))
        ),
    )
    heads: tuple[str, ...] = option(
        (),
        "other heads, with their default options, that answer the same episodes too",
    )
    untrained: bool = option(
        True, "examine the network before training too, which costs embedding all images again"
    )
    pairs: int = option(4000, "pairs for verification; 0: none", ZeroOr(2))
    seed: int = option(
        0, "seed of the draws: two runs with one evaluation seed meet the same ones", at_least(0)
    )
    memory: int = option(
        256, "MB that temporary arrays take, about; changes speed, no figure", at_least(1)
    )


@frozen
class Setting:
    """What the episodes of one row of results share.

    `n_way` 0: all classes, as in the options. `groups` "none": the dataset knows no groups; where
    sources are kept apart, "support from …, queries from …".
    `dirichlet` 0: as many queries of each class, or, of all classes, as there are.
    """

    k_shot: int
    n_way: int = 0
    groups: str = "none"
    protocol: Protocol = "episodes"
    dirichlet: float = 0.0

    @property
    def once(self) -> bool:
        """Whether its episodes ask every image once."""
        return self.protocol == "leave-one-out" or (self.k_shot, self.n_way) == (0, 0)


@frozen(eq=False)
class _Side:
    """What the episodes of one grouping are of: labels (-1: left out), groups and roles."""

    labels: Ints
    groups: Ints | None
    role: Roles | None
    leave_one: bool


def _sources(dataset: Dataset) -> Sources:
    source: Sources | None = getattr(dataset, "source", None)
    if source is None or len(np.unique(source)) < 2:
        raise DataError(
            "groups=sources wants a data set of two sources or more (--dataset people, --dataset "
            f"joined), this one has {'none' if source is None else 'one'}: --groups separate"
        )
    return source


def _sides(dataset: Dataset, groupings: Iterable[Apart], asked: Sequence[int]) -> dict[str, _Side]:
    """By its name in results, each grouping; of sources, each source against the others."""
    role: Roles | None = getattr(dataset, "role", None)
    found: dict[str, _Side] = {}
    for grouping in groupings:
        if grouping != "sources":
            called = "none" if dataset.groups is None else grouping
            groups = dataset.groups if grouping == "separate" else None
            found[called] = _Side(dataset.labels, groups, role, role is None)
            continue
        source, may = _sources(dataset), sides(role, len(dataset.labels))
        names = list(dict.fromkeys(source.tolist()))
        for name in names:
            ours = source == name
            labels = np.where(np.where(ours, *may), dataset.labels, -1)
            labels = only(labels, np.unique(labels[ours]))  # what it has no image of is no class
            if len(np.unique(labels)) < 3 or not np.isin(labels[~ours], asked).any():
                continue
            others = [other for other in names if other != name]
            said = ", ".join(others) if len(others) <= _NAMED else f"{len(others)} others"
            found[f"support from {name}, queries from {said}"] = _Side(
                labels, None, np.where(ours, "support", "query"), False
            )
    if not found:
        raise DataError("groups=sources: no source has classes that another is asked about")
    return found


def _widest(dataset: Dataset, grouping: Apart, asked: Sequence[int]) -> _Side:
    """The one side there is; of sources, that which has most of the classes asked."""
    every = _sides(dataset, (grouping,), asked).values()
    return max(every, key=lambda side: np.isin(asked, side.labels).sum())


def k_shot_episodes(
    dataset: Dataset,
    split: ClassSplit,
    options: EvaluationOptions,
    leave_one: bool = False,
    together: bool = False,
) -> dict[Setting, list[EpisodeBlock]]:
    """The episodes on the test classes, drawn with the evaluation's own seed.

    For every n_way, grouping ("none" where the dataset knows no groups) and k_shot of the options.
    n_way 0: support of all classes of the split, queries all other images of the test classes,
    `repeats` times. Otherwise `episodes` standard episodes, for every `dirichlet`, which `together`
    (whether the head asks all queries at once) decides where the options do not: even ones, and
    for such a head Dirichlet(2) as well (Veilleux et al. 2021, section 5). K = 0: these of K = 1
    without their support, or, of all classes, one episode that asks every image of the test
    classes. Raises DataError where a class has too few images; `leave_one`: `leave_one_out` takes
    the place of every such K, once for a grouping. A data set with roles has support and queries of
    images that may be that. Where sources are kept apart, every source in turn gives the support of
    the classes that it has, and the others the queries.
    """
    test = class_ids(dataset, split.test)
    every = class_ids(dataset, (*split.train, *split.val, *split.test))
    of_grouping = _sides(dataset, options.groups, test)

    def asked(side: _Side) -> list[int]:
        of_query = side.labels if side.role is None else side.labels[side.role != "support"]
        return [c for c in test if side.leave_one or c in of_query]

    def sampler(setting: Setting) -> Sampler[Episode]:
        side = of_grouping[setting.groups]
        if setting.n_way == 0:
            labels = only(side.labels, every)
            return all_way(labels, side.groups, asked(side), setting.k_shot, side.role)
        spec = EpisodesOptions(
            setting.n_way, setting.k_shot, options.n_query, dirichlet=setting.dirichlet
        )
        return episodes(spec, only(side.labels, asked(side)), side.groups, side.role)

    def blocks(setting: Setting) -> list[EpisodeBlock]:
        if setting.k_shot == 0:
            if setting.n_way == 0:
                side = of_grouping[setting.groups]
                return [_without_support(only(side.labels, every), asked(side), side.role)]
            nothing = np.empty(0, np.int64)
            return [
                evolve(block, support=block.support[:, :0], support_labels=nothing)
                for block in blocks(evolve(setting, k_shot=1))
            ]
        count = options.episodes if setting.n_way else options.repeats
        return list(sampler(setting).blocks(options.seed, count))

    found: dict[Setting, list[EpisodeBlock]] = {}
    lacking: dict[str, None] = {}  # groupings, in order
    shares = options.dirichlet or ((0.0, 2.0) if together else (0.0,))
    every_setting = (
        Setting(k, n_way, grouping, dirichlet=share)
        for n_way, grouping in product(options.n_way, of_grouping)
        for share in (shares if n_way else (0.0,))
        for k in options.k_shot
    )
    for setting in every_setting:
        try:
            found[setting] = blocks(setting)
        except ClassTooSmallError:
            if not leave_one or not of_grouping[setting.groups].leave_one:
                raise
            lacking.setdefault(setting.groups)
    for grouping in lacking:
        side = of_grouping[grouping]
        labels = only(side.labels, every)
        folds = leave_one_out(labels, side.groups, test, _FOLDS, options.seed)
        found[Setting(smallest_support(folds), 0, grouping, "leave-one-out")] = folds
    return found


def _without_support(every: Ints, asked: Sequence[int], role: Roles | None) -> EpisodeBlock:
    """One episode of all classes that are labelled, its queries all images of `asked`."""
    _, may_query = sides(role, len(every))
    query = np.flatnonzero(np.isin(every, list(asked)) & may_query)
    ids = np.unique(every[every >= 0])
    nothing = np.empty((1, 0), np.int64)
    return EpisodeBlock(
        nothing, nothing[0], query[None], np.searchsorted(ids, every[query]), ids[None]
    )


def leave_one_out(
    labels: Ints, groups: Ints | None, asked: Sequence[int], most: int, seed: int = 0
) -> list[EpisodeBlock]:
    """Episodes that ask every image of the classes `asked` once, among all that are labelled.

    An episode holds out one image of each of these classes (one group, where images have groups)
    and has all others as its support: K is the same for all where classes are of one size. There
    are as many as the largest class has images, `most` at the most; then more are held out at a
    time. Raises ClassTooSmallError for a class that would have no support.
    """
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    ids = np.unique(labels[labels >= 0])
    is_asked = np.isin(labels, list(asked))
    # A group that spans classes is counted in one of them.
    of_class = np.full(int(unit.max()) + 1, -1)
    of_class[unit[is_asked]] = labels[is_asked]
    order = generator(seed, "leave-one-out").permutation(len(of_class))
    members = [order[of_class[order] == c] for c in asked]
    count = min(most, max(map(len, members)))
    fold_of = np.full(len(of_class), -1)
    for rows in members:
        fold_of[rows] = np.arange(len(rows)) % count
    fold = fold_of[unit]
    for c in asked:
        if len(np.unique(fold[labels == c])) < 2:
            what = "image" if groups is None else "group of images (--groups mixed takes these)"
            raise ClassTooSmallError(c, f"has one {what}, and none is left to compare it with")

    def block(number: int) -> EpisodeBlock:
        support = np.flatnonzero((labels >= 0) & (fold != number))
        query = np.flatnonzero(is_asked & (fold == number))
        at = (np.searchsorted(ids, labels[rows]) for rows in (support, query))
        support_labels, query_labels = at
        return EpisodeBlock(support[None], support_labels, query[None], query_labels, ids[None])

    return [block(number) for number in range(count)]


def smallest_support(blocks: Iterable[EpisodeBlock]) -> int:
    """The fewest support images that the class of a query has."""

    def counts() -> Iterator[int]:
        for block in blocks:
            support = np.bincount(block.support_labels, minlength=block.n_way)
            yield int(support[block.query_labels].min())

    return min(counts())


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


def held_out_episodes(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> dict[int, tuple[list[EpisodeBlock], list[EpisodeBlock]]]:
    """By K: episodes among the validation classes, to calibrate on, and the test classes.

    Only the K for which two classes or more of either have enough images. Where all classes are for
    test, as nothing was trained: support of all of them, queries of every other class to calibrate
    on, and of the rest; leave-one-out, as in `k_shot_episodes`, for K that are too many.
    """
    if not (split.train or split.val):
        return _halves(dataset, split, options)
    validation, test = (_episodes(dataset, part, options) for part in (split.val, split.test))
    return {k: (validation[k], test[k]) for k in validation if k in test}


def _halves(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> dict[int, tuple[list[EpisodeBlock], list[EpisodeBlock]]]:
    found: dict[int, tuple[list[EpisodeBlock], list[EpisodeBlock]]] = {}
    ids = class_ids(dataset, split.test)
    if len(ids) < 3:
        return found
    side = _widest(dataset, options.groups[0], ids)
    labels, groups, role = only(side.labels, ids), side.groups, side.role
    ids = [c for c in ids if c in labels]
    halves, n = (ids[::2], ids[1::2]), options.repeats

    def asked(k: int) -> list[list[EpisodeBlock]]:
        samplers = [all_way(labels, groups, half, k, role) for half in halves]
        return [list(sampler.blocks(options.seed, n)) for sampler in samplers]

    lacking = False
    for k in filter(None, options.k_shot):
        try:
            one, other = ([thinned(b, _ASKED // n) for b in blocks] for blocks in asked(k))
            found[k] = one, other
        except DataError:
            lacking = True
    if lacking and role is None:
        with suppress(DataError):
            both = [leave_one_out(labels, groups, half, _FOLDS, options.seed) for half in halves]
            one, other = ([thinned(b, _ASKED // len(folds)) for b in folds] for folds in both)
            found.setdefault(smallest_support([*one, *other]), (one, other))
    return found


def thinned(block: EpisodeBlock, most: int) -> EpisodeBlock:
    """Episodes with `most` queries at the most, spread evenly over those in order of class."""
    order = np.argsort(block.query_labels, kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, max(1, most)).astype(int))]
    return evolve(block, query=block.query[:, kept], query_labels=block.query_labels[kept])


def _episodes(
    dataset: Dataset, classes: Sequence[str], options: EvaluationOptions
) -> dict[int, list[EpisodeBlock]]:
    found: dict[int, list[EpisodeBlock]] = {}
    ids = class_ids(dataset, classes)
    if not ids:
        return found
    side = _widest(dataset, options.groups[0], ids)
    labels, role = only(side.labels, ids), side.role
    _, may_query = sides(role, len(labels))
    ids = [c for c in ids if (may_query & (labels == c)).any()]
    labels = only(labels, ids)
    smallest = min((int((may_query & (labels == c)).sum()) for c in ids), default=0)
    n_way = min(_N_WAY, len(ids))
    for k in filter(None, options.k_shot) if n_way >= 2 else ():
        n_query = max(1, min(_N_QUERY, smallest // 2 - k))
        spec = EpisodesOptions(n_way, k, n_query)
        with suppress(DataError):  # too few images for this K
            sampler = episodes(spec, labels, side.groups, role)
            found[k] = list(sampler.blocks(options.seed, _EPISODES))
    return found


def verification_pairs(
    dataset: Dataset, split: ClassSplit, options: EvaluationOptions
) -> tuple[Pairs, Pairs] | None:
    """Pairs to choose a threshold on (validation classes, else training) and pairs to test.

    None where no pairs are asked for, or there are fewer than two classes of either.
    """
    grouping = options.groups[0]
    groups = dataset.groups if grouping == "separate" else None
    train, val, test = (class_ids(dataset, part) for part in (split.train, split.val, split.test))
    if grouping == "sources":  # a class of one source has no pair of two
        groups = np.unique(_sources(dataset), return_inverse=True)[1].astype(np.int64)
        train, val, test = (_of_several(ids, dataset.labels, groups) for ids in (train, val, test))
    chosen_on = val if len(val) >= 2 else train
    if options.pairs == 0 or min(len(test), len(chosen_on)) < 2:
        return None
    spec = PairsOptions(options.pairs)
    tuning, tested = (
        pairs(spec, only(dataset.labels, ids), groups).draw(options.seed, 0)
        for ids in (chosen_on, test)
    )
    return tuning, tested


def _of_several(ids: Iterable[int], labels: Ints, groups: Ints | None) -> list[int]:
    """The classes that have images of two groups or more; without groups each image is one."""
    unit = np.arange(len(labels)) if groups is None else groups
    return [c for c in ids if len(np.unique(unit[labels == c])) >= 2]


@frozen
class ValidationDraws:
    """What a network in training is examined on.

    `pairs`: to choose a threshold on, and to try it on; None where classes are too few or small.
    `training`: the images of the pool that are of training classes.
    """

    tasks: list[EpisodeBlock]
    pairs: tuple[Pairs, Pairs] | None
    training: Ints


def validation_draws(
    dataset: Dataset,
    split: ClassSplit,
    grouping: Apart = "separate",
    pool: int = 30,
    draws: int = 20,
    seed: int = 0,
) -> ValidationDraws | None:
    """The draws of `validation`, from at most `pool` images a class; None without such classes."""
    if not split.val:
        return None
    known, asked = class_ids(dataset, split.train), class_ids(dataset, split.val)
    rng = generator(seed, "validation")
    side = _widest(dataset, grouping, asked)
    labels, groups, role = np.full_like(dataset.labels, -1), side.groups, side.role
    _, may_query = sides(role, len(labels))
    asked = [c for c in asked if grouping != "sources" or c in side.labels[may_query]]
    known = [c for c in known if c in side.labels]
    smallest = pool
    for c in (*known, *asked):
        every = rng.permutation(np.flatnonzero(side.labels == c))
        chosen, of_support = every[:pool], len(every)
        if role is not None:  # half a pool for either side
            halves = [every[may][: pool // 2] for may in sides(role[every], len(every))]
            chosen, of_support = np.unique(np.concatenate(halves)), 2 * len(halves[0])
        labels[chosen] = c
        smallest = min(smallest, len(chosen), of_support)
    sampler = all_way(labels, groups, asked, max(1, min(5, smallest // 2)), role)
    tasks = list(sampler.blocks(seed, draws))
    training = np.flatnonzero(only(labels, known) >= 0)
    # A training class of one group has no pair of its own that is no near copy.
    paired = _of_several(known, labels, groups)
    if len(asked) < 2 or len(paired) < 2:
        return ValidationDraws(tasks, None, training)

    def draw(classes: Sequence[int]) -> Pairs:
        spec = PairsOptions(1000)
        return pairs(spec, only(labels, classes), groups).draw(seed, 0)

    return ValidationDraws(tasks, (draw(paired), draw(asked)), training)

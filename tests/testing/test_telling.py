"""Laws are tried on examples that can break them: of those of `fewshot check`, at least half."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from numpy.typing import NDArray
from strategies import REGISTRY

from fewshot.core.errors import DataError
from fewshot.testing import LAWS, STEADY
from fewshot.testing.laws import Law
from fewshot.testing.samplers import _many, groups_fault, roles_fault, some_roles, unlabelled_fault
from fewshot.testing.strategies import lattices, shuffled

Array = NDArray[Any]


def differ(x: Array, y: Array) -> NDArray[np.bool_]:
    """Of each pair of rows, whether they are two different points, neither of them zero."""
    different: NDArray[np.bool_] = (x != y).any(-1) & x.any(-1) & y.any(-1)
    return different


def many(rows: Array) -> bool:
    """Whether they are not all one."""
    return len(np.unique(rows, axis=0)) > 1


def directions(x: Array, y: Array) -> NDArray[np.bool_]:
    """Of each pair of rows, whether they lie on two lines through zero."""
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    apart: NDArray[np.bool_] = np.abs((x * y).sum(-1)) < 0.999 * lengths
    return apart


# ------------------------------------------------------------------------------ metrics


def two_points(_: Any, xy: Array, **__: Any) -> bool:
    return bool(differ(xy[:4], xy[4:]).any())


def two_scales(_: Any, xy: Array, scales: tuple[float, float]) -> bool:
    return scales[0] != scales[1] and two_directions(_, xy)


def two_directions(_: Any, xy: Array) -> bool:
    return bool(directions(xy[:4], xy[4:]).any())


METRICS: dict[str, Callable[..., bool]] = {
    "finite": two_points,
    "never negative": two_points,
    "identity": lambda _, x: bool(x.any()),
    "symmetry": two_points,
    "scale free": two_scales,
    "cosine": two_directions,
    "upper bound": two_directions,
    "finite gradient": two_points,
    "pair alone": lambda _, x, y: many(x) and many(y),
    "asked twice": two_points,
    "learned parts": two_points,
    "matrix agrees": lambda _, both: many(both[:4]) and many(both[4:]),
    "matrix gradient": lambda _, x, power: many(x),
}

# ------------------------------------------------------------------------------- losses


def corners(loss: Any, inputs: tuple[Array, ...]) -> bool:
    """A distance of 0, pairs of one kind, a tie."""
    one, two = inputs[:2]
    if loss.layout == "batch":
        same = inputs[2] == two[:, None]
        return bool((one == 0).any() or same.all(1).any() or not same.any(1).all())
    if loss.layout == "pairs":
        return bool((one == 0).any() or two.all() or not two.any())
    if loss.layout == "triplets":
        return bool((one == 0).any() or (two == 0).any() or (one == two).any())
    return any(len(set(row)) < len(row) for row in one.reshape(-1, one.shape[-1]).tolist())


def something_to_lose(loss: Any, inputs: tuple[Array, ...]) -> bool:
    one, two = inputs[:2]
    if loss.layout == "batch":
        return both_kinds(inputs)
    if loss.layout == "pairs":
        return bool((one[two] > 0).any() or (one[~two] < 1).any())
    return loss.layout == "episode" or bool((one + 0.3 > two).any())


def both_kinds(inputs: tuple[Array, ...]) -> bool:
    """Positives and negatives in one batch."""
    _, labels, others = inputs
    same = others == labels[:, None]
    return bool(same.any() and not same.all())


def both_ways(loss: Any, inputs: tuple[Array, ...], step: float) -> bool:
    """Something to draw near, and something to push off."""
    one, two = inputs[:2]
    if loss.layout == "pairs":
        return bool(two.any() and (one[~two] < 1).any())
    return something_to_lose(loss, inputs)


def another_order(_: Any, inputs: tuple[Array, Array], seed: int) -> bool:
    order = shuffled(inputs[1].shape[-1], seed)
    moved = np.take(inputs[0], order, axis=inputs[1].ndim - 1)
    return not (
        np.array_equal(moved, inputs[0]) and np.array_equal(inputs[1][..., order], inputs[1])
    )


def other_names(_: Any, inputs: tuple[Array, Array], seed: int) -> bool:
    """A query's label is another, and the classes have other scores."""
    scores, labels = inputs
    new = shuffled(scores.shape[-1], seed)
    return bool((new[labels] != labels).any()) and bool((scores != scores[..., :1]).any())


def batch_in_another_order(_: Any, batch: tuple[Array, Array], seed: int) -> bool:
    table, labels = batch
    order = shuffled(len(labels), seed)
    return not np.array_equal(table[order][:, order], table) and len(set(labels)) > 1


def renamed(_: Any, batch: tuple[Array, Array], seed: int) -> bool:
    labels = batch[1]
    return bool((shuffled(int(labels.max()) + 2, seed)[labels] != labels).any())


LOSSES: dict[str, Callable[..., bool]] = {
    "traced": lambda _, inputs: inputs[1].size > 1,
    "through a metric": lambda _, x: many(x),
    "batch order": batch_in_another_order,
    "centres": lambda _, distances, seed: many(distances.T),
    "batch class names": lambda _, inputs, seed: renamed(_, inputs[:2], seed),
    "one value each": lambda _, inputs: inputs[1].size > 1,
    "finite": corners,
    "finite gradient": corners,
    "direction": both_ways,
    "margin": lambda _, near: True,
    "order": another_order,
    "class names": other_names,
    "soft labels": lambda _, inputs: inputs[1].size > 1,
    "soft targets": lambda _, inputs, seed: len(np.unique(inputs[1])) > 1,
    "asked twice": something_to_lose,
    "inputs untouched": lambda _, inputs: bool(inputs[0].any()),
    "learned parts": something_to_lose,
}

# -------------------------------------------------------------------------------- heads


def new_query(task: Any) -> bool:
    """Whether a query is no copy of a support image."""
    support, _, query, _ = task
    return bool((query[:, None] != support).any(-1).all(1).any())


def unequal_counts(_: Any, task: Any, metric: str) -> bool:
    return new_query(task) and len(set(np.bincount(task[1]).tolist())) > 1


def order_within_a_class(_: Any, task: Any, metric: str, seed: int) -> bool:
    support, labels, _, n_way = task
    order = shuffled(len(labels), seed)
    return new_query(task) and any(
        not np.array_equal(support[labels == c], support[order][labels[order] == c])
        for c in range(n_way)
    )


HEADS: dict[str, Callable[..., bool]] = {
    "distances": lambda _, n_way, k_shot, seed: n_way > 1,
    "one query": lambda _, n_way, k_shot, seed: True,
    "any counts": unequal_counts,
    "tells apart": lambda _, seed, n_way, k_shot, metric: n_way > 1,
    "support order": order_within_a_class,
    "class names": lambda _, task, metric, seed: new_query(task) and many(task[0]),
    "query alone": lambda _, task, metric, seed: many(task[2]),
    "asked twice": lambda _, task, other, metric: not np.array_equal(task[0], other[0]),
    "episodes": lambda _, seed, lead, n_way, d: int(np.prod(lead)) > 1,
    "trains": lambda _, seed: True,
    "query order": lambda _, task, metric, seed: (
        many(task[2]) and not np.array_equal(task[2], task[2][shuffled(len(task[2]), seed)])
    ),
    "state": lambda _, seed, lead: bool(lead),
    "learned parts": lambda _, seed: True,
}

# ---------------------------------------------------------------- adapters and transforms


def odd_support(_: Any, support: Any, metric: str, normalize: str) -> bool:
    """All images equal, or one of every class."""
    images, labels = support
    return not many(images.reshape(len(images), -1)) or len(set(labels)) == len(labels)


def order_of_images(_: Any, support: Any, metric: str, seed: int) -> bool:
    images, labels = support
    return not np.array_equal(images, images[shuffled(len(labels), seed)])


ADAPTERS: dict[str, Callable[..., bool]] = {
    "finite": odd_support,
    "support order": order_of_images,
}


def several_images(_: Any, images: Array, **__: Any) -> bool:
    return len(images) > 1 and images.std() > 0


TRANSFORMS: dict[str, Callable[..., bool]] = {
    "shape": lambda _, images, seed: images.shape[1] != images.shape[2],
    "float32": several_images,
    "finite": several_images,
    "within range": several_images,
    "inputs untouched": several_images,
    "generator alone": several_images,
    "no memory": lambda _, images, other, seed: not np.array_equal(images, other),
    "image alone": lambda _, images, seed, kept: (
        len(images) > 1 and images[kept % len(images)].std() > 0
    ),
}

MIXERS: dict[str, Callable[..., bool]] = {
    "shape": lambda _, images, seed: images.shape[1] != images.shape[2],
    **dict.fromkeys(("float32", "within range", "inputs untouched", "shares"), several_images),
    "targets": several_images,
    "class names": lambda _, images, seed: len(images) > 1,
    "generator alone": lambda _, images, other, seed: not np.array_equal(images, other),
}

# ----------------------------------------------------------------------------- samplers


def any_draw(tried: Any, seed: int, index: int) -> bool:
    return all(len(plain.items) for _, (plain, _) in tried.some(seed, index))


def groups_meet(tried: Any, seed: int, index: int) -> bool:
    """A sampler that does not know of the groups breaks the law."""
    groups = _many()[1]
    return any(groups_fault(plain, groups) for _, (plain, _) in tried.some(seed, index))


def unlabelled_met(tried: Any, seed: int, index: int) -> bool:
    """A sampler to which -1 is a class breaks the law."""
    labels, groups = _many()
    careless = tried.make(labels + 1, groups)
    return any(unlabelled_fault(careless.draw(seed, index + i), labels) for i in range(3))


def a_class_left_out(tried: Any, seed: int, index: int) -> bool:
    draw = tried.plain.draw(seed, index)
    return len(set(draw.labels.tolist())) < draw.n_way


def roles_met(tried: Any, seed: int, index: int) -> bool:
    """A sampler that does not know of the roles breaks the law."""
    return roles_fault(tried.plain.draw(seed, index), some_roles(len(_many()[0]))) is not None


def delivers(tried: Any, given: tuple[Array, Array], grouped: bool, seed: int) -> bool:
    try:
        tried.make(given[0], given[1] if grouped else None)
    except DataError:
        return False
    return True


SAMPLERS: dict[str, Callable[..., bool]] = {
    "positions": any_draw,
    "unlabelled": unlabelled_met,
    "classes": any_draw,
    "all classes": a_class_left_out,
    "no image twice": any_draw,
    "groups apart": groups_meet,
    "any order": lambda _, seed, order: list(order) != sorted(order),
    "seed counts": lambda _, seed: True,
    "index counts": lambda _, seed, index: True,
    "refuses or delivers": delivers,
    "roles": roles_met,
    "blocks are the draws": lambda _, seed, count, grouped: count > 1,
}

# ---------------------------------------------------------------------------- observers


def a_figure_missing(_: Any, records: list[Any]) -> bool:
    """One is None, or not in every record."""
    return any(v is None for r in records for v in r.values()) or len({*map(len, records)}) > 1


OBSERVERS: dict[str, Callable[..., bool]] = {"any figures": a_figure_missing}

# -------------------------------------------------------------------------------- count

MINERS: dict[str, Callable[..., bool]] = {
    "shape": lambda _, batch: True,
    "traced": lambda _, batch: len(set(batch[1])) > 1,
    "batch order": batch_in_another_order,
    "class names": renamed,
    "asked twice": lambda _, batch, other: not np.array_equal(batch[0], other[0]),
    "inputs untouched": lambda _, batch: bool(batch[0].any()),
}

SCHEDULES: dict[str, Callable[..., bool]] = {
    "shape": lambda _, steps: steps > 1,
    "finite": lambda _, steps: steps > 1,
    "asked twice": lambda _, steps, step, other: step != other,
}

TELLING = {
    "schedule": SCHEDULES,
    "miner": MINERS,
    "metric": METRICS,
    "loss": LOSSES,
    "head": HEADS,
    "adapter": ADAPTERS,
    "transform": TRANSFORMS,
    "mixer": MIXERS,
    "sampler": SAMPLERS,
    "observer": OBSERVERS,
}
SUBJECTS = {
    "schedule": ["cosine"],
    "metric": ["euclidean", "cosine"],
    "loss": ["contrastive", "triplet", "prototypical", "soft-triple", "supcon"],
    "miner": ["batch-hard", "semi-hard"],
    "head": ["nearest-prototype", "lda", "bd-cspn"],
    "adapter": ["whiten"],
    "transform": ["colour"],
    "mixer": ["mixup", "cutmix"],
    "observer": ["tensorboard"],
    "sampler": ["all-pairs", "balanced", "episodes", "pairs", "proxies", "triplets"],
}


@cache
def subject(kind: str, name: str) -> Any:
    """What the laws of a kind try, of a built-in."""
    component = REGISTRY.get(kind, name).component
    return LAWS[kind].subject(component.factory, component.options())


CASES = [
    pytest.param(kind, name, law, id=f"{kind}-{name}-{law.name}")
    for kind, names in SUBJECTS.items()
    for name in names
    for law in LAWS[kind].laws
    # Learned parts are tried on what all parts are.
    if law.examples and (law.name == "learned parts" or law.when(subject(kind, name)))
]


def share(kind: str, name: str, law: Law) -> float:
    """The share of the examples `fewshot check` tries a component on that are telling."""
    found: list[bool] = []

    def count(tried: Any, **drawn: Any) -> None:
        found.append(TELLING[kind][law.name](tried, **drawn))

    outcome = evolve(law, holds=count).try_on(subject(kind, name), STEADY)
    assert outcome.example is None, outcome.example
    return sum(found) / len(found)


@pytest.mark.parametrize(("kind", "name", "law"), CASES)
def test_half_of_the_examples_of_a_law_can_break_it(kind: str, name: str, law: Law) -> None:
    assert share(kind, name, law) >= 0.5


def test_every_law_that_is_tried_on_examples_is_counted() -> None:
    drawn = {(kind, law.name) for kind in LAWS for law in LAWS[kind].laws if law.examples}
    assert drawn == {(kind, law) for kind, laws in TELLING.items() for law in laws}


def test_labels_of_too_little_are_among_those_a_sampler_may_refuse() -> None:
    (law,) = (law for law in LAWS["sampler"].laws if law.name == "refuses or delivers")
    assert all(share("sampler", name, law) <= 0.9 for name in SUBJECTS["sampler"])


def test_most_triples_of_every_lattice_are_three_points_and_many_have_one_between() -> None:
    for lattice in lattices():
        n = len(lattice)
        assert len(np.unique(lattice, axis=0)) == n
        assert (n - 1) * (n - 2) / n**2 >= 0.5  # of n³ triples, those of three places
    for lattice in lattices()[:-1]:
        held = {tuple(point) for point in lattice.tolist()}
        middles = (lattice[:, None] + lattice[None]).reshape(-1, lattice.shape[1]) / 2
        assert sum(tuple(point) in held for point in middles.tolist()) >= 2 * len(lattice)

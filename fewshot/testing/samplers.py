"""The laws of a sampler."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, get_args

import attrs
import numpy as np
from attrs import frozen
from hypothesis import strategies as st

from ..core.draws import Draw, DrawLayout, Episode, Ints, Labelled, Pairs, Roles, Triplets
from ..core.errors import DataError
from ..core.interfaces import Sampler
from ..core.options import NoOptions
from .laws import Kind, fail, first, law, laws_of, told, touches_global_random_numbers
from .strategies import around, indices, plenty, seeds

_DRAWS = dict(zip(get_args(DrawLayout), (Pairs, Triplets, Episode, Labelled), strict=True))
_FEWEST = (2, 4, 8, 12, 16, 20, 30, 60)

Make = Callable[[Ints, Ints | None], Sampler[Any]]


def check_sampler(factory: Callable[..., Sampler[Any]], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options, labels, groups)` breaks a law of a sampler."""
    KIND.check(factory, options)


def _many() -> tuple[Ints, Ints]:
    """Labels with gaps between the ids, of 32 classes, half of them at -1, and groups."""
    labels, groups = plenty(classes=32)
    return np.where(labels % 2 == 1, -1, 10 * labels + 3), groups


def same_draw(a: Draw, b: Draw) -> bool:
    """Whether two draws are equal in every array."""
    mine, yours = (attrs.asdict(x, recurse=False) for x in (a, b))
    return type(a) is type(b) and all(np.array_equal(mine[k], yours[k]) for k in mine)


def alike(draw: Draw) -> tuple[Ints, Ints]:
    """The images (n,), (n,) that a draw compares as being of one class."""
    if isinstance(draw, Pairs):
        return draw.items[draw.left[draw.same]], draw.items[draw.right[draw.same]]
    if isinstance(draw, Triplets):
        return draw.items[draw.anchor], draw.items[draw.positive]
    if isinstance(draw, Labelled):
        return draw.items[:0], draw.items[:0]
    of_one = draw.support_labels[:, None] == draw.query_labels
    s, q = np.nonzero(of_one)
    return draw.items[draw.support[s]], draw.items[draw.query[q]]


def _positions(draw: Draw) -> dict[str, Ints]:
    names = {Pairs: "left right", Triplets: "anchor positive negative", Episode: "support query"}
    return {name: getattr(draw, name) for name in names.get(type(draw), "").split()}


# -------------------------------------------- what is true of one draw; words for what is not


def indices_fault(draw: Draw, labels: Ints) -> str | None:
    """`items` are indices of images that exist; positions point into `items`."""
    wrong = draw.items[(draw.items < 0) | (draw.items >= len(labels))]
    if len(wrong):
        return f"image {wrong[0]} is drawn, of {len(labels)} images"
    for name, places in _positions(draw).items():
        outside = places[(places < 0) | (places >= len(draw.items))]
        if len(outside):
            return f"{name} points at item {outside[0]} of {len(draw.items)}"
    return None


def unlabelled_fault(draw: Draw, labels: Ints) -> str | None:
    """No image of the label -1."""
    wrong = draw.items[labels[draw.items] < 0]
    return f"image {wrong[0]} is drawn, whose label is -1" if len(wrong) else None


def classes_fault(draw: Draw, labels: Ints) -> str | None:
    """What the draw says of classes is what `labels` say."""
    of = labels[draw.items]
    if isinstance(draw, Pairs):
        at = first(draw.same != (of[draw.left] == of[draw.right]))
        if at:
            left, right = of[draw.left[at]], of[draw.right[at]]
            return f"a pair of classes {left} and {right} has same = {draw.same[at]}"
    elif isinstance(draw, Triplets):
        at = first(of[draw.anchor] != of[draw.positive])
        if at:
            return f"an anchor of class {of[draw.anchor[at]]} has a positive of another"
        at = first(of[draw.anchor] == of[draw.negative])
        if at:
            return f"an anchor of class {of[draw.anchor[at]]} has a negative of its own class"
    else:
        classes = np.array(draw.classes)
        if len(set(draw.classes)) != draw.n_way:
            return f"a class stands twice in classes = {draw.classes}"
        for side, actual, label in _said(draw, of):
            outside = label[(label < 0) | (label >= draw.n_way)]
            if len(outside):
                return f"a {side} image has the label {outside[0]}, of {draw.n_way} classes"
            at = first(classes[label] != actual)
            if at:
                named = classes[label][at]
                return f"a {side} image of class {actual[at]} is said to be of class {named}"
    return None


def _said(draw: Episode | Labelled, of: Ints) -> Iterator[tuple[str, Ints, Ints]]:
    """The sides of a draw: the classes (n,) of its images, and the labels it gives them."""
    if isinstance(draw, Labelled):
        yield "labelled", of, draw.labels
    else:
        yield "support", of[draw.support], draw.support_labels
        yield "query", of[draw.query], draw.query_labels


def repeats_fault(draw: Draw, labels: Ints) -> str | None:
    """No image is compared with itself; none is drawn twice for an episode or a batch."""
    if isinstance(draw, Episode | Labelled):
        images, counts = np.unique(draw.items, return_counts=True)
        if counts.max(initial=0) > 1:
            return f"image {images[counts > 1][0]} stands {counts.max()} times in a draw"
    if isinstance(draw, Episode):
        used = np.sort(np.concatenate([draw.support, draw.query]))
        if not np.array_equal(used, np.arange(len(draw.items))):
            return "an item is in support and query together not just once"
        return None
    one, other = alike(draw)
    at = first(one == other)
    return f"image {one[at]} is compared with itself" if at else None


def groups_fault(draw: Draw, groups: Ints) -> str | None:
    """Images that are compared as alike share no group."""
    one, other = alike(draw)
    at = first(groups[one] == groups[other])
    if at:
        sides = "support and query" if isinstance(draw, Episode) else "a pair alike"
        return f"images {one[at]} and {other[at]}, {sides}, are of one group, {groups[one[at]]}"
    return None


_FAULTS = (indices_fault, unlabelled_fault, classes_fault, repeats_fault)


def draw_fault(draw: Draw, labels: Ints, groups: Ints | None) -> str | None:
    """What is wrong with a draw of any layout; `groups` only where they are kept apart."""
    found = [fault(draw, labels) for fault in _FAULTS]
    found += [] if groups is None else [groups_fault(draw, groups)]
    return next((words for words in found if words), None)


# --------------------------------------------------------------------------------- laws


@frozen
class Tried:
    """How a sampler is made, two that were, without groups and with them, and their draws."""

    factory: Callable[..., Sampler[Any]]
    options: Any
    make: Make
    plain: Any
    grouped: Any
    draws: Callable[[int, int], tuple[Draw, Draw]]

    def some(self, seed: int, index: int) -> Iterator[tuple[int, tuple[Draw, Draw]]]:
        """The draws of three indices on: one alone seldom shows a fault of a small draw."""
        for each in range(index, index + 3):
            yield each, self.draws(seed, each)


def _subject(factory: Callable[..., Sampler[Any]], options: Any) -> Tried:
    make = partial(factory, options)
    labels, groups = _many()
    plain, grouped = make(labels, None), make(labels, groups)
    # Most laws look at the same draws.
    draws = lru_cache(1024)(
        lambda seed, index: (plain.draw(seed, index), grouped.draw(seed, index))
    )
    return Tried(factory, options, make, plain, grouped, draws)


def _require(fault: Callable[[Any, Ints], str | None], tried: Tried, seed: int, index: int) -> None:
    labels = _many()[0]
    for each, (plain, grouped) in tried.some(seed, index):
        words = fault(plain, labels) or fault(grouped, labels)
        if words:
            fail(f"{words}: draw({seed}, {each})")


@law()
def made(tried: Tried) -> None:
    """The factory makes a `Sampler` of a known layout."""
    sampler = tried.grouped
    if not isinstance(sampler, Sampler):
        fail(f"the factory returned {sampler!r}, which is no Sampler")
    if sampler.layout not in _DRAWS:
        fail(f"layout is '{sampler.layout}': it is one of {', '.join(_DRAWS)}")


@law()
def layout(tried: Tried) -> None:
    """A draw is the record of the layout: `Pairs`, `Triplets`, `Episode` or `Labelled`."""
    sampler = tried.grouped
    due, found = _DRAWS[sampler.layout], sampler.draw(0, 0)
    if type(found) is not due:
        fail(f"layout is '{sampler.layout}' and a draw {type(found).__name__}, not {due.__name__}")


@law(seed=seeds, index=indices)
def positions(tried: Tried, seed: int, index: int) -> None:
    """`items` are indices of images that exist; positions point into `items`."""
    _require(indices_fault, tried, seed, index)


@law(seed=seeds, index=indices)
def unlabelled(tried: Tried, seed: int, index: int) -> None:
    """An image labelled -1 (a class of another split) is never drawn."""
    _require(unlabelled_fault, tried, seed, index)


@law(seed=seeds, index=indices)
def classes(tried: Tried, seed: int, index: int) -> None:
    """What a draw says of classes is true, whatever numbers the labels are."""
    _require(classes_fault, tried, seed, index)


def _draws_labelled(tried: Tried) -> bool:
    return tried.grouped.layout == "labelled"


@law(when=_draws_labelled, seed=seeds, index=indices)
def all_classes(tried: Tried, seed: int, index: int) -> None:
    """Every draw of labelled images names all classes there are to learn, in one order."""
    due, found = tried.plain.draw(0, 0).classes, tried.plain.draw(seed, index).classes
    if found != due:
        fail(f"classes = {found} in draw({seed}, {index}), and {due} in draw(0, 0)")


@law(seed=seeds, index=indices)
def no_image_twice(tried: Tried, seed: int, index: int) -> None:
    """No image is compared with itself, on both sides of an episode, or twice in it or a batch."""
    _require(repeats_fault, tried, seed, index)


@law(when=lambda tried: not _draws_labelled(tried), seed=seeds, index=indices)
def groups_apart(tried: Tried, seed: int, index: int) -> None:
    """By default, images compared as alike, or as support and query of a class, share no group."""
    groups = _many()[1]
    for each, (_, grouped) in tried.some(seed, index):
        words = groups_fault(grouped, groups)
        if words:
            fail(f"{words}: draw({seed}, {each})")


@law(seed=seeds, order=st.permutations(range(5)))
def any_order(tried: Tried, seed: int, order: list[int]) -> None:
    """A draw is a function of (seed, index): the same in any order and of another sampler."""
    sampler, another = tried.grouped, tried.make(*_many())
    first_draws = {index: sampler.draw(seed, index) for index in order}
    for index in sorted(order):
        if not same_draw(another.draw(seed, index), first_draws[index]):
            fail(f"draw({seed}, {index}) is another after draws {order} than in order")


@law(seed=st.integers(0, 2**32 - 2))
def seed_counts(tried: Tried, seed: int) -> None:
    """Another seed gives another draw."""
    sampler = tried.grouped
    if np.array_equal(sampler.draw(seed, 0).items, sampler.draw(seed + 1, 0).items):
        fail(f"draw({seed}, 0) and draw({seed + 1}, 0) have the same images")


@law(seed=seeds, index=indices)
def index_counts(tried: Tried, seed: int, index: int) -> None:
    """Another index gives another draw."""
    sampler = tried.grouped
    found = {i: sampler.draw(seed, index + i).items for i in range(4)}
    for a, b in itertools.combinations(found, 2):
        if np.array_equal(found[a], found[b]):
            fail(f"draw({seed}, {index + a}) and draw({seed}, {index + b}) have the same images")


@law()
def global_random_numbers(tried: Tried) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    if touches_global_random_numbers(lambda: tried.make(*_many()).draw(0, 0)):
        fail("the state of `random` or `np.random` is another: fewshot.generator(seed, …) is due")


@law()
def inputs_untouched(tried: Tried) -> None:
    """Neither labels nor groups are changed."""
    labels, groups = _many()
    tried.make(labels, groups).draw(0, 0)
    for name, after, before in zip(("labels", "groups"), (labels, groups), _many(), strict=True):
        if not np.array_equal(after, before):
            fail(f"{name} are others after a draw")


def _around_enough(tried: Tried) -> st.SearchStrategy[tuple[Ints, Ints]]:
    """Labels of which the sampler can mostly draw."""
    return around(*_fewest(tried.make))


@law(given=_around_enough, grouped=st.booleans(), seed=seeds)
def refuses_or_delivers(tried: Tried, given: tuple[Ints, Ints], grouped: bool, seed: int) -> None:
    """Labels it cannot draw from (few classes, few images) are refused by a DataError at once."""
    labels, groups = given[0], given[1] if grouped else None
    try:
        sampler = tried.make(labels, groups)
    except DataError:
        return
    for index in range(3):
        words = draw_fault(sampler.draw(seed, index), labels, groups)
        if words:
            fail(f"{words}: draw({seed}, {index}) of labels {_counted(labels)}")


def _counted(labels: Ints) -> dict[int, int]:
    found, counts = np.unique(labels, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@law()
def no_image(tried: Tried) -> None:
    """Where no image is labelled, a DataError says so when the sampler is made."""
    labels, groups = _many()
    try:
        tried.make(np.full_like(labels, -1), groups)
    except DataError:
        return
    fail("labels that are all -1 are not refused")


@law()
def reaches_every_image(tried: Tried) -> None:
    """Every image is drawn sooner or later."""
    labels = _uniform(16, _fewest(tried.make)[1])
    sampler = tried.make(labels, None)
    met, drawn = np.zeros(len(labels), bool), 0
    for index in itertools.count():
        items = sampler.draw(0, index).items
        met[items] = True
        drawn += len(items)
        if met.all() or drawn > 40 * len(labels) or not len(items):
            break
    if not met.all():
        never = np.flatnonzero(~met)
        fail(
            f"{index + 1} draws of {drawn} images in all met none of {len(never)} of "
            f"{len(labels)} images: {told(images=never[:5], labels=labels[never[:5]])}"
        )


def _uniform(classes: int, per_class: int) -> Ints:
    """Labels of as many images of every class, in no order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(classes), per_class))


def _fewest(make: Make) -> tuple[int, int]:
    """About how many classes, of how many images, the sampler needs."""

    def takes(classes: int, per_class: int) -> bool:
        try:
            make(_uniform(classes, per_class), None)
        except DataError:
            return False
        return True

    per_class = next((n for n in _FEWEST if takes(16, n)), _FEWEST[-1])
    return next((n for n in range(1, 16) if takes(n, per_class)), 16), per_class


def _draws_episodes(tried: Tried) -> bool:
    return bool(tried.plain.layout == "episode")


_counts = st.sampled_from([2, 3, 4, 5, 7, 9, 1, 300])


@law(when=_draws_episodes, seed=seeds, count=_counts, grouped=st.booleans())
def blocks_are_the_draws(tried: Tried, seed: int, count: int, grouped: bool) -> None:
    """`blocks(seed, count)` are draws 0..count-1, in order."""
    sampler = tried.grouped if grouped else tried.plain
    blocks = list(sampler.blocks(seed, count))
    ends = np.cumsum([len(block) for block in blocks])
    if ends[-1:].sum() != count:
        fail(f"blocks({seed}, {count}) hold {ends[-1:].sum()} episodes")
    begun = [*zip(blocks, ends - [len(block) for block in blocks], strict=True)]
    for block, begin in begun if len(begun) < 10 else begun[:9] + begun[-1:]:
        for i in sorted({*range(min(9, len(block))), len(block) - 1}):
            if not same_draw(block.episode(i), sampler.draw(seed, begin + i)):
                fail(f"episode {begin + i} of blocks({seed}, {count}) is not that draw")


def roles_fault(draw: Episode, role: Roles) -> str | None:
    """Support and queries are of images that may be that."""
    for side, other in (("support", "query"), ("query", "support")):
        items = draw.items[getattr(draw, side)]
        wrong = items[role[items] == other]
        if len(wrong):
            return f"image {wrong[0]}, whose role is {other}, is {side}"
    return None


def some_roles(n: int) -> Roles:
    """A sixth of the images support alone, a sixth queries alone."""
    return np.array(["support", "query", "both", "both", "both", "both"])[np.arange(n) % 6]


def _knows_roles(tried: Tried) -> bool:
    takes = inspect.signature(tried.make).parameters
    return tried.plain.layout == "episode" and "role" in takes


@law(when=_knows_roles, seed=seeds, index=indices)
def roles(tried: Tried, seed: int, index: int) -> None:
    """Where the factory takes `role`, support and queries are images that may be such."""
    labels, groups = _many()
    role = some_roles(len(labels))
    for used in (None, groups):
        make: Callable[..., Sampler[Any]] = tried.make
        words = roles_fault(make(labels, used, role=role).draw(seed, index), role)
        if words:
            fail(f"{words}: draw({seed}, {index})")


def _has(option: str) -> Callable[[Tried], bool]:
    return lambda tried: hasattr(tried.options, option)


@law(when=_has("within"))
def one_parent(tried: Tried) -> None:
    """With the option within = parent, a draw keeps to one parent's classes, and each comes up."""
    classes, per_class = _fewest(tried.make)
    labels = _uniform(2 * classes, per_class)
    parents = tuple("ab"[c % 2] for c in range(2 * classes))
    make = partial(tried.factory, attrs.evolve(tried.options, within="parent"))
    try:
        make(labels)
    except DataError:
        pass
    else:
        fail("within = parent is not refused where nothing is said of parents")
    sampler, met = make(labels, parents=parents), set[str]()
    for index in range(40):
        of = {parents[c] for c in labels[sampler.draw(0, index).items]}
        if len(of) > 1:
            fail(f"within = parent, but draw(0, {index}) has classes of the parents {sorted(of)}")
        met |= of
    if met != set(parents):
        fail(f"40 draws within = parent met only the parent {met}, of {sorted(set(parents))}")


@law(when=_has("replacement"))
def drawn_again(tried: Tried) -> None:
    """With the option replacement, small classes give as many images, each about as often."""
    sizes = np.array([1, 2, 3, 60])
    labels = np.repeat(np.arange(4), sizes)
    sampler = tried.factory(attrs.evolve(tried.options, replacement=True), labels)
    for index in range(8):
        counts = np.bincount(sampler.draw(0, index).items, minlength=len(labels))
        of_class = np.bincount(labels, counts)
        if len(set(of_class[of_class > 0])) > 1:
            fail(f"draw(0, {index}) has {of_class.tolist()} images of classes of {sizes.tolist()}")
        for c in np.flatnonzero(of_class):
            own = counts[labels == c]
            if own.max() > own.min() + 1:
                fail(f"draw(0, {index}) has the images of a class {own.tolist()} times")


KIND = Kind("sampler", _subject, laws_of(globals()))

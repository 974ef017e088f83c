"""What a run would see in a data set, class by class, and what is wrong with it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from attrs import frozen

from ..core.errors import DataError
from ..core.interfaces import Dataset
from .episode_files import image_names
from .folders import ImageFiles
from .parallel import on_all_cores

_SHOWN = 10  # of one kind of finding
_LARGE = 12_000_000  # pixels: about 0.1 s to decode
_UNLIKE = 1.5  # the longer side to the shorter, from which squeezing to a square shows


@frozen
class ClassSeen:
    """One class: images, how many cannot be read or are copies of another in it, their sizes.

    `smallest`, `largest`: (width, height) of the image of fewest and most pixels, None where none
    can be read. `groups`: None where the data set has none.
    """

    name: str
    images: int
    unreadable: int
    copies: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    groups: int | None


class Survey(NamedTuple):
    """`faults`: what a run refuses. `hints`: what it takes, but may be worth mending."""

    classes: list[ClassSeen]
    faults: list[str]
    hints: list[str]


class _Seen(NamedTuple):
    digest: bytes
    width: int
    height: int
    notes: tuple[str, ...] = ()


def survey(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Read every image, on all cores, as a run does."""
    seen: list[_Seen | str] = [""] * len(dataset.labels)

    def look(i: int) -> _Seen | str:
        try:
            return _look(dataset, i)
        except DataError as error:
            return str(error)

    on_all_cores(look, range(len(seen)), seen.__setitem__, progress)
    names = image_names(dataset)
    of_class: list[list[int]] = [[] for _ in dataset.classes]
    for i, label in enumerate(dataset.labels):
        of_class[label].append(i)
    classes = [
        _class_seen(dataset, name, ids, [seen[i] for i in ids])
        for name, ids in zip(dataset.classes, of_class, strict=True)
    ]
    faults = _some([f"{why}; replace or remove it" for why in seen if isinstance(why, str)])
    readable = {i: s for i, s in enumerate(seen) if isinstance(s, _Seen)}
    changed = Counter(note for each in readable.values() for note in each.notes)
    hints = [
        *getattr(dataset, "notes", ()),
        *(f"images that are {note}: {n}" for note, n in changed.most_common()),
        *_copies(classes, dataset, names, {i: s.digest for i, s in readable.items()}),
        *_same_but_for_case(dataset, names),
        *(_sizes(list(readable.values()), dataset.size) if isinstance(dataset, ImageFiles) else ()),
    ]
    return Survey(classes, faults, hints)


def _look(dataset: Dataset, i: int) -> _Seen:
    if isinstance(dataset, ImageFiles):
        decoded = dataset.read(i)
        return _Seen(decoded.sha256, decoded.width, decoded.height, decoded.notes)
    image = dataset[i]
    return _Seen(sha256(np.ascontiguousarray(image).data).digest(), image.shape[1], image.shape[0])


def _class_seen(
    dataset: Dataset, name: str, ids: Sequence[int], seen: Sequence[_Seen | str]
) -> ClassSeen:
    readable = [each for each in seen if isinstance(each, _Seen)]
    sizes = sorted(((s.width, s.height) for s in readable), key=lambda size: size[0] * size[1])
    return ClassSeen(
        name,
        images=len(ids),
        unreadable=len(seen) - len(readable),
        copies=len(readable) - len({each.digest for each in readable}),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        groups=None if dataset.groups is None else len(np.unique(dataset.groups[list(ids)])),
    )


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more} more like the last"] if more > 0 else [])]


def _copies(
    classes: Iterable[ClassSeen], dataset: Dataset, names: Sequence[str], digests: dict[int, bytes]
) -> Iterator[str]:
    copies = sum(each.copies for each in classes)
    if copies:
        yield (
            f"copies of another image of their class: {copies}; as support and query at once "
            "they flatter every figure: remove them"
        )
    first: dict[bytes, int] = {}
    lines = []
    for i, digest in digests.items():
        j = first.setdefault(digest, i)
        if dataset.labels[i] != dataset.labels[j]:
            lines.append(f"{names[j]} and {names[i]} are one picture in two classes: remove one")
    yield from _some(lines)


def _same_but_for_case(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Classes, and images of one class, of which a Mac's or Windows' disk keeps one."""
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in dataset.classes:
        alike[-1, name.casefold()].append(name)
    for label, name in zip(dataset.labels.tolist(), names, strict=True):
        alike[label, name.casefold()].append(name)
    return _some(
        [
            f"{' and '.join(group)} differ only in case, and a Mac or Windows keeps one of them: "
            "rename or merge"
            for group in alike.values()
            if len(set(group)) > 1
        ]
    )


def _sizes(seen: Sequence[_Seen], size: int) -> Iterator[str]:
    small = sum(max(s.width, s.height) < size for s in seen)
    long = sum(max(s.width, s.height) >= _UNLIKE * min(s.width, s.height) for s in seen)
    large = sum(s.width * s.height > _LARGE for s in seen)
    if small:
        yield f"images smaller than the {size}x{size} they are scaled to: {small}"
    if long:
        yield f"images far from square, squeezed to {size}x{size}: {long}; crop them"
    if large:
        yield (
            f"images of over {_LARGE // 1_000_000} million pixels: {large}; the first run decodes "
            "them slowly: scale them down"
        )

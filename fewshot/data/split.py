"""Which classes train, which decide when to stop, which test."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
from attrs import evolve, field, frozen

from ..core.draws import Ints
from ..core.errors import DataError, choose_from
from ..core.interfaces import Dataset
from ..core.options import as_names, at_least, option, share
from ..core.reading import home, read_toml
from ..core.seeding import generator


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


@frozen
class SplitOptions:
    """How classes become train, validation and test; nothing given: the dataset's own split."""

    train: tuple[str, ...] | None = option(None, "names of the training classes")
    val: tuple[str, ...] | None = option(None, "names of the validation classes; []: none")
    test: tuple[str, ...] | None = option(None, "names of the test classes")
    file: str | None = option(None, "a TOML file with the three lists train, val, test")
    draw: bool = option(False, "draw by fractions even where the data set has its own split")
    val_fraction: float = option(0.2, "share of the classes, in a drawn split", share)
    test_fraction: float = option(0.2, "share of the classes, in a drawn split", share)
    seed: int = option(0, "seed of the draw by fractions", at_least(0))
    too_small: Literal["refuse", "leave-out"] = option(
        "refuse", "what to do with a class of fewer images than `min_images`"
    )
    min_images: int = option(2, "fewest images a class must have", at_least(1))


def split_classes(
    dataset: Dataset, options: SplitOptions = SplitOptions(), training: bool = True
) -> ClassSplit:
    """The class split the options ask for: by names, from a file, the dataset's, or fractions.

    Where only validation or test classes are named, all others are for training; where all that is
    said is that a part is empty, it is, and validation classes are then for training. Classes below
    `min_images` are refused or left out, as `too_small` says. Without `training` no class need be
    for it, and where neither options nor dataset say which are for test, all are. Raises DataError
    for names the dataset does not have, for overlap and for no training or test class.
    """
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    small = {
        name: int(n)
        for name, n in zip(dataset.classes, counts, strict=True)
        if n < options.min_images
    }
    if small and options.too_small == "refuse":
        listed = ", ".join(f"'{name}' ({n})" for name, n in small.items())
        raise DataError(
            f"classes with fewer than {options.min_images} images: {listed}; add images or leave "
            "them out with --set split.too_small=leave-out"
        )
    own = getattr(dataset, "split", None)
    empty = [part for part in ("train", "val", "test") if getattr(options, part) == ()]
    if options.train or options.val or options.test:
        if options.file is not None:
            raise DataError("a class split by names and one from a file exclude each other")
        held_out = {*(options.val or ()), *(options.test or ())}
        rest = [c for c in dataset.classes if c not in held_out and c not in small]
        mine = rest if options.train is None else options.train
        split = ClassSplit(mine, options.val or (), options.test or ())
    elif options.file is not None:
        split = _emptied(_read_split(home(options.file)), empty)
    elif own is not None and not options.draw:
        split = _emptied(own, empty)
    else:
        kept = [c for c in dataset.classes if c not in small]
        silent = SplitOptions(too_small=options.too_small, min_images=options.min_images)
        every = not training and evolve(options, train=None, val=None) == silent
        drawn = ClassSplit((), (), kept) if every else _draw_split(kept, options)
        split = _emptied(drawn, empty)
    for part in (split.train, split.val, split.test):
        for name in part:
            if name not in dataset.classes:
                raise DataError(
                    f"class split names '{name}', which the dataset does not have: "
                    f"{choose_from(name, dataset.classes)}"
                )
    train, val, test = (
        [c for c in part if c not in small] for part in (split.train, split.val, split.test)
    )
    if not training and (not test or len(train) + len(val) + len(test) < 2):
        raise DataError(
            f"an examination needs 2 classes, of which 1 is for test; here are "
            f"{len(train) + len(val) + len(test)} and {len(test)}"
        )
    if training and (len(train) < 2 or not test):
        raise DataError(
            f"a class split needs at least 2 train classes and 1 test class, this one has "
            f"{len(train)} and {len(test)}; name them with --set split.train and split.test"
        )
    return ClassSplit(train, val, test)


def _emptied(split: ClassSplit, parts: Sequence[str]) -> ClassSplit:
    """Without the classes of some parts, but for validation's, which are for training then."""
    if "val" in parts:
        split = ClassSplit((*split.train, *split.val), (), split.test)
    return evolve(split, **dict.fromkeys(parts, ()))


def _read_split(path: Path) -> ClassSplit:
    parts = read_toml(path, DataError)
    for name, names in parts.items():
        if name not in ("train", "val", "test"):
            way_out = choose_from(name, ("train", "val", "test"))
            raise DataError(f"{path}: no list '{name}' in a class split: {way_out}")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise DataError(f"{path}: '{name}' must be a list of class names")
    try:
        return ClassSplit(*(parts.get(name, ()) for name in ("train", "val", "test")))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _draw_split(classes: Sequence[str], options: SplitOptions) -> ClassSplit:
    """By fractions: at least one test class, and two to train on before any to validate."""
    order = [classes[i] for i in generator(options.seed, "split").permutation(len(classes))]
    n_test = max(1, round(len(order) * options.test_fraction))
    wanted = round(len(order) * options.val_fraction)
    n_val = max(0, min(wanted, len(order) - n_test - 2))  # two classes are left to train on
    test, val, train = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    return ClassSplit(sorted(train), sorted(val), sorted(test))


def one_for_test(split: ClassSplit) -> str | None:
    """What is to be said where a single class is for test; else None."""
    if len(split.test) != 1:
        return None
    return (
        f"one test class only, '{split.test[0]}': the figures say nothing of others; "
        "--set split.draw=true --set split.test_fraction=0.3, or more classes"
    )


def named(options: SplitOptions, split: ClassSplit) -> SplitOptions:
    """The split by its names, so that it stays what it was when the data or defaults change."""
    return evolve(options, **attrs.asdict(split, recurse=False), file=None, draw=False)


def class_ids(dataset: Dataset, names: Iterable[str]) -> list[int]:
    """Ids of the named classes."""
    return [dataset.classes.index(name) for name in names]


def only(labels: Ints, ids: Iterable[int]) -> Ints:
    """Labels with every class but these at -1, which no sampler draws."""
    return np.where(np.isin(labels, list(ids)), labels, -1)

"""The laws of a data set, tried on a few of its images."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..core.draws import ROLES, Ints
from ..core.interfaces import Dataset
from ..core.options import NoOptions
from ..data.split import ClassSplit
from .laws import Kind, fail, law, laws_of, touches_global_random_numbers

# Images that are read, evenly spread; a data set of no more than `_WHOLE` is loaded whole.
_FEW, _WHOLE = 12, 500

_PARTS = ("classes", "labels", "groups", "__getitem__")


def check_dataset(factory: Callable[[Any], Dataset], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a data set.

    Raises the DataError with which the factory says that the data are not here.
    """
    KIND.check(factory, options)


@frozen
class Tried:
    """How to make a data set, and one that was made."""

    make: Callable[[], Any]
    data: Any

    @property
    def few(self) -> list[int]:
        """The first image, the last, and some between."""
        n = len(self.data.labels)
        return np.unique(np.linspace(0, n - 1, min(n, _FEW)).astype(int)).tolist()

    def optional(self, name: str) -> Any:
        """What only some data sets have, or None."""
        return getattr(self.data, name, None)


def _subject(factory: Callable[[Any], Dataset], options: Any) -> Tried:
    make = partial(factory, options)
    return Tried(make, make())


def _ids_fault(name: str, values: Any, n: int) -> str | None:
    if not isinstance(values, np.ndarray) or values.dtype != np.int64 or values.ndim != 1:
        what = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else repr(values)
        return f"{name} are {what[:80]}, where an int64 vector is due"
    if len(values) != n:
        return f"there are {n} labels and {len(values)} {name}"
    return None


@law()
def made(tried: Tried) -> None:
    """The factory makes a `Dataset`: `classes`, `labels`, `groups` and items, with an image."""
    missing = [name for name in _PARTS if not hasattr(tried.data, name)]
    if missing:
        fail(f"the factory returned {type(tried.data).__name__}, which has no {missing[0]}")
    if len(tried.data.labels) == 0:
        fail("it has no images")


@law()
def labels(tried: Tried) -> None:
    """`labels` is an int64 vector."""
    found = tried.data.labels
    words = _ids_fault("labels", found, len(found))
    if words:
        fail(words)


@law()
def labels_are_classes(tried: Tried) -> None:
    """A label is a position in `classes`: 0 to the number of classes - 1."""
    found, n = np.asarray(tried.data.labels), len(tried.data.classes)
    wrong = found[(found < 0) | (found >= n)]
    if len(wrong):
        fail(f"a label is {wrong[0]}, there are {n} classes")


@law()
def classes(tried: Tried) -> None:
    """`classes` is a tuple of different names (str)."""
    found = tried.data.classes
    if not isinstance(found, tuple) or not all(isinstance(name, str) for name in found):
        fail(f"classes are {found!r:.80}, where a tuple of str is due")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        fail(f"'{twice[0]}' is the name of {found.count(twice[0])} classes")


@law()
def every_class_has_images(tried: Tried) -> None:
    """Every class has an image: leave others out."""
    there = set(np.asarray(tried.data.labels).tolist())
    empty = [name for i, name in enumerate(tried.data.classes) if i not in there]
    if empty:
        fail(f"class '{empty[0]}' has no image ({len(empty)} such)")


@law()
def groups(tried: Tried) -> None:
    """`groups` is None or an int64 vector, one for every image."""
    found = tried.data.groups
    words = None if found is None else _ids_fault("groups", found, len(tried.data.labels))
    if words:
        fail(words)


@law()
def an_image_for_every_label(tried: Tried) -> None:
    """There is an image for every label, the last one too."""
    n = len(tried.data.labels)
    for index in (0, n - 1):
        try:
            tried.data[index]
        except (IndexError, KeyError) as error:
            fail(f"there are {n} labels, but item {index} is {type(error).__name__}: {error}")
    length = getattr(tried.data, "__len__", None)
    if length is not None and length() != n:
        fail(f"there are {n} labels, but len(…) is {length()}")


@law()
def images(tried: Tried) -> None:
    """An item is an array (h, w, c) of uint8."""
    for index in tried.few:
        image = tried.data[index]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            what = (
                f"{image.dtype} {image.shape}"
                if isinstance(image, np.ndarray)
                else type(image).__name__
            )
            fail(f"image {index} is {what}, where uint8 (h, w, c) is due")


@law()
def one_size(tried: Tried) -> None:
    """All images are of one size."""
    sizes = {index: np.shape(tried.data[index]) for index in tried.few}
    index, other = tried.few[0], next((i for i in sizes if sizes[i] != sizes[tried.few[0]]), None)
    if other is not None:
        fail(f"image {index} is {sizes[index]}, image {other} {sizes[other]}")


@law()
def images_differ(tried: Tried) -> None:
    """Not all items are one image."""
    found = [np.asarray(tried.data[index]) for index in tried.few]
    if len(found) > 1 and all(np.array_equal(found[0], image) for image in found):
        fail(f"items {tried.few} are all the same")


@law()
def read_again(tried: Tried) -> None:
    """An item is the same whenever, in whatever order and from whichever instance it is read."""
    once = {index: np.array(tried.data[index]) for index in tried.few}
    another = tried.make()
    for data, what in ((tried.data, "read again"), (another, "of another made alike")):
        for index in reversed(tried.few):
            if not np.array_equal(data[index], once[index]):
                fail(f"image {index} {what} is another")


@law()
def labels_stay(tried: Tried) -> None:
    """Labels, classes and groups stay what they are, the same in every instance."""
    before = [np.array(getattr(tried.data, name)) for name in _PARTS[:3]]
    for index in tried.few:
        tried.data[index]
    for data, what in ((tried.data, "after reading images"), (tried.make(), "made again")):
        for name, value in zip(_PARTS[:3], before, strict=True):
            if not np.array_equal(np.array(getattr(data, name)), value):
                fail(f"{name} are others {what}")


@law()
def threads(tried: Tried) -> None:
    """Many threads may read at once, as decoding does."""
    alone = [np.array(tried.data[index]) for index in tried.few]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(tried.data.__getitem__, tried.few * 4))
    wrong = [
        index
        for index, image, due in zip(tried.few * 4, together, alone * 4, strict=True)
        if not np.array_equal(image, due)
    ]
    if wrong:
        fail(f"image {wrong[0]} is another where 8 threads read")


@law()
def global_random_numbers(tried: Tried) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    if touches_global_random_numbers(lambda: tried.make()[tried.few[0]]):
        fail("the state of `random` or `np.random` is another: fewshot.generator(seed, …) is due")


# ---------------------------------------------------------------------- what only some of them have


def _has(name: str) -> Callable[[Tried], bool]:
    return lambda tried: tried.optional(name) is not None


@law(when=_has("split"))
def split(tried: Tried) -> None:
    """`split` is a `ClassSplit` of classes that there are."""
    found = tried.optional("split")
    if not isinstance(found, ClassSplit):
        fail(f"split is {found!r:.80}, where a ClassSplit is due")
    named = {*found.train, *found.val, *found.test}
    unknown = sorted(named - set(tried.data.classes))
    if unknown:
        fail(f"split names '{unknown[0]}', which is no class")


def _words(tried: Tried, name: str) -> np.ndarray[Any, np.dtype[np.str_]]:
    """An attribute that says a word of every image."""
    found, n = tried.optional(name), len(tried.data.labels)
    if not isinstance(found, np.ndarray) or found.dtype.kind != "U" or found.ndim != 1:
        fail(f"{name} is {found!r:.80}, where a vector of str is due")
    if len(found) != n:
        fail(f"there are {n} labels and {len(found)} {name}s")
    return found


@law(when=_has("role"))
def role(tried: Tried) -> None:
    """`role` says of every image "support", "query" or "both", as an array of str."""
    found = _words(tried, "role")
    wrong = found[~np.isin(found, ROLES)]
    if len(wrong):
        fail(f"a role is '{wrong[0]}': each is one of {', '.join(ROLES)}")


@law(when=_has("source"))
def source(tried: Tried) -> None:
    """`source` says of every image whom or where it is from, as an array of str."""
    _words(tried, "source")


@law(when=_has("parents"))
def parents(tried: Tried) -> None:
    """`parents` says of every class what it belongs to, by name."""
    found, n = tried.optional("parents"), len(tried.data.classes)
    if isinstance(found, str) or not all(isinstance(name, str) for name in found):
        fail(f"parents are {found!r:.80}, where a name of each class is due")
    if len(found) != n:
        fail(f"there are {n} classes and {len(found)} parents")


@law(when=_has("names"))
def names(tried: Tried) -> None:
    """`names` has a different name for every image, by which episodes are written down."""
    found, n = list(tried.optional("names")), len(tried.data.labels)
    if len(found) != n:
        fail(f"there are {n} labels and {len(found)} names")
    seen: set[str] = set()
    for name in found:
        if name in seen:
            fail(f"two images are called '{name}'")
        seen.add(name)


def _is_small(tried: Tried) -> bool:
    return tried.optional("load") is not None and len(tried.data.labels) <= _WHOLE


@law(when=_is_small)
def load(tried: Tried) -> None:
    """`load(progress)` gives all items as one array (tried on data sets of 500 images or fewer)."""
    found: NDArray[np.uint8] = tried.data.load(None)
    n: Ints = tried.data.labels
    if len(found) != len(n):
        fail(f"there are {len(n)} labels, and load gives {len(found)} images")
    for index in tried.few:
        if not np.array_equal(found[index], tried.data[index]):
            fail(f"image {index} is another by load(…)[{index}]")


KIND = Kind("dataset", _subject, laws_of(globals()))

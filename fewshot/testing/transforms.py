"""The laws of a transform."""

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen
from hypothesis import strategies as st

from ..core.errors import ConfigError
from ..core.interfaces import Transform
from ..core.options import NoOptions
from .laws import ULP, Kind, fail, first, law, laws_of, told, touches_global_random_numbers
from .strategies import Floats, batches, seeds

TOLERANCE = 16 * ULP  # a few float32 operations on values of at most 1

_SHOWN_AT = (8, 8)


def check_transform(factory: Callable[[Any], Transform], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a transform."""
    KIND.check(factory, options)


def transformed(transform: Transform, images: Floats, seed: int = 0) -> Floats:
    """The images by a generator of that seed."""
    return transform(images, np.random.default_rng(seed))


def _noise(count: int, channels: int) -> Floats:
    """One image of noise, `count` times."""
    one = np.random.default_rng(0).random((1, *_SHOWN_AT, channels), np.float32)
    return np.repeat(one, count, axis=0)


@frozen
class Tried:
    """A transform, and the numbers of channels that it takes."""

    transform: Transform
    channels: tuple[int, ...]

    @property
    def is_random(self) -> bool:
        """Whether it makes another image of another generator."""
        images = _noise(32, self.channels[0])
        one, other = (transformed(self.transform, images, seed) for seed in (0, 1))
        return not np.array_equal(one, other)


def _subject(factory: Callable[[Any], Transform], options: Any) -> Tried:
    transform = factory(options)
    if not callable(transform):
        return Tried(transform, ())
    taken, refused = [], None
    for channels in (3, 1, 2, 4):
        try:
            transformed(transform, _noise(1, channels))
        except ConfigError as error:  # as normalise refuses another number of channels
            refused = error
        except Exception:
            taken.append(channels)  # for the laws to say
        else:
            taken.append(channels)
    if not taken and refused is not None:
        raise refused
    return Tried(transform, tuple(taken))


def _images(tried: Tried) -> st.SearchStrategy[Floats]:
    return batches(tried.channels)


@law()
def made(tried: Tried) -> None:
    """The factory makes a function of a batch of images and a generator that gives an array."""
    if not callable(tried.transform):
        fail(f"the factory returned {tried.transform!r}, which cannot be called")
    found = transformed(tried.transform, _noise(2, tried.channels[0]))
    if not isinstance(found, np.ndarray):
        fail(f"a batch became {type(found).__name__}, where a NumPy array is due")


@law(images=_images, seed=seeds)
def shape(tried: Tried, images: Floats, seed: int) -> None:
    """A batch keeps its shape (b, h, w, c), of any size."""
    found = transformed(tried.transform, images, seed).shape
    if found != images.shape:
        fail(f"{images.shape} became {found} for {told(seed=seed)}")


@law(images=_images, seed=seeds)
def float32(tried: Tried, images: Floats, seed: int) -> None:
    """float32 in, float32 out."""
    found = transformed(tried.transform, images, seed).dtype
    if found != np.float32:
        fail(f"images of {images.shape} became {found}")


@law(images=_images, seed=seeds)
def finite(tried: Tried, images: Floats, seed: int) -> None:
    """Every value is finite, of images in one colour too."""
    for batch in (images, np.zeros_like(images), np.ones_like(images)):
        found = transformed(tried.transform, batch, seed)
        if not np.isfinite(found).all():
            fail(f"a value is {found[~np.isfinite(found)][0]} for {told(images=batch, seed=seed)}")


@law(when=lambda tried: tried.is_random, images=_images, seed=seeds)
def within_range(tried: Tried, images: Floats, seed: int) -> None:
    """A random transform stays in [0, 1]; a fixed one (`preprocess`) may leave it."""
    found = transformed(tried.transform, images, seed)
    wrong = first((found < -TOLERANCE) | (found > 1 + TOLERANCE))
    if wrong:
        fail(f"{images[wrong]} became {found[wrong]} for {told(images=images, seed=seed)}")


@law(images=_images, seed=seeds)
def inputs_untouched(tried: Tried, images: Floats, seed: int) -> None:
    """The images given are not changed."""
    before = images.copy()
    transformed(tried.transform, images, seed)
    changed = first(images != before)
    if changed:
        fail(f"a pixel was {before[changed]} and is {images[changed]}: work on a copy")


@law(images=_images, seed=seeds)
def generator_alone(tried: Tried, images: Floats, seed: int) -> None:
    """All random numbers are from the generator given: the same state, the same batch."""
    once, again = (transformed(tried.transform, images, seed) for _ in range(2))
    if not np.array_equal(once, again):
        fail(f"asked twice with {told(seed=seed)}, it gave two batches (np.random, or a state?)")


@law(images=_images, other=_images, seed=seeds)
def no_memory(tried: Tried, images: Floats, other: Floats, seed: int) -> None:
    """What was transformed before does not matter."""
    once = transformed(tried.transform, images, seed)
    transformed(tried.transform, other, seed)
    if not np.array_equal(once, transformed(tried.transform, images, seed)):
        fail(f"after a batch {other.shape}, a batch {images.shape} is transformed otherwise")


@law()
def global_random_numbers(tried: Tried) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    images = _noise(4, tried.channels[0])
    if touches_global_random_numbers(lambda: transformed(tried.transform, images)):
        fail("the state of `random` or `np.random` is another: draw from the generator given")


@law(when=lambda tried: tried.is_random)
def own_numbers(tried: Tried) -> None:
    """Every image of a batch draws its own numbers."""
    found = transformed(tried.transform, _noise(32, tried.channels[0]))
    if len(np.unique(found.reshape(32, -1), axis=0)) == 1:
        fail("32 copies of an image became 32 equal images")


@law(images=_images, seed=seeds, kept=st.integers(0, 3))
def image_alone(tried: Tried, images: Floats, seed: int, kept: int) -> None:
    """An image does not depend on the others of its batch."""
    kept %= len(images)
    others = 1 - images
    others[kept] = images[kept]
    here, there = (transformed(tried.transform, b, seed)[kept] for b in (images, others))
    at = first(~(np.abs(here - there) <= TOLERANCE))
    if at:
        fail(
            f"image {kept} of {len(images)} has a pixel {here[at]}, but {there[at]} among other "
            f"images, for {told(seed=seed)}"
        )


KIND = Kind("transform", _subject, laws_of(globals()))

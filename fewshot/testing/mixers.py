"""The laws of a mixer."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.interfaces import Mixer
from ..core.options import NoOptions
from .laws import ULP, Kind, fail, first, law, laws_of, told, touches_global_random_numbers
from .strategies import Floats, batches, seeds, shuffled

TOLERANCE = 64 * ULP  # a few float32 operations, and a mean over pixels, of values of at most 1

_CLASSES = 5


def check_mixer(factory: Callable[[Any], Mixer], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a mixer."""
    KIND.check(factory, options)


def targets_of(images: Floats, seed: int) -> Floats:
    """Targets (b, 5) of a batch: one 1 in every row."""
    labels = np.random.default_rng(seed).integers(_CLASSES, size=len(images))
    return np.eye(_CLASSES, dtype=np.float32)[labels]


def mixed(mixer: Mixer, images: Floats, targets: Floats, seed: int) -> tuple[Floats, Floats]:
    """Images and targets by a generator of that seed."""
    assert mixer.mix is not None
    return mixer.mix(images, targets, np.random.default_rng(seed))


def _of(mixer: Mixer, images: Floats, seed: int) -> tuple[Floats, Floats]:
    return mixed(mixer, images, targets_of(images, seed), seed)


def _noise(count: int) -> Floats:
    return np.random.default_rng(0).random((count, 8, 8, 3), np.float32)


def _mixes(mixer: Mixer) -> bool:
    return mixer.mix is not None


@law()
def made(mixer: Any) -> None:
    """The factory makes a `Mixer`: None, or a function that gives two arrays."""
    if not isinstance(mixer, Mixer):
        fail(f"the factory returned {mixer!r}, which is no Mixer")
    if mixer.mix is None:
        return
    if not callable(mixer.mix):
        fail(f"mix = {mixer.mix!r}: a function is due, or None")
    found: Any = _of(mixer, _noise(2), 0)
    if not isinstance(found, tuple) or [*map(type, found)] != [np.ndarray] * 2:
        fail(f"a batch became {type(found).__name__}, where a tuple of two NumPy arrays is due")


@law(when=_mixes, images=batches(), seed=seeds)
def shape(mixer: Mixer, images: Floats, seed: int) -> None:
    """Images (b, h, w, c) of any size and targets (b, n_way) keep their shapes."""
    found, due = _of(mixer, images, seed), (images, targets_of(images, seed))
    for what, one, other in zip(("images", "targets"), due, found, strict=True):
        if other.shape != one.shape:
            fail(f"{what} {one.shape} became {other.shape} for {told(seed=seed)}")


@law(when=_mixes, images=batches(), seed=seeds)
def float32(mixer: Mixer, images: Floats, seed: int) -> None:
    """float32 in, float32 out, of both."""
    for what, found in zip(("images", "targets"), _of(mixer, images, seed), strict=True):
        if found.dtype != np.float32:
            fail(f"{what} became {found.dtype} for {told(images=images, seed=seed)}")


@law(when=_mixes, images=batches(), seed=seeds)
def within_range(mixer: Mixer, images: Floats, seed: int) -> None:
    """Images stay in [0, 1]."""
    found, _ = _of(mixer, images, seed)
    wrong = first(~((found >= 0) & (found <= 1)))
    if wrong:
        fail(f"a pixel is {found[wrong]} for {told(images=images, seed=seed)}")


@law(when=_mixes, images=batches(), seed=seeds)
def targets(mixer: Mixer, images: Floats, seed: int) -> None:
    """Targets stay rows of numbers >= 0 that sum to 1."""
    _, found = _of(mixer, images, seed)
    wrong = first(~((found >= 0).all(axis=1) & (np.abs(found.sum(axis=1) - 1) <= TOLERANCE)))
    if wrong:
        fail(f"a row of targets is {found[wrong].tolist()} for {told(images=images, seed=seed)}")


@law(when=_mixes, images=batches(), seed=seeds)
def shares(mixer: Mixer, images: Floats, seed: int) -> None:
    """Targets tell how much of each image is in the mixture: images in one colour show it."""
    colours = images[:, :1, :1]
    of_each = np.eye(len(images), dtype=np.float32)
    found, rows = mixed(mixer, np.broadcast_to(colours, images.shape).copy(), of_each, seed)
    mean, due = found.mean(axis=(1, 2), dtype=np.float64), rows @ colours[:, 0, 0]
    at = first(~(np.abs(mean - due) <= TOLERANCE))
    if at:
        fail(
            f"image {at[0]}, mixed of images in one colour by {rows[at[0]].tolist()}, has the mean "
            f"{mean[at]:.4g} in channel {at[1]}, not {due[at]:.4g}, for "
            f"{told(colours=colours[:, 0, 0, at[1]], seed=seed)}"
        )


@law(when=_mixes)
def mixes(mixer: Mixer) -> None:
    """From a usual batch, images of several classes are mixed."""
    images = _noise(32)
    if not (_of(mixer, images, 0)[1] > 0).sum(axis=1).max() > 1:
        fail("of 32 images of 5 classes, none has targets of two: Mixer(None) says so")


@law(when=_mixes, images=batches(), seed=seeds)
def class_names(mixer: Mixer, images: Floats, seed: int) -> None:
    """Which place a class has does not matter: targets in other columns come out in those."""
    rows, order = targets_of(images, seed), shuffled(_CLASSES, seed)
    (here, one), (there, other) = (mixed(mixer, images, t, seed) for t in (rows, rows[:, order]))
    if not np.array_equal(here, there) or not np.array_equal(one[:, order], other):
        fail(f"with classes in the order {order.tolist()} it mixes otherwise: {told(targets=rows)}")


@law(when=_mixes, images=batches(), seed=seeds)
def inputs_untouched(mixer: Mixer, images: Floats, seed: int) -> None:
    """Neither images nor targets given are changed."""
    given = images.copy(), targets_of(images, seed)
    mixed(mixer, *given, seed)
    if not np.array_equal(given[0], images):
        fail(f"the images are others afterwards, for {told(seed=seed)}: work on a copy")
    if not np.array_equal(given[1], targets_of(images, seed)):
        fail(f"the targets are others afterwards, for {told(seed=seed)}: work on a copy")


@law(when=_mixes, images=batches(), other=batches(), seed=seeds)
def generator_alone(mixer: Mixer, images: Floats, other: Floats, seed: int) -> None:
    """All random numbers are from the generator given, whatever was mixed before."""
    once = _of(mixer, images, seed)
    _of(mixer, other, seed)
    if not all(map(np.array_equal, once, _of(mixer, images, seed))):
        fail(f"asked twice with {told(seed=seed)}, it gave two batches (np.random, or a state?)")


@law(when=_mixes)
def global_random_numbers(mixer: Mixer) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    if touches_global_random_numbers(lambda: _of(mixer, _noise(4), 0)):
        fail("the state of `random` or `np.random` is another: draw from the generator given")


KIND = Kind("mixer", lambda factory, options: factory(options), laws_of(globals()))

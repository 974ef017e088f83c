"""The laws of a backbone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from mlx.utils import tree_flatten

from ..catalogue.kinds import asked_for
from ..compute.modules import evaluating
from ..core.errors import ConfigError, DataError
from ..core.interfaces import Backbone
from ..core.options import NoOptions
from .laws import Kind, fail, first, law, laws_of, require_made
from .strategies import Array, Floats

Shape = tuple[int, int, int]

_SIZES = (32, 64, 84, 96, 128, 160, 224, 256, 384)


def check_backbone(factory: Callable[[Any, Shape], Any], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options, input_shape)` breaks a law of a backbone.

    Tried on images of 32x32x3, or the smallest size from there on that it accepts.
    """
    KIND.check(factory, options)


@frozen
class Tried:
    """How to make a backbone, and a shape (h, w, c) of images that it accepts."""

    make: Callable[[Shape], Any]
    shape: Shape

    def made(self, seed: int = 0) -> Any:
        """A new backbone, its weights drawn from `mx.random` at that seed."""
        mx.random.seed(seed)
        return self.make(self.shape)

    def images(self, count: int) -> Floats:
        """Noise about 0, as after normalise."""
        rng = np.random.default_rng(0)
        return rng.normal(size=(count, *self.shape)).astype(np.float32)


def _subject(factory: Callable[[Any, Shape], Any], options: Any) -> Tried:
    make = partial(factory, options, **asked_for(factory, {"saved": {}}))
    for size in _SIZES:
        try:
            make((size, size, 3))
        except ConfigError:
            if size == _SIZES[-1]:
                raise
        else:
            return Tried(make, (size, size, 3))
    raise AssertionError("unreachable")


def embedded(backbone: Any, images: Floats) -> Array:
    """Embeddings in eval mode."""
    with evaluating(backbone):
        return np.array(backbone(mx.array(images)))


def numbers(backbone: nn.Module) -> dict[str, Array]:
    """Every parameter and running statistic by name."""
    leaves: Any = tree_flatten(backbone.parameters())
    return {name: np.array(value) for name, value in leaves}


def _others(before: dict[str, Array], after: dict[str, Array]) -> list[str]:
    """Names of `after` that `before` lacks, or has with other numbers."""
    return [
        name
        for name, value in after.items()
        if name not in before or not np.array_equal(before[name], value)
    ]


def _differ(here: Array, there: Array) -> float | None:
    """The largest difference, relative to the largest number, where it is more than rounding."""
    apart = float(np.abs(here - there).max()) / max(1e-6, float(np.abs(here).max()))
    return None if apart <= 1e-4 else apart


@law()
def made(tried: Tried) -> None:
    """The factory makes an `mlx.nn.Module` with `embedding_dim`, a whole number from 1."""
    backbone = tried.made()
    if not isinstance(backbone, nn.Module) or not isinstance(backbone, Backbone):
        fail(
            f"the factory returned {type(backbone).__name__}, which is no nn.Module with "
            "embedding_dim"
        )
    if not isinstance(backbone.embedding_dim, int) or backbone.embedding_dim < 1:
        fail(f"embedding_dim is {backbone.embedding_dim!r}")


@law()
def made_whole(tried: Tried) -> None:
    """Its parameters are there when it is made: the same before and after a call."""
    backbone = tried.made()
    require_made(backbone, lambda: embedded(backbone, tried.images(1)))


@law()
def shape(tried: Tried) -> None:
    """(b, h, w, c) -> (b, embedding_dim), of one image too."""
    backbone = tried.made()
    for count in (1, 3):
        found, due = embedded(backbone, tried.images(count)).shape, (count, backbone.embedding_dim)
        if found != due:
            fail(f"{count} images -> {found}, where embedding_dim says {due}")


@law()
def float32(tried: Tried) -> None:
    """float32 in, float32 out."""
    found = tried.made()(mx.array(tried.images(2))).dtype
    if found != mx.float32:
        fail(f"{found} came out")


@law()
def other_shapes(tried: Tried) -> None:
    """Any shape works by its own `embedding_dim`, or is refused by a ConfigError when made."""
    size = tried.shape[0]
    for shape in ((size, size, 1), (size, size + 16, 3), (size + 5, size + 1, 4), (4, 4, 3)):
        try:
            backbone = tried.make(shape)
        except ConfigError:
            continue
        images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
        try:
            found = embedded(backbone, images).shape
        except Exception as error:
            fail(f"made for {shape}, it fails on such images: {type(error).__name__}: {error}")
        if found != (2, backbone.embedding_dim):
            fail(f"2 images {shape} -> {found}, embedding_dim is {backbone.embedding_dim}")


@law()
def finite(tried: Tried) -> None:
    """Embeddings are finite, in both modes, of images in one colour too."""
    for training in (False, True):
        backbone = tried.made()
        backbone.train(training)
        for what, images in (
            ("noise", tried.images(4)),
            ("black images", np.zeros_like(tried.images(4))),
            ("white images", np.ones_like(tried.images(4))),
        ):
            found = np.array(backbone(mx.array(images)))
            if not np.isfinite(found).all():
                mode = "training" if training else "eval"
                fail(f"an embedding of {what} holds {found[~np.isfinite(found)][0]} in {mode} mode")


@law()
def image_alone(tried: Tried) -> None:
    """In eval mode an image's embedding does not depend on the others of its batch."""
    backbone, images = tried.made(), tried.images(5)
    backbone(mx.array(3 * images + 1))  # running statistics that are not the batch's
    together = embedded(backbone, images)
    for rows in ([0], [4, 1], [3, 2, 1, 0, 4]):
        apart = _differ(together[rows], embedded(backbone, images[rows]))
        if apart:
            fail(
                f"images {rows} of 5 have embeddings that differ by {apart:.1%} from those "
                "among all 5"
            )


@law()
def asked_twice(tried: Tried) -> None:
    """In eval mode, asked twice, it says the same: no dropout, nothing drawn."""
    backbone, images = tried.made(), tried.images(3)
    once, again = embedded(backbone, images), embedded(backbone, images)
    if not np.array_equal(once, again):
        at = first(once != again)
        assert at is not None
        fail(f"number {at[1]} of embedding {at[0]} is {once[at]}, then {again[at]}")


@law()
def eval_reaches_all(tried: Tried) -> None:
    """After `eval()` every part of it is in eval mode."""
    backbone = tried.made()
    backbone.train()
    backbone.eval()
    left = [name or "itself" for name, part in backbone.named_modules() if part.training]
    if left:
        fail(f"still training: {', '.join(left[:3])}")


@law()
def eval_changes_nothing(tried: Tried) -> None:
    """In eval mode no weight and no running statistic changes."""
    backbone = tried.made()
    before = numbers(backbone)
    embedded(backbone, tried.images(3))
    after = numbers(backbone)
    changed = [
        name
        for name in after
        if name not in before or not np.array_equal(before[name], after[name])
    ]
    if changed:
        fail(f"{changed[0]} is another after embedding in eval mode")


@law()
def tells_apart(tried: Tried) -> None:
    """Different images have different embeddings."""
    found = embedded(tried.made(), tried.images(4))
    if _differ(found, found[[1, 2, 3, 0]]) is None:
        fail("four images of noise have one embedding")


@law()
def inputs_untouched(tried: Tried) -> None:
    """The images given are not changed."""
    images = tried.images(2)
    given, backbone = mx.array(images), tried.made()
    mx.eval(backbone(given))
    if not np.array_equal(np.array(given), images):
        fail("they are others afterwards: write x = x - m, not x -= m")


@law()
def trains(tried: Tried) -> None:
    """The gradient for every weight is finite, and not all 0 (where any is trainable)."""
    backbone, images = tried.made(), mx.array(tried.images(8))
    if not tree_flatten(backbone.trainable_parameters()):
        return
    backbone.train()
    weights = mx.random.normal((8, backbone.embedding_dim))

    def loss(images: mx.array) -> mx.array:
        return (weights * backbone(images)).sum()

    leaves: Any = tree_flatten(nn.value_and_grad(backbone, loss)(images)[1])
    found = {name: np.array(gradient) for name, gradient in leaves}
    for name, gradient in found.items():
        if not np.isfinite(gradient).all():
            fail(f"the gradient by {name} holds {gradient[~np.isfinite(gradient)][0]}")
    if found and not any(np.abs(gradient).max() > 0 for gradient in found.values()):
        fail("the gradient by every weight is 0: nothing would be learnt")


@law()
def seeded(tried: Tried) -> None:
    """The same seed of `mx.random`, the same weights."""
    one, other = numbers(tried.made(7)), numbers(tried.made(7))
    unlike = [
        name for name in one if name not in other or not np.array_equal(one[name], other[name])
    ]
    if unlike:
        fail(
            f"{unlike[0]} differs between two made after mx.random.seed(7): draw it from mx.random"
        )


@law()
def saved_whole(tried: Tried) -> None:
    """Its parameters are all there is to save: with those of another, it embeds as the other."""
    one, other, images = tried.made(1), tried.made(2), tried.images(3)
    one.train()
    one(mx.array(2 * images))  # running statistics move
    other.update(one.parameters())
    apart = _differ(embedded(one, images), embedded(other, images))
    if apart:
        fail(
            f"with the parameters of another, embeddings differ by {apart:.1%}: something it "
            "needs is no parameter (in a private attribute, a NumPy array, a closure?)"
        )


@law()
def text(tried: Tried) -> None:
    """`text`, if there is one, makes a name as long an embedding as an image's, alone or not."""
    backbone = tried.made()
    read = getattr(backbone, "text", None)
    if read is None:
        return
    names = ["cat", "grey_wolf", "7"]
    try:
        found = np.array(read(names))
    except DataError:  # what reads names is not here
        return
    due = (3, backbone.embedding_dim)
    if found.shape != due or found.dtype != np.float32 or not np.isfinite(found).all():
        fail(f"3 names -> {found.dtype} {found.shape}, finite float32 {due} is due")
    if _differ(found, found[[1, 2, 0]]) is None:
        fail(f"{', '.join(names)} have one embedding")
    for rows in ([1], [2, 0]):
        apart = _differ(found[rows], np.array(read([names[i] for i in rows])))
        if apart:
            fail(f"names {rows} of 3 have embeddings that differ by {apart:.1%} from those among 3")


KIND = Kind("backbone", _subject, laws_of(globals()))

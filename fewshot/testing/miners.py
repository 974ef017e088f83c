"""The laws of a miner."""

from collections.abc import Callable
from typing import Any, get_args

import mlx.core as mx
import numpy as np

from ..compute.compiling import compiling
from ..core.interfaces import Law, Miner
from ..core.options import NoOptions
from .batches import against_others, whole
from .laws import Kind, fail, law, laws_of, made_by, told
from .strategies import Array, compared_batches, seeds, shuffled

Batch = tuple[Array, Array]


def check_miner(factory: Callable[[Any], Miner], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a miner."""
    KIND.check(factory, options)


def mask_of(miner: Miner, table: Array, labels: Array) -> Array:
    """The mask for distances (b, b) among a batch and its labels."""
    assert miner.mask is not None
    return np.array(miner.mask(*map(mx.array, against_others(table, labels))))


def _told(batch: Batch) -> str:
    return told(distances=batch[0], labels=batch[1])


@law()
def made(miner: Any) -> None:
    """The factory makes a `Miner`: its mask is a function or None, its `requires` is valid."""
    if not isinstance(miner, Miner):
        fail(f"the factory returned {miner!r}, which is no Miner")
    if miner.mask is not None and not callable(miner.mask):
        fail(f"mask = {miner.mask!r}: a function is due, or None")
    unknown = sorted(miner.requires - set(get_args(Law)))
    if unknown:
        fail(f"requires '{unknown[0]}', no law of a metric: these are {', '.join(get_args(Law))}")


def _mines(miner: Miner) -> bool:
    return miner.mask is not None


@law(when=_mines, batch=compared_batches())
def shape(miner: Miner, batch: Batch) -> None:
    """(b, m) distances -> a mask (b, m) of pairs, or (b, m, m) of triplets: always the same one."""
    b = len(batch[1])
    m = b - 1
    found = mask_of(miner, *batch).shape
    usual = mask_of(miner, np.ones((3, 3), np.float32), np.array([0, 0, 1])).ndim
    due = (b, *[m] * (usual - 1))
    if usual not in (2, 3) or found != due:
        fail(f"{(b, m)} -> {found}, where {(b, m)} or {(b, m, m)} is due, for {_told(batch)}")


@law(when=_mines)
def boolean(miner: Miner) -> None:
    """The mask is of bool."""
    found = mask_of(miner, np.ones((3, 3), np.float32), np.array([0, 0, 1])).dtype
    if found != np.bool_:
        fail(f"the mask is of {found}")


@law(when=_mines, batch=compared_batches())
def traced(miner: Miner, batch: Batch) -> None:
    """It can be compiled: no `if`, `.item()` or NumPy on a number, so that shapes never change."""
    assert miner.mask is not None
    try:
        with compiling():
            mx.compile(miner.mask)(*map(mx.array, against_others(*batch)))
    except ValueError as error:
        fail(f"mx.compile(mask): {error}")


@law(when=_mines)
def lonely(miner: Miner) -> None:
    """A batch without positives or without negatives has a mask, too."""
    table = np.ones((4, 4), np.float32) - np.eye(4, dtype=np.float32)
    for labels in (np.arange(4), np.zeros(4, np.int64)):
        found = mask_of(miner, table, labels)
        if len(found) != 4:
            fail(f"the mask is {found.shape} for 4 images of labels {labels.tolist()}")


@law(when=_mines)
def mines(miner: Miner) -> None:
    """From a usual batch it chooses something that can be compared: a positive, and a negative."""
    points = np.random.default_rng(0).normal(size=(24, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    labels = np.arange(24) % 4
    table = np.linalg.norm(points[:, None] - points, axis=-1).astype(np.float32)
    chosen, same = whole(mask_of(miner, table, labels)), labels[:, None] == labels
    if chosen.ndim == 3:
        chosen = chosen & same[:, :, None] & ~same[:, None, :]
        chosen = chosen.any(axis=2) | chosen.any(axis=1)
    for name, kind in (("positive", same), ("negative", ~same)):
        if not (chosen & kind).any():
            fail(f"no {name} is chosen among 24 images of 4 classes")


@law(when=_mines, batch=compared_batches(), seed=seeds)
def batch_order(miner: Miner, batch: Batch, seed: int) -> None:
    """Images in another order have the same mask, in that order: ties are not broken by place."""
    table, labels = batch
    order = shuffled(len(labels), seed)
    here = whole(mask_of(miner, table, labels))
    moved = whole(mask_of(miner, table[order][:, order], labels[order]))
    if not np.array_equal(here[np.ix_(*[order] * here.ndim)], moved):
        fail(f"other images are chosen in the order {order.tolist()}, for {_told(batch)}")


@law(when=_mines, batch=compared_batches(), seed=seeds)
def class_names(miner: Miner, batch: Batch, seed: int) -> None:
    """Which label a class has does not matter: renamed classes have the same mask."""
    table, labels = batch
    new = shuffled(int(labels.max()) + 2, seed)
    if not np.array_equal(mask_of(miner, table, labels), mask_of(miner, table, new[labels])):
        fail(f"other images are chosen with labels {new[labels].tolist()}, for {_told(batch)}")


@law(when=_mines, batch=compared_batches(), other=compared_batches())
def asked_twice(miner: Miner, batch: Batch, other: Batch) -> None:
    """It depends on what it is given alone: asked again after another batch, it says the same."""
    once = mask_of(miner, *batch)
    mask_of(miner, *other)
    if not np.array_equal(once, mask_of(miner, *batch)):
        fail(f"other images are chosen the second time, for {_told(batch)}")


@law(when=_mines, batch=compared_batches())
def inputs_untouched(miner: Miner, batch: Batch) -> None:
    """Neither distances nor labels are changed."""
    assert miner.mask is not None
    inputs = against_others(*batch)
    given = [mx.array(v) for v in inputs]
    mx.eval(miner.mask(*given))
    if not all(np.array_equal(np.array(g), v) for g, v in zip(given, inputs, strict=True)):
        fail(f"they are others afterwards (write d = d - m, not d -= m): {_told(batch)}")


KIND = Kind("miner", made_by, laws_of(globals()))

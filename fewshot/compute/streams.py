"""A batch divided over the CPU's streams, as MLX runs each of them on one thread."""

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import mlx.core as mx

from . import runtime
from .compiling import switch_off

# Fewer images than this are not worth a core of their own.
_FEWEST_IMAGES = 4

switch_off()  # here, as nothing embeds without this module


@functools.cache
def _stream(number: int) -> Any:
    return mx.new_thread_local_stream(mx.cpu)


def all_cores(images: int) -> AbstractContextManager[None]:
    """Products inside use every core where a batch of so many images is not divided."""
    return runtime.undivided() if _parts(images) == 1 else nullcontext()


def _parts(images: int) -> int:
    return max(1, min(runtime.streams(), images // _FEWEST_IMAGES))


def all_busy(parts: list[mx.array]) -> bool:
    """Whether a batch in these parts is large enough for the cores there are."""
    return len(parts) > 1 or (runtime.streams() == 1 and len(parts[0]) >= _FEWEST_IMAGES)


def divide(batch: mx.array) -> list[mx.array]:
    """A batch in as many parts as it is worth streams for, the first ones larger by one or none."""
    count = _parts(batch.shape[0])
    size, larger = divmod(batch.shape[0], count)
    ends = [size * (i + 1) + min(i + 1, larger) for i in range(count - 1)]
    return list(mx.split(batch, ends)) if ends else [batch]


def each(function: Callable[..., Any], *lists: Iterable[Any]) -> list[Any]:
    """`function` of every part, each on its own stream; a single part stays where it is.

    A gradient of one's own needs this too: MLX calls it outside of the streams.
    """
    rows = list(zip(*lists, strict=True))
    if len(rows) == 1:
        return [function(*rows[0])]
    results = []
    for number, row in enumerate(rows):
        with mx.stream(_stream(number)):
            results.append(function(*row))
    return results


def total(function: Callable[..., mx.array], *lists: Iterable[mx.array]) -> mx.array:
    """`function` of every part, added up."""
    first, *rest = each(function, *lists)
    return sum(rest, first)

"""What several test modules draw from."""

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fewshot.plugins import build_registry

REGISTRY, _ = build_registry()

# Half an ulp at 1: what one float32 operation may be off, relatively.
ULP = float(np.finfo(np.float32).eps)

# Multiples of 1/512 up to 8: differences are exact in float32 and no square underflows.
grid = st.integers(-4096, 4096).map(lambda i: i / 512)

seeds = st.integers(0, 2**32 - 1)


def every(kind: str) -> Any:
    """The test runs over every registered component of a kind, built-in or from a plugin."""
    return pytest.mark.parametrize("entry", REGISTRY.all(kind), ids=lambda e: e.qualified)


def make(entry: Any, *args: Any) -> Any:
    """A component at its default options."""
    return entry.component.factory(entry.component.options(), *args)


@st.composite
def points(
    draw: st.DrawFn, n: int | st.SearchStrategy[int], d: int | None = None, elements: Any = grid
) -> NDArray[np.float32]:
    """n points of d numbers, (n, d); some coincide and some are zero."""
    rows = n if isinstance(n, int) else draw(n)
    columns = draw(st.integers(1, 6)) if d is None else d
    base = draw(arrays(np.float32, (rows, columns), elements=elements))
    return base[draw(arrays(np.int64, rows, elements=st.integers(0, rows - 1)))]


@st.composite
def batches(draw: st.DrawFn, channels: Any = (1, 2, 3, 4)) -> NDArray[np.float32]:
    """A few images of any size, noise or black and white, in [0, 1]."""
    shape = (*(draw(st.integers(1, n)) for n in (4, 9, 9)), draw(st.sampled_from(channels)))
    images = np.random.default_rng(draw(seeds)).random(shape, np.float32)
    return images if draw(st.booleans()) else np.round(images)

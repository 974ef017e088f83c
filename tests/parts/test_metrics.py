"""The built-in distances against float64 SciPy; what every distance keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import REGISTRY, every, make

from fewshot.core import interfaces
from fewshot.parts.metrics import unit
from fewshot.testing import points
from fewshot.testing.laws import ULP
from fewshot.testing.metrics import distance, gradients

TWINS = {
    "euclidean": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "cosine": "cosine",
    "manhattan": "cityblock",
}
LAWS = ("identity", "symmetry", "triangle", "scale_free")

with_twin = pytest.mark.parametrize("name", TWINS)


def built_in(name: str) -> Any:
    return make(REGISTRY.get("metric", name))


def twin(name: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """SciPy's table in float64; a zero vector is 1/2 from the others in cosine, 0 from another."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if name != "cosine":
        return cdist(x, y, TWINS[name])
    zero_x, zero_y = ~x.any(axis=1), ~y.any(axis=1)
    table = cdist(np.where(zero_x[:, None], 1, x), np.where(zero_y[:, None], 1, y), "cosine")
    table[zero_x[:, None] ^ zero_y[None, :]] = 0.5
    table[zero_x[:, None] & zero_y[None, :]] = 0
    return table


# --------------------------------------------------------------------------------- laws


@every("metric")
@pytest.mark.parametrize("law", LAWS)
def test_a_law_that_is_not_claimed_has_a_counter_example(entry: Any, law: str) -> None:
    metric = make(entry)
    if law in metric.laws:
        return
    x, y, z = np.random.default_rng(0).normal(size=(3, 2000, 2))
    xy = distance(metric, x, y)
    excess = {
        "identity": distance(metric, x, x),
        "symmetry": np.abs(xy - distance(metric, y, x)),
        "triangle": distance(metric, x, z) - xy - distance(metric, y, z),
        "scale_free": np.abs(distance(metric, 2 * x, 3 * y) - xy),
    }
    assert excess[law].max() > 0.01 * xy.mean()


# -------------------------------------------------------------------------------- values


@with_twin
@given(data=st.data(), d=st.integers(1, 40))
def test_distances_agree_with_scipy_in_float64(name: str, data: Any, d: int) -> None:
    xy = data.draw(points(8, d))
    x, y = xy[:4], xy[4:]
    found = np.array(built_in(name).table(mx.array(x), mx.array(y)))
    # Differences on the grid are exact, so only the d products, their sum and the root round.
    # In cosine every coordinate of the unit vectors rounds: absolute, as these are at most 1.
    rounding = (d + 8) * ULP
    absolute = rounding if name == "cosine" else 0
    assert np.allclose(found, twin(name, x, y), rtol=rounding, atol=absolute)


@with_twin
@pytest.mark.parametrize("d", [1, 2, 7, 100])
def test_upper_is_reached_so_it_is_the_largest_distance(name: str, d: int) -> None:
    metric, x = built_in(name), np.full(d, d**-0.5)
    bound = metric.upper(d)
    assert distance(metric, x, -x) == pytest.approx(bound, rel=(d + 8) * ULP)


@given(x=points(5))
def test_unit_has_length_one_and_keeps_zero(x: NDArray[Any]) -> None:
    lengths = np.linalg.norm(np.array(unit(mx.array(x)), np.float64), axis=1)
    assert np.allclose(lengths, x.any(axis=1), rtol=0, atol=(x.shape[1] + 4) * ULP)


# ----------------------------------------------------------------------------- gradients


@with_twin
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 6))
def test_gradients_agree_with_differences_of_scipy(name: str, seed: int, d: int) -> None:
    rng, step = np.random.default_rng(seed), 1e-5
    x = rng.normal(size=d)
    y = x + rng.choice([-1, 1], size=d) * rng.uniform(0.1, 2, size=d)  # off the kinks of |x - y|
    x, y = x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)
    shifted = step * np.eye(d)
    expected = (twin(name, x + shifted, y[None]) - twin(name, x - shifted, y[None])) / (2 * step)
    found = gradients(built_in(name).fn, x, y)[0]
    # float32 rounding grows with 1 / |x| in cosine's unit vectors
    scale = max(1.0, 1 / np.linalg.norm(x), 1 / np.linalg.norm(y))
    tolerance = 50 * d * ULP * scale + 1e-7
    assert np.allclose(found, expected[:, 0], rtol=1e-4, atol=tolerance)


# -------------------------------------------------------------------------------- tables


@every("metric")
@given(x=points(3, 4), y=points(5, 4))
def test_a_table_is_that_of_fn_and_beyond_the_limit_that_of_matrix(
    entry: Any, x: NDArray[Any], y: NDArray[Any]
) -> None:
    metric = make(entry)
    query, support = mx.array(x), mx.array(y)
    for limit, of in (
        (1 << 60, metric.fn(query[:, None], support[None])),
        (0, None if metric.matrix is None else metric.matrix(query, support)),
    ):
        if of is None:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interfaces, "_TABLE_LIMIT", limit)
            assert mx.array_equal(metric.table(query, support), of)


@given(d=st.integers(1, 200), s=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_a_query_has_the_same_distances_alone_and_among_many(d: int, s: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, support = (mx.array(rng.normal(size=(n, d)).astype(np.float32)) for n in (50, s))
    for name in TWINS:
        together = np.array(built_in(name).table(query, support))
        alone = np.array(built_in(name).table(query[:1], support))
        assert np.allclose(alone[0], together[0], rtol=4 * (d + 8) * ULP, atol=4 * (d + 8) * ULP)
        # Random vectors are far apart, so that the root does not magnify the rounding.
        if d > 2:
            expected = twin(name, np.array(query), np.array(support))
            assert np.allclose(together, expected, rtol=1e-3, atol=4 * (d + 8) * ULP)

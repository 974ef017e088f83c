"""The built-in distances against float64 SciPy; what every distance keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from strategies import REGISTRY, every, make

from fewshot.core import interfaces
from fewshot.core.errors import ConfigError
from fewshot.parts.metrics import EmdOptions, emd, mahalanobis, unit
from fewshot.testing import points
from fewshot.testing.laws import ULP
from fewshot.testing.metrics import distance, gradients

TWINS = {
    "euclidean": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "cosine": "cosine",
    "manhattan": "cityblock",
    "chebyshev": "chebyshev",
    "canberra": "canberra",
    "braycurtis": "braycurtis",
}
LAWS = ("identity", "symmetry", "triangle", "scale_free")

with_twin = pytest.mark.parametrize("name", TWINS)


def built_in(name: str) -> Any:
    return make(REGISTRY.get("metric", name))


def twin(name: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """SciPy's table in float64; a zero vector is 1/2 from the others in cosine, 0 from another."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if name == "braycurtis":  # SciPy's is this of numbers >= 0, without a bound elsewhere
        sizes = np.abs(x).sum(axis=1)[:, None] + np.abs(y).sum(axis=1)
        return cdist(x, y, "cityblock") / np.where(sizes > 0, sizes, 1)
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
    metric = make(entry, embedding_dim=2)
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
    ends = np.stack([x, np.eye(1, d)[0]])  # of the cube's corner and of an axis
    assert distance(metric, ends, -ends).max() == pytest.approx(bound, rel=(d + 8) * ULP)


@given(x=points(4, 6), y=points(4, 6))
def test_bray_and_curtis_is_scipys_of_numbers_not_below_0(x: NDArray[Any], y: NDArray[Any]) -> None:
    x, y = np.abs(x), np.abs(y) + 1
    expected = cdist(x.astype(np.float64), y.astype(np.float64), "braycurtis")
    found = built_in("braycurtis").table(mx.array(x), mx.array(y))
    assert np.allclose(np.array(found), expected, rtol=20 * ULP)


@given(x=points(5))
def test_unit_has_length_one_and_keeps_zero(x: NDArray[Any]) -> None:
    lengths = np.linalg.norm(np.array(unit(mx.array(x)), np.float64), axis=1)
    assert np.allclose(lengths, x.any(axis=1), rtol=0, atol=(x.shape[1] + 4) * ULP)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 9))
def test_mahalanobis_is_that_of_scipy_under_any_matrix(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    metric, root = mahalanobis(embedding_dim=d), rng.normal(size=(d, d)).astype(np.float32)
    x, y = rng.normal(size=(2, 5, d)).astype(np.float32)
    assert np.allclose(distance(metric, x[:, None], y), cdist(x, y), rtol=1e-5)  # to begin with
    assert isinstance(metric.fn, nn.Module)
    metric.fn.matrix = mx.array(root)
    product = root.astype(np.float64) @ root.T.astype(np.float64)
    expected = cdist(x.astype(np.float64), y.astype(np.float64), "mahalanobis", VI=product)
    assert metric.matrix is not None
    for found in (distance(metric, x[:, None], y), metric.matrix(mx.array(x), mx.array(y))):
        assert np.allclose(np.array(found), expected, rtol=1e-3, atol=1e-3)
    assert np.linalg.eigvalsh(product).min() > -1e-9


def least_cost(u: NDArray[Any], v: NDArray[Any]) -> float:
    """Of moving one map's regions (r, c) to another's, in float64."""
    u, v = u.astype(np.float64), v.astype(np.float64)
    lengths = [np.linalg.norm(m, axis=1, keepdims=True) for m in (u, v)]
    cost = 1 - (u / lengths[0]) @ (v / lengths[1]).T
    weights = [np.maximum(one @ two.mean(axis=0), 0) for one, two in ((u, v), (v, u))]
    a, b = (w / w.sum() for w in weights)
    r = len(u)
    sums = np.concatenate([np.kron(np.eye(r), np.ones(r)), np.kron(np.ones(r), np.eye(r))])
    found = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]))
    assert found.status == 0
    return float(found.fun)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), regions=st.integers(2, 9), c=st.integers(2, 8))
def test_emd_nears_the_least_cost_from_above_as_the_plan_grows_sharp(
    seed: int, regions: int, c: int
) -> None:
    maps = np.random.default_rng(seed).gamma(0.5, size=(2, 4, regions, c)).astype(np.float32)
    x, y = maps + np.float32(0.01)
    least = np.array([least_cost(u, v) for u, v in zip(x, y, strict=True)])
    x, y = x.reshape(4, -1), y.reshape(4, -1)
    error = []
    for softness in (0.01, 0.05, 0.2):
        metric = emd(EmdOptions(regions, softness, 100), embedding_dim=regions * c)
        error.append(distance(metric, x, y) - least)
        assert error[-1].min() > -1e-5  # no plan costs less than the exact one
        assert np.abs(distance(metric, y, x) - distance(metric, x, y)).max() < 0.01
    assert error[0].max() < 0.03
    assert error[0].mean() - 1e-3 < error[1].mean() < error[2].mean() + 1e-3


def test_emd_finds_a_region_wherever_it_is() -> None:
    rng, metric = np.random.default_rng(0), emd(EmdOptions(9, 0.01, 200), embedding_dim=36)
    x = rng.random((9, 4)).astype(np.float32)
    turned, other = x[rng.permutation(9)], rng.random((9, 4)).astype(np.float32)
    to_turned, to_other = (float(distance(metric, x.ravel(), y.ravel())) for y in (turned, other))
    assert to_turned < 0.005 < to_other
    with pytest.raises(ConfigError, match=r"regions=5 does not divide .* 36"):
        emd(EmdOptions(5), embedding_dim=36)


@settings(max_examples=15)
@given(x=points(5, 12), power=st.sampled_from([0, -45, -20, -6, 8]))
def test_emd_and_its_gradient_are_finite_whatever_the_maps(x: NDArray[Any], power: int) -> None:
    metric = emd(EmdOptions(4, steps=20), embedding_dim=12)
    with np.errstate(under="ignore"):
        x = (x.astype(np.float64) * 10.0**power).astype(np.float32)
    table = distance(metric, x[:, None], x)
    assert np.isfinite(table).all()
    assert (table >= 0).all()
    assert table.max() <= 2 + 1e-5
    for gradient in gradients(metric.fn, x, np.roll(x, 1, axis=0)):
        assert np.isfinite(gradient).all()


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
    metric = make(entry, embedding_dim=4)
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

"""What is true of every distance, against float64 SciPy where it has a twin."""

import itertools
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import REGISTRY, ULP, every, make, points

from fewshot import interfaces
from fewshot.metrics import unit

TWINS = {
    "euclidean": "euclidean",
    "sqeuclidean": "sqeuclidean",
    "cosine": "cosine",
    "manhattan": "cityblock",
}
LAWS = ("identity", "symmetry", "triangle", "scale_free")

with_twin = pytest.mark.parametrize("name", TWINS)


def distance(metric: Any, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    return np.array(metric.fn(mx.array(x, mx.float32), mx.array(y, mx.float32)))


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


def slack(metric: Any, *vectors: NDArray[Any]) -> float:
    """Rounding of a few sums of d terms, relative to the largest distance among them."""
    d = vectors[0].shape[-1]
    table = [distance(metric, x, y) for x, y in itertools.combinations(vectors, 2)]
    return 4 * (d + 4) * ULP * max(1.0, *(float(np.max(t, initial=0)) for t in table))


# --------------------------------------------------------------------------------- laws


@every("metric")
@given(xy=points(8))
def test_a_distance_is_finite_and_never_negative(entry: Any, xy: NDArray[Any]) -> None:
    found = distance(make(entry), xy[:4], xy[4:])
    assert np.isfinite(found).all()
    assert (found >= 0).all()


@every("metric")
@given(x=points(6))
def test_identity_where_claimed(entry: Any, x: NDArray[Any]) -> None:
    metric = make(entry)
    if "identity" in metric.laws:
        assert (distance(metric, x, x) == 0).all()


@every("metric")
@given(xy=points(8))
def test_symmetry_where_claimed(entry: Any, xy: NDArray[Any]) -> None:
    metric, x, y = make(entry), xy[:4], xy[4:]
    if "symmetry" in metric.laws:
        tolerance = slack(metric, x, y)
        assert np.allclose(distance(metric, x, y), distance(metric, y, x), rtol=0, atol=tolerance)


@every("metric")
@given(xyz=points(9))
def test_triangle_where_claimed(entry: Any, xyz: NDArray[Any]) -> None:
    metric, (x, y, z) = make(entry), xyz.reshape(3, 3, -1)
    if "triangle" in metric.laws:
        detour = distance(metric, x, y) + distance(metric, y, z)
        assert (distance(metric, x, z) <= detour + slack(metric, x, y, z)).all()


@every("metric")
@given(xy=points(8), a=st.floats(0.01, 100), b=st.floats(0.01, 100))
def test_scale_free_where_claimed(entry: Any, xy: NDArray[Any], a: float, b: float) -> None:
    metric, x, y = make(entry), xy[:4], xy[4:]
    if "scale_free" in metric.laws:
        scaled = distance(metric, x * np.float32(a), y * np.float32(b))
        assert np.allclose(scaled, distance(metric, x, y), rtol=0, atol=slack(metric, x, y))


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


@every("metric")
def test_every_law_is_one_of_the_known(entry: Any) -> None:
    assert make(entry).laws <= set(LAWS)


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


@every("metric")
@given(xy=points(8, elements=st.floats(-1, 1, width=32)))
def test_no_two_unit_vectors_are_farther_apart_than_upper(entry: Any, xy: NDArray[Any]) -> None:
    metric = make(entry)
    lengths = np.linalg.norm(xy.astype(np.float64), axis=1, keepdims=True)
    safe = lengths > 1e-3
    units = np.where(safe, xy / np.where(safe, lengths, 1), np.eye(1, xy.shape[1])[0])
    x, y = units[:4], units[4:]
    bound = metric.upper(x.shape[1])
    assert bound > 0
    found = np.concatenate([distance(metric, x, y), distance(metric, x, -x)])
    assert (found <= bound * (1 + 8 * (x.shape[1] + 4) * ULP)).all()


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


def gradients(metric: Any, x: NDArray[Any], y: NDArray[Any]) -> list[NDArray[Any]]:
    def total(x: mx.array, y: mx.array) -> mx.array:
        return metric.fn(x, y).sum()

    return [np.array(g) for g in mx.grad(total, argnums=(0, 1))(mx.array(x), mx.array(y))]


@every("metric")
@given(xy=points(8))
def test_gradients_are_finite_also_at_coincident_points_and_zero(
    entry: Any, xy: NDArray[Any]
) -> None:
    metric, zero = make(entry), np.zeros_like(xy)
    for x, y in ((xy[:4], xy[4:]), (xy, xy), (xy, zero), (zero, xy), (zero, zero)):
        assert all(np.isfinite(g).all() for g in gradients(metric, x, y))


@every("metric")
@pytest.mark.parametrize("power", [-45, -40, -30, -20, -15, -10, -5, 5, 8])
def test_gradients_are_finite_at_every_scale(entry: Any, power: int) -> None:
    metric = make(entry)
    x, y = (10.0**power * np.random.default_rng(0).normal(size=(2, 20, 3))).astype(np.float32)
    for a, b in ((x, y), (x, x), (x, 1 + y), (x, np.zeros_like(x))):
        assert np.isfinite(distance(metric, a, b)).all()
        assert all(np.isfinite(g).all() for g in gradients(metric, a, b))


@with_twin
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(2, 6))
def test_gradients_agree_with_differences_of_scipy(name: str, seed: int, d: int) -> None:
    rng, step = np.random.default_rng(seed), 1e-5
    x = rng.normal(size=d)
    y = x + rng.choice([-1, 1], size=d) * rng.uniform(0.1, 2, size=d)  # off the kinks of |x - y|
    x, y = x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)
    shifted = step * np.eye(d)
    expected = (twin(name, x + shifted, y[None]) - twin(name, x - shifted, y[None])) / (2 * step)
    found = gradients(built_in(name), x.astype(np.float32), y.astype(np.float32))[0]
    # float32 rounding grows with 1 / |x| in cosine's unit vectors
    scale = max(1.0, 1 / np.linalg.norm(x), 1 / np.linalg.norm(y))
    tolerance = 50 * d * ULP * scale + 1e-7
    assert np.allclose(found, expected[:, 0], rtol=1e-4, atol=tolerance)


# ------------------------------------------------------------------ broadcasting, tables


@every("metric")
@given(x=points(3, 4), y=points(5, 4))
def test_broadcasting_equals_one_pair_at_a_time(
    entry: Any, x: NDArray[Any], y: NDArray[Any]
) -> None:
    metric = make(entry)
    found = distance(metric, x[:, None], y[None])
    one_by_one = np.array([[distance(metric, a, b) for b in y] for a in x])
    assert found.shape == (3, 5)
    assert np.allclose(found, one_by_one, rtol=0, atol=slack(metric, x[:1], y))


def tables(
    metric: Any, limit: int, query: NDArray[Any], support: NDArray[Any]
) -> Callable[[], NDArray[Any]]:
    def table() -> NDArray[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(interfaces, "_TABLE_LIMIT", limit)
            return np.array(metric.table(mx.array(query), mx.array(support)))

    return table


def product_slack(entry: Any, query: NDArray[Any], support: NDArray[Any]) -> float:
    """How far |q|² + |p|² - 2qp may be off: rounding of its three terms, not of their difference.

    A root turns an error e near 0 into √e, which plugins' matrices are allowed too.
    """
    metric, d = make(entry), query.shape[-1]
    if "scale_free" in metric.laws:
        lengths = 4.0  # of unit vectors about a mean that lies between them, at most 2² each
    else:
        lengths = 4 * float(max((query**2).sum(-1).max(), (support**2).sum(-1).max()))
    squares = 4 * (d + 8) * ULP * lengths
    return squares if entry.name in ("sqeuclidean", "cosine") else squares**0.5


@every("metric")
@given(data=st.data(), d=st.integers(1, 40))
def test_matrix_agrees_with_fn_up_to_the_cancellation(entry: Any, data: Any, d: int) -> None:
    metric = make(entry)
    both = data.draw(points(9, d))
    query, support = both[:4], both[4:]
    direct = tables(metric, 1 << 60, query, support)()
    assert direct.shape == (4, 5)
    if metric.matrix is not None:
        product = tables(metric, 0, query, support)()
        assert (product >= 0).all()
        tolerance = product_slack(entry, query, support)
        assert np.allclose(product, direct, rtol=(d + 8) * ULP, atol=tolerance)


@every("metric")
@pytest.mark.parametrize("limit", [0, 1 << 60], ids=["matrix", "broadcast"])
@given(
    lead=st.sampled_from([((2,), (2,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (2,)), ((1,), ())]),
    seed=st.integers(0, 2**32 - 1),
)
def test_table_with_leading_axes_equals_the_loop(
    entry: Any, limit: int, lead: Any, seed: int
) -> None:
    metric, rng = make(entry), np.random.default_rng(seed)
    query = rng.normal(size=(*lead[0], 3, 4)).astype(np.float32)
    support = rng.normal(size=(*lead[1], 5, 4)).astype(np.float32)
    axes = np.broadcast_shapes(*lead)
    every_query = np.broadcast_to(query, (*axes, 3, 4))
    every_support = np.broadcast_to(support, (*axes, 5, 4))
    found = tables(metric, limit, query, support)()
    assert found.shape == (*axes, 3, 5)
    tolerance = product_slack(entry, query, support) if limit == 0 else 100 * ULP
    for place in np.ndindex(*axes):
        alone = tables(metric, limit, every_query[place], every_support[place])()
        assert np.allclose(found[place], alone, rtol=100 * ULP, atol=tolerance)


@every("metric")
@pytest.mark.parametrize("limit", [0, 1 << 60], ids=["matrix", "broadcast"])
@given(x=arrays(np.float32, (4, 3), elements=st.integers(-2, 2)))
def test_gradients_of_tables_are_finite_where_points_coincide(
    entry: Any, limit: int, x: NDArray[Any]
) -> None:
    metric = make(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interfaces, "_TABLE_LIMIT", limit)
        both = mx.grad(lambda q, s: metric.table(q, s).sum(), argnums=(0, 1))
        assert all(np.isfinite(np.array(g)).all() for g in both(mx.array(x), mx.array(x)))


@every("metric")
@pytest.mark.parametrize("limit", [0, 1 << 60], ids=["matrix", "broadcast"])
@pytest.mark.parametrize("power", [-30, -20, -15, -10, -5, 0, 5])
def test_gradients_of_tables_are_finite_where_points_almost_coincide(
    entry: Any, limit: int, power: int
) -> None:
    metric, rng = make(entry), np.random.default_rng(0)
    support = (10.0**power * rng.normal(size=(5, 8))).astype(np.float32)
    query = np.nextafter(support, np.float32(np.inf))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interfaces, "_TABLE_LIMIT", limit)
        both = mx.grad(lambda q, s: metric.table(q, s).sum(), argnums=(0, 1))
        assert all(np.isfinite(np.array(g)).all() for g in both(mx.array(query), mx.array(support)))


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

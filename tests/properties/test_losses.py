"""What is true of every loss, against float64 NumPy where it has a twin."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import log_softmax
from strategies import ULP, every, make

from fewshot.losses import (
    ContrastiveOptions,
    PrototypicalOptions,
    TripletOptions,
    contrastive,
    prototypical,
    triplet,
)

Array = NDArray[Any]

margins = st.floats(0.125, 4, width=32)
# Distances are never negative; 0 and the default margins are likely.
lengths = st.one_of(st.sampled_from([0.0, 0.3, 1.0]), st.floats(0, 8, width=32))


@st.composite
def distances(draw: st.DrawFn, rows: int = 1) -> Array:
    n = draw(st.integers(1, 12))
    return draw(arrays(np.float32, (rows, n), elements=lengths))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    d = draw(distances())[0]
    return d, draw(arrays(np.bool_, len(d)))


@st.composite
def scores(draw: st.DrawFn) -> tuple[Array, Array]:
    lead = draw(st.sampled_from([(), (2,), (2, 3)]))
    q, n_way = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    values = arrays(np.float32, (*lead, q, n_way), elements=st.floats(-50, 0, width=32))
    labels = arrays(np.int64, (*lead, q), elements=st.integers(0, n_way - 1))
    return draw(values), draw(labels)


def apply(loss: Any, *args: Array) -> Array:
    return np.array(loss.fn(*map(mx.array, args)))


def close(found: Array, expected: Array, scale: float = 1.0) -> bool:
    return np.allclose(found, expected, rtol=20 * ULP, atol=20 * ULP * scale)


# ------------------------------------------------------------------------ every loss


@every("loss")
@given(data=st.data())
def test_values_are_finite_one_per_row_with_finite_gradients(entry: Any, data: Any) -> None:
    loss = make(entry)
    strategy = {"pairs": pairs(), "triplets": distances(2), "episode": scores()}[loss.layout]
    first, second = data.draw(strategy)
    found = apply(loss, first, second)
    assert found.shape == (first.shape[:-1] if loss.layout == "episode" else first.shape)
    assert np.isfinite(found).all()
    inputs = (0, 1) if loss.layout == "triplets" else (0,)
    total = mx.grad(lambda a, b: loss.fn(a, b).mean(), argnums=inputs)
    assert all(np.isfinite(np.array(g)).all() for g in total(mx.array(first), mx.array(second)))


@every("loss")
def test_a_margin_is_a_positive_distance(entry: Any) -> None:
    margin = make(entry).margin
    assert margin is None or 0 < margin < np.inf


@pytest.mark.parametrize("options", [ContrastiveOptions, TripletOptions])
@pytest.mark.parametrize("margin", [0.0, -1.0])
def test_a_margin_of_nothing_is_refused(options: Any, margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        options(margin=margin)


@pytest.mark.parametrize("make_loss", [contrastive, triplet])
@given(margin=margins)
def test_the_margin_of_the_options_is_the_margin_of_the_loss(make_loss: Any, margin: float) -> None:
    options = {contrastive: ContrastiveOptions, triplet: TripletOptions}[make_loss]
    assert make_loss(options(margin=margin)).margin == margin


# ------------------------------------------------------------------------ contrastive


@given(pair=pairs(), margin=margins)
def test_contrastive_is_its_formula(pair: tuple[Array, Array], margin: float) -> None:
    d, same = pair[0].astype(np.float64), pair[1]
    expected = np.where(same, d**2, np.maximum(0, margin - d) ** 2)
    found = apply(contrastive(ContrastiveOptions(margin)), *pair)
    assert close(found, expected, scale=margin**2)
    assert (found >= 0).all()


@given(n=st.integers(1, 8), margin=margins, data=st.data())
def test_contrastive_grows_with_distance_of_same_pairs_only(
    n: int, margin: float, data: Any
) -> None:
    d = np.sort(data.draw(arrays(np.float32, n, elements=lengths)))
    loss = contrastive(ContrastiveOptions(margin))
    fixed = np.float32(margin / 2)
    same = np.array([True, False])
    rising = [apply(loss, np.array([x, fixed]), same)[0] for x in d]
    falling = [apply(loss, np.array([fixed, x]), same)[1] for x in d]
    assert (np.diff(rising) >= 0).all()
    assert (np.diff(falling) <= 0).all()
    beyond = d >= np.float32(margin)
    assert (np.array(falling)[beyond] == 0).all()
    assert (np.array(falling)[d < 0.99 * margin] > 0).all()


@given(pair=pairs(), margin=margins, data=st.data())
def test_contrastive_does_not_depend_on_the_order_of_pairs(
    pair: tuple[Array, Array], margin: float, data: Any
) -> None:
    order = np.array(data.draw(st.permutations(range(len(pair[0])))))
    loss = contrastive(ContrastiveOptions(margin))
    assert np.array_equal(apply(loss, pair[0][order], pair[1][order]), apply(loss, *pair)[order])


@given(pair=pairs(), margin=margins)
def test_balanced_weights_average_same_and_active_pairs_apart(
    pair: tuple[Array, Array], margin: float
) -> None:
    d, same = pair[0].astype(np.float64), pair[1]
    active = ~same & (pair[0] < np.float32(margin))
    halves = [d[same] ** 2, (margin - d[active]) ** 2]
    expected = sum(half.mean() / 2 for half in halves if len(half))
    found = apply(contrastive(ContrastiveOptions(margin, "balanced")), *pair)
    assert found.mean(dtype=np.float64) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (found >= 0).all()


@given(pair=pairs(), margin=margins, data=st.data())
def test_balanced_weights_do_not_depend_on_the_pairs_beyond_the_margin(
    pair: tuple[Array, Array], margin: float, data: Any
) -> None:
    d, same = pair
    loss = contrastive(ContrastiveOptions(margin, "balanced"))
    beyond = data.draw(st.integers(1, 20))
    more = (
        np.append(d, np.full(beyond, margin, np.float32)),
        np.append(same, np.zeros(beyond, bool)),
    )
    means = [apply(loss, *both).mean(dtype=np.float64) for both in (pair, more)]
    assert means[0] == pytest.approx(means[1], rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------- triplet


@given(both=distances(2), margin=margins)
def test_triplet_is_its_formula(both: Array, margin: float) -> None:
    near, far = both.astype(np.float64)
    found = apply(triplet(TripletOptions(margin)), *both)
    assert close(found, np.maximum(0, near - far + margin), scale=8 + margin)
    assert (found >= 0).all()


@given(both=distances(2), margin=margins, step=st.floats(0, 4, width=32))
def test_triplet_rises_with_the_positive_and_falls_with_the_negative(
    both: Array, margin: float, step: float
) -> None:
    loss, (near, far) = triplet(TripletOptions(margin)), both
    here = apply(loss, near, far)
    assert (apply(loss, near + np.float32(step), far) >= here).all()
    assert (apply(loss, near, far + np.float32(step)) <= here).all()


# ----------------------------------------------------------------------- prototypical


@given(
    task=scores(),
    temperature=st.floats(0.0625, 16, width=32),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_prototypical_is_the_cross_entropy_of_a_softmax(
    task: tuple[Array, Array], temperature: float, smoothing: float
) -> None:
    values, labels = task
    logs = log_softmax(values.astype(np.float64) / temperature, axis=-1)
    hit = np.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]
    expected = -(1 - smoothing) * hit - smoothing * logs.mean(axis=-1)
    found = apply(prototypical(PrototypicalOptions(temperature, smoothing)), *task)
    scale = float(np.abs(values).max()) / temperature
    assert close(found, expected, scale=max(1.0, scale))
    assert (found >= -20 * ULP * max(1.0, scale)).all()


@given(task=scores(), shift=st.floats(-50, 50, width=32))
def test_prototypical_ignores_what_all_scores_of_a_query_share(
    task: tuple[Array, Array], shift: float
) -> None:
    loss = prototypical()
    shifted = apply(loss, task[0] + np.float32(shift), task[1])
    assert np.allclose(shifted, apply(loss, *task), rtol=0, atol=200 * ULP * 8)


@given(task=scores(), step=st.floats(0.5, 4, width=32), data=st.data())
def test_prototypical_falls_as_the_right_score_rises(
    task: tuple[Array, Array], step: float, data: Any
) -> None:
    values, labels = task
    higher = values.copy()
    right = np.take_along_axis(values, labels[..., None], axis=-1)
    np.put_along_axis(higher, labels[..., None], right + np.float32(step), axis=-1)
    here, there = (apply(prototypical(), v, labels) for v in (values, higher))
    assert (there <= here).all()
    assume((here > 1e-3).any())
    assert (there < here)[here > 1e-3].all()


@pytest.mark.parametrize("n_way", [2, 5, 29])
def test_equal_scores_cost_the_logarithm_of_the_ways(n_way: int) -> None:
    found = apply(prototypical(), np.zeros((3, n_way), np.float32), np.arange(3) % n_way)
    assert close(found, np.full(3, np.log(n_way)))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        PrototypicalOptions(temperature=temperature)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_a_label_smoothing_that_is_no_share_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        PrototypicalOptions(label_smoothing=smoothing)

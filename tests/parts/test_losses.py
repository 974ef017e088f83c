"""The built-in losses against float64 NumPy; what every loss keeps is in test_laws.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

from fewshot.parts.losses import (
    ContrastiveOptions,
    PrototypicalOptions,
    TripletOptions,
    contrastive,
    prototypical,
    triplet,
)
from fewshot.testing import compared_pairs, distances, scored_queries
from fewshot.testing.laws import ULP
from fewshot.testing.losses import values

Array = NDArray[Any]

margins = st.floats(0.125, 4, width=32)


def close(found: Array, expected: Array, scale: float = 1.0) -> bool:
    return np.allclose(found, expected, rtol=20 * ULP, atol=20 * ULP * scale)


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


@given(pair=compared_pairs(), margin=margins)
def test_contrastive_is_its_formula(pair: tuple[Array, Array], margin: float) -> None:
    d, same = pair[0].astype(np.float64), pair[1]
    expected = np.where(same, d**2, np.maximum(0, margin - d) ** 2)
    found = values(contrastive(ContrastiveOptions(margin)), *pair)
    assert close(found, expected, scale=margin**2)
    assert (found >= 0).all()


@given(pair=compared_pairs(), margin=margins)
def test_balanced_weights_average_same_and_active_pairs_apart(
    pair: tuple[Array, Array], margin: float
) -> None:
    d, same = pair[0].astype(np.float64), pair[1]
    active = ~same & (pair[0] < np.float32(margin))
    halves = [d[same] ** 2, (margin - d[active]) ** 2]
    expected = sum(half.mean() / 2 for half in halves if len(half))
    found = values(contrastive(ContrastiveOptions(margin, "balanced")), *pair)
    assert found.mean(dtype=np.float64) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert (found >= 0).all()


@given(pair=compared_pairs(), margin=margins, data=st.data())
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
    means = [values(loss, *both).mean(dtype=np.float64) for both in (pair, more)]
    assert means[0] == pytest.approx(means[1], rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------- triplet


@given(both=distances(2), margin=margins)
def test_triplet_is_its_formula(both: Array, margin: float) -> None:
    near, far = both.astype(np.float64)
    found = values(triplet(TripletOptions(margin)), *both)
    assert close(found, np.maximum(0, near - far + margin), scale=8 + margin)
    assert (found >= 0).all()


# ----------------------------------------------------------------------- prototypical


@given(
    task=scored_queries(),
    temperature=st.floats(0.0625, 16, width=32),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_prototypical_is_the_cross_entropy_of_a_softmax(
    task: tuple[Array, Array], temperature: float, smoothing: float
) -> None:
    scores, labels = task
    logs = log_softmax(scores.astype(np.float64) / temperature, axis=-1)
    hit = np.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]
    expected = -(1 - smoothing) * hit - smoothing * logs.mean(axis=-1)
    found = values(prototypical(PrototypicalOptions(temperature, smoothing)), *task)
    scale = float(np.abs(scores).max()) / temperature
    assert close(found, expected, scale=max(1.0, scale))
    assert (found >= -20 * ULP * max(1.0, scale)).all()


@given(task=scored_queries(), shift=st.floats(-50, 50, width=32))
def test_prototypical_ignores_what_all_scores_of_a_query_share(
    task: tuple[Array, Array], shift: float
) -> None:
    loss = prototypical()
    shifted = values(loss, task[0] + np.float32(shift), task[1])
    assert np.allclose(shifted, values(loss, *task), rtol=0, atol=200 * ULP * 8)


@pytest.mark.parametrize("n_way", [2, 5, 29])
def test_equal_scores_cost_the_logarithm_of_the_ways(n_way: int) -> None:
    found = values(prototypical(), np.zeros((3, n_way), np.float32), np.arange(3) % n_way)
    assert close(found, np.full(3, np.log(n_way)))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_of_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        PrototypicalOptions(temperature=temperature)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_a_label_smoothing_that_is_no_share_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        PrototypicalOptions(label_smoothing=smoothing)

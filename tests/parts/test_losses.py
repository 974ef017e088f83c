"""The built-in losses against float64 NumPy; what every loss keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from fewshot.parts.losses.batches import SupconOptions, supcon
from fewshot.parts.losses.pairs import ContrastiveOptions, contrastive
from fewshot.parts.losses.scores import (
    ArcfaceOptions,
    PrototypicalOptions,
    arcface,
    prototypical,
)
from fewshot.parts.losses.triplets import TripletOptions, triplet
from fewshot.parts.metrics import cosine
from fewshot.testing import compared_batches, compared_pairs, distances, scored_queries
from fewshot.testing.batches import against_others
from fewshot.testing.laws import ULP
from fewshot.testing.losses import values
from fewshot.testing.strategies import seeds

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


@given(task=scored_queries(), smoothing=st.sampled_from([0.0, 0.1]), seed=seeds)
def test_of_soft_targets_it_is_the_mean_over_labels_weighted_by_them(
    task: tuple[Array, Array], smoothing: float, seed: int
) -> None:
    scores, labels = task
    loss, n_way = prototypical(PrototypicalOptions(1.0, smoothing)), scores.shape[-1]
    targets = np.random.default_rng(seed).dirichlet(np.ones(n_way), labels.shape)
    each = [values(loss, scores, np.full(labels.shape, c)) for c in range(n_way)]
    expected = (targets * np.stack(each, axis=-1).astype(np.float64)).sum(axis=-1)
    found = values(loss, scores, targets.astype(np.float32))
    assert close(found, expected, scale=max(1.0, float(np.abs(scores).max())))


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


# ---------------------------------------------------------------------------- supcon


@given(batch=compared_batches(), temperature=st.sampled_from([0.05, 0.1, 1.0]))
def test_supcon_is_khoslas_equation_2(batch: tuple[Array, Array], temperature: float) -> None:
    table, labels = np.minimum(batch[0], 2), batch[1]
    b = len(labels)
    similarity = (1 - table.astype(np.float64)) / temperature
    due = np.zeros(b)
    for i in range(b):
        others = [a for a in range(b) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        for p in positives:
            due[i] -= (similarity[i, p] - logsumexp(similarity[i, others])) / len(positives)
    found = values(supcon(SupconOptions(temperature)), *against_others(table, labels))
    assert np.allclose(found, due, rtol=1e-5, atol=1e-5 / temperature)


# --------------------------------------------------------------------------- arcface


def arcface_of(scores: Array, labels: Array, margin: float, scale: float) -> Array:
    """Through the angles, in float64."""
    angles = np.arccos(np.clip(1 + scores.astype(np.float64), -1, 1))
    logits = scale * np.cos(angles)
    own = np.take_along_axis(angles, labels[..., None], axis=-1) + margin
    moved = np.where(own <= np.pi, np.cos(own), -2 - np.cos(own))
    np.put_along_axis(logits, labels[..., None], scale * moved, axis=-1)
    return -np.take_along_axis(log_softmax(logits, axis=-1), labels[..., None], axis=-1)[..., 0]


@given(
    task=scored_queries(),
    margin=st.sampled_from([0.0, 0.3, 0.5, 2.0]),
    scale=st.sampled_from([1.0, 16.0, 64.0]),
)
def test_arcface_adds_the_margin_to_the_angle(
    task: tuple[Array, Array], margin: float, scale: float
) -> None:
    scores, labels = np.clip(task[0] / 20, -2, 0), task[1]
    found = values(arcface(ArcfaceOptions(margin, scale)), scores, labels)
    assert np.allclose(
        found, arcface_of(scores, labels, margin, scale), rtol=1e-4, atol=1e-5 * scale
    )


@given(margin=st.sampled_from([0.1, 0.5, 2.0]))
def test_a_larger_angle_to_the_own_class_always_costs_more(margin: float) -> None:
    own = -1 + np.cos(np.linspace(0, np.pi, 200))
    scores = np.stack([own, np.full(200, -1.0)], axis=1).astype(np.float32)
    found = values(arcface(ArcfaceOptions(margin, 2.0)), scores, np.zeros(200, int))
    assert (np.diff(found.astype(np.float64)) > 0).all()
    assert np.diff(found).max() < 0.1  # no step where angle and margin pass pi


@given(sign=st.sampled_from([1.0, -1.0]), seed=st.integers(0, 99))
def test_arcface_has_a_finite_gradient_at_and_beside_its_proxy(sign: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    proxies = mx.array(rng.normal(size=(3, 4)).astype(np.float32))
    near = np.outer([0, 1e-7, 1e-4, 1e-2], rng.normal(size=4)).astype(np.float32)
    x = sign * (proxies[:1] + mx.array(near))
    loss, labels = arcface(), mx.zeros(4, mx.int32)
    gradient = mx.grad(lambda x: loss.fn(-cosine().table(x, proxies), labels).sum())(x)
    assert np.isfinite(np.array(gradient)).all()
    assert np.abs(np.array(gradient)).max() < 1e4

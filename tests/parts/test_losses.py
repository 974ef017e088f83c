"""The built-in losses against float64 NumPy; what every loss keeps is in test_laws.py."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, logsumexp, softmax

from fewshot.core.interfaces import Loss, Miner
from fewshot.engine.objective import Learned, Objective
from fewshot.parts.embedder import Embedder
from fewshot.parts.losses.batches import (
    NtXentOptions,
    SupconOptions,
    angular,
    circle,
    lifted_structure,
    multi_similarity,
    n_pairs,
    nt_xent,
    smooth_ap,
    supcon,
)
from fewshot.parts.losses.pairs import ContrastiveOptions, MarginOptions, contrastive, margin
from fewshot.parts.losses.scores import (
    ArcfaceOptions,
    CosfaceOptions,
    NormfaceOptions,
    PrototypicalOptions,
    SoftTripleOptions,
    arcface,
    cosface,
    normface,
    prototypical,
    proxy_anchor,
    proxy_nca,
    soft_triple,
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


# ----------------------------------------------------------------------------- margin


@settings(max_examples=10)
@given(pair=compared_pairs(), alpha=margins, beta=margins)
def test_margin_is_its_formula(pair: tuple[Array, Array], alpha: float, beta: float) -> None:
    d, same = pair[0].astype(np.float64), pair[1]
    loss = margin(MarginOptions(alpha, beta))
    found = values(loss, *pair)
    assert close(found, np.maximum(0, alpha + np.where(same, 1, -1) * (d - beta)), scale=16)
    assert loss.margin == alpha + beta


def test_more_positives_than_negatives_at_the_boundary_push_it_out() -> None:
    loss = margin()
    assert isinstance(loss.fn, nn.Module)
    distances, same = mx.full(5, 1.2), mx.array([True] * 3 + [False] * 2)
    _, slopes = nn.value_and_grad(loss.fn, lambda *given: loss.fn(*given).sum())(distances, same)
    assert slopes["beta"].item() == -1
    fixed = margin(MarginOptions(learned=False))
    assert isinstance(fixed.fn, nn.Module)
    assert not fixed.fn.trainable_parameters()


# ---------------------------------------------------------------------------- triplet


@settings(max_examples=10)
@given(both=distances(2), m=margins)
def test_the_smooth_triplet_is_above_the_hinge_by_log_2_at_most(both: Array, m: float) -> None:
    near, far = both.astype(np.float64)
    smooth = triplet(TripletOptions(m, "smooth"))
    found = values(smooth, *both)
    assert close(found, np.logaddexp(0, near - far + m), scale=8 + m)
    above = found - values(triplet(TripletOptions(m)), *both)
    assert (above >= -1e-5).all()
    assert (above <= np.log(2) + 1e-5).all()
    assert smooth.margin is None


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


@given(task=scored_queries())
def test_without_a_margin_arcface_and_cosface_are_the_normalised_softmax(
    task: tuple[Array, Array],
) -> None:
    scores, labels = np.clip(task[0] / 20, -2, 0), task[1]
    due = values(normface(NormfaceOptions(16.0)), scores, labels)
    for loss in (cosface(CosfaceOptions(0.0, 16.0)), arcface(ArcfaceOptions(0.0, 16.0))):
        assert np.allclose(values(loss, scores, labels), due, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------ other proxies


def own_and_others(scores: Array, label: int) -> tuple[float, Array]:
    return scores[label], np.delete(scores, label)


OF_QUERIES: dict[str, tuple[Loss, Callable[[float, Array], float]]] = {
    "normface": (normface(), lambda own, others: np.logaddexp.reduce([0, *20 * (others - own)])),
    "cosface": (
        cosface(CosfaceOptions(scale=8.0)),
        lambda own, others: np.logaddexp.reduce([0, *8 * (others - own + 0.35)]),
    ),
    "soft-triple": (
        soft_triple(),
        lambda own, others: np.logaddexp.reduce([0, *20 * (others - own + 0.01)]),
    ),
    "proxy-nca": (proxy_nca(), lambda own, others: logsumexp(others) - own),
}


@pytest.mark.parametrize("name", OF_QUERIES)
@settings(max_examples=10)
@given(task=scored_queries())
def test_losses_of_proxies_are_their_formulas(name: str, task: tuple[Array, Array]) -> None:
    loss, formula = OF_QUERIES[name]
    scores, labels = np.clip(task[0] / 20, -2, 0), task[1]
    rows = zip(scores.astype(np.float64).reshape(-1, scores.shape[-1]), labels.ravel(), strict=True)
    due = np.array([formula(*own_and_others(row, label)) for row, label in rows])
    assert np.allclose(values(loss, scores, labels).ravel(), due, rtol=1e-5, atol=1e-4)


@settings(max_examples=10)
@given(task=scored_queries())
def test_proxy_anchor_is_kims_equation_4(task: tuple[Array, Array]) -> None:
    scores, labels = np.clip(task[0] / 20, -2, 0), task[1]
    found = values(proxy_anchor(), scores, labels)
    for at in np.ndindex(labels.shape[:-1]):
        cosines, y = 1 + scores[at].astype(np.float64), labels[at]
        due = 0.0
        for c in range(cosines.shape[1]):
            own, others = cosines[y == c, c], cosines[y != c, c]
            if len(own):
                due += np.logaddexp.reduce([0, *-32 * (own - 0.1)]) / len(set(y))
            due += np.logaddexp.reduce([0, *32 * (others + 0.1)]) / cosines.shape[1]
        assert np.allclose(found[at], due, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(distances=distances(3), softness=st.sampled_from([0.1, 1.0]))
def test_soft_centres_are_a_softmax_of_their_cosines(distances: Array, softness: float) -> None:
    centres = soft_triple(SoftTripleOptions(softness=softness)).centres
    assert centres is not None
    cosines = 1 - np.minimum(distances, 2).astype(np.float64)
    due = 1 - (softmax(cosines / softness, axis=-1) * cosines).sum(axis=-1)
    found = np.array(centres(mx.array(np.minimum(distances, 2))))
    assert np.allclose(found, due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [arcface(), soft_triple()])
@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_copies_of_a_centre_are_as_one(loss: Loss, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, proxies = (mx.array(rng.normal(size=(n, 4)).astype(np.float32)) for n in (6, 3))

    def through(loss: Loss, proxies: mx.array) -> Array:
        parts = Embedder(lambda images: images, normalize="none"), cosine(), loss, None
        o = Objective(*parts, Miner(None), Learned(None, cosine(), proxies=proxies), "labelled")  # type: ignore[arg-type]
        return np.array(o.values(x, {"labels": mx.arange(6) % 3}, 3)[0])

    due = through(evolve(loss, centres=None), proxies)
    assert np.allclose(through(loss, mx.repeat(proxies, 3, axis=0)), due, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------ batches


def mean(found: list[float]) -> float:
    return float(np.mean(found)) if found else 0.0


def tuplets(near: Array, far: Array, t: float) -> float:
    return mean([np.logaddexp.reduce([0, *(p - far) / t]) for p in near])


def of_circle(near: Array, far: Array, _: Any) -> float:
    if not len(near) or not len(far):
        return 0.0
    p, n = 1 - near, 1 - far
    pull = logsumexp(-80 * np.maximum(1.4 - p, 0) * (p - 0.6))
    return np.logaddexp(0, pull + logsumexp(80 * np.maximum(n + 0.4, 0) * (n - 0.4)))


def of_lifted(near: Array, far: Array, of_positives: list[Array]) -> float:
    if not len(far):
        return 0.0
    sums = [logsumexp(1 - np.append(far, others)) for others in of_positives]
    return mean([np.maximum(0, p + s) ** 2 / 2 for p, s in zip(near, sums, strict=True)])


def of_angular(near: Array, far: Array, of_positives: list[Array]) -> float:
    t = np.tan(np.radians(40)) ** 2
    found = []
    for p, others in zip(near, of_positives, strict=True):
        f = 4 * t * (2 - far - others) - 2 * (1 + t) * (1 - p)
        found.append(np.logaddexp.reduce([0, *f]))
    return mean(found)


def of_ap(near: Array, far: Array, _: Any) -> float:
    precisions = []
    for i, p in enumerate(near):
        before = expit((p - np.delete(near, i)) / 0.01).sum()
        precisions.append((1 + before) / (1 + before + expit((p - far) / 0.01).sum()))
    return 1 - np.mean(precisions) if precisions else 0.0


def of_similarities(near: Array, far: Array, _: Any) -> float:
    pull = np.logaddexp.reduce([0, *-2 * (0.5 - near)]) / 2
    return pull + np.logaddexp.reduce([0, *50 * (0.5 - far)]) / 50


OF_IMAGES: dict[str, tuple[Loss, Callable[[Array, Array, list[Array]], float]]] = {
    "nt-xent": (nt_xent(), lambda near, far, _: tuplets(near, far, 0.1)),
    "n-pairs": (n_pairs(), lambda near, far, _: tuplets(near, far, 1.0)),
    "multi-similarity": (multi_similarity(), of_similarities),
    "circle": (circle(), of_circle),
    "lifted-structure": (lifted_structure(), of_lifted),
    "angular": (angular(), of_angular),
    "smooth-ap": (smooth_ap(), of_ap),
}


@pytest.mark.parametrize("name", OF_IMAGES)
@settings(max_examples=10)
@given(batch=compared_batches())
def test_losses_of_batches_are_their_formulas(name: str, batch: tuple[Array, Array]) -> None:
    """Of every image: distances to its positives and its negatives, and from these positives."""
    loss, formula = OF_IMAGES[name]
    table, labels = np.minimum(batch[0], 2), batch[1]
    distances, b = table.astype(np.float64), len(labels)
    due = []
    for i in range(b):
        positives = [j for j in range(b) if j != i and labels[j] == labels[i]]
        negatives = [j for j in range(b) if labels[j] != labels[i]]
        from_positives = [distances[p, negatives] for p in positives]
        due.append(formula(distances[i, positives], distances[i, negatives], from_positives))
    found = values(loss, *against_others(table, labels))
    assert np.allclose(found, due, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", [*OF_IMAGES, "supcon"])
def test_an_image_alone_costs_nothing(name: str) -> None:
    loss = supcon() if name == "supcon" else OF_IMAGES[name][0]
    found = values(loss, *against_others(np.zeros((1, 1), np.float32), np.zeros(1, int)))
    assert not found.any()


@settings(max_examples=10)
@given(batch=compared_batches(), temperature=st.sampled_from([0.1, 1.0]))
def test_supcon_of_one_positive_each_is_nt_xent(
    batch: tuple[Array, Array], temperature: float
) -> None:
    table = np.minimum(batch[0], 2)
    inputs = against_others(table, np.arange(len(table)) // 2)
    due = values(nt_xent(NtXentOptions(temperature)), *inputs)
    found = values(supcon(SupconOptions(temperature)), *inputs)
    kept = np.arange(len(table) // 2 * 2)  # the last of an odd number has none
    assert np.allclose(found[kept], due[kept], rtol=1e-5, atol=1e-4)

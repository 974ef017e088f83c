"""The built-in miners against loops in float64 NumPy, and with the losses they choose for."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.compute.tables import without_own
from fewshot.core.errors import ConfigError
from fewshot.core.interfaces import Loss, Miner
from fewshot.engine.objective import Learned, Objective, arrays, check_fits
from fewshot.parts.embedder import Embedder
from fewshot.parts.losses.pairs import contrastive
from fewshot.parts.losses.triplets import triplet
from fewshot.parts.metrics import euclidean
from fewshot.parts.miners import (
    AngularTripletsOptions,
    BatchEasyHardOptions,
    SemiHardOptions,
    UniformPairsOptions,
    angular_triplets,
    batch_easy_hard,
    batch_hard,
    distance_weighted,
    hard_pairs,
    multi_similarity_pairs,
    none,
    semi_hard,
    uniform_pairs,
)
from fewshot.parts.samplers import BalancedOptions, balanced
from fewshot.testing import compared_batches
from fewshot.testing.batches import against_others, whole
from fewshot.testing.miners import mask_of

Array = NDArray[Any]

margins = st.sampled_from([0.1, 0.3, 1.0])


@given(batch=compared_batches())
def test_batch_hard_is_the_loop_over_anchors(batch: tuple[Array, Array]) -> None:
    table, labels = batch
    due = np.zeros(table.shape, bool)
    for a, row in enumerate(table.astype(np.float64)):
        positives = [j for j in range(len(labels)) if j != a and labels[j] == labels[a]]
        negatives = [j for j in range(len(labels)) if labels[j] != labels[a]]
        for j in positives:
            due[a, j] = row[j] == max(row[positives])
        for j in negatives:
            due[a, j] = row[j] == min(row[negatives])
    assert np.array_equal(whole(mask_of(batch_hard(), table, labels)), due)


@given(batch=compared_batches(), margin=margins)
def test_semi_hard_is_the_loop_over_triplets(batch: tuple[Array, Array], margin: float) -> None:
    table, labels = batch
    b = len(labels)
    due = np.zeros((b, b, b), bool)
    for a, p, n in np.ndindex(b, b, b):
        if a != p and labels[a] == labels[p] != labels[n]:
            near, far = table[a, p], table[a, n]
            due[a, p, n] = near < far < near + np.float32(margin)
    miner = semi_hard(SemiHardOptions(margin))
    assert np.array_equal(whole(mask_of(miner, table, labels)), due)


def positives_and_negatives(labels: Array, a: int) -> tuple[list[int], list[int]]:
    positives = [j for j in range(len(labels)) if j != a and labels[j] == labels[a]]
    return positives, [j for j in range(len(labels)) if labels[j] != labels[a]]


@pytest.mark.parametrize("positives", ["easy", "hard"])
@pytest.mark.parametrize("negatives", ["easy", "semi-hard", "hard"])
@settings(max_examples=10)
@given(batch=compared_batches())
def test_batch_easy_hard_is_the_loop_over_anchors(
    batch: tuple[Array, Array], positives: Any, negatives: Any
) -> None:
    table, labels = batch
    due = np.zeros(table.shape, bool)
    for a, row in enumerate(table):
        near, far = positives_and_negatives(labels, a)
        if not near:
            continue
        positive = (min if positives == "easy" else max)(row[near])
        if negatives == "semi-hard":
            far = [j for j in far if row[j] > positive]
        if not far:
            continue
        negative = (max if negatives == "easy" else min)(row[far])
        due[a, [j for j in near if row[j] == positive]] = True
        due[a, [j for j in far if row[j] == negative]] = True
    miner = batch_easy_hard(BatchEasyHardOptions(positives, negatives))
    assert np.array_equal(whole(mask_of(miner, table, labels)), due)


@settings(max_examples=10)
@given(batch=compared_batches())
def test_hard_pairs_and_multi_similarity_are_the_loops_over_pairs(
    batch: tuple[Array, Array],
) -> None:
    table, labels = batch
    hard, beside = np.zeros(table.shape, bool), np.zeros(table.shape, bool)
    for a, row in enumerate(table):
        near, far = positives_and_negatives(labels, a)
        for j in near:
            hard[a, j] = row[j] > np.float32(0.2)
            beside[a, j] = bool(far) and row[j] > row[far].min() - np.float32(0.1)
        for j in far:
            hard[a, j] = row[j] < np.float32(0.8)
            beside[a, j] = bool(near) and row[j] < row[near].max() + np.float32(0.1)
    assert np.array_equal(whole(mask_of(hard_pairs(), table, labels)), hard)
    assert np.array_equal(whole(mask_of(multi_similarity_pairs(), table, labels)), beside)


def on_the_sphere(seed: int, b: int = 9, d: int = 4) -> tuple[Array, Array, Array]:
    """Unit vectors (b, d), labels (b,) and cosine distances (b, b)."""
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(b, d)), rng.permutation(np.arange(b) % 3)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, labels, (1 - x @ x.T).astype(np.float32)


@pytest.mark.parametrize("angle", [20.0, 40.0])
@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_angular_triplets_are_seen_under_the_angle(seed: int, angle: float) -> None:
    x, labels, table = on_the_sphere(seed)
    found = whole(mask_of(angular_triplets(AngularTripletsOptions(angle)), table, labels))
    for a, p, n in np.ndindex(found.shape):
        if a == p or labels[a] != labels[p] or labels[a] == labels[n]:
            assert not found[a, p, n]
            continue
        middle = np.linalg.norm(x[n] - (x[a] + x[p]) / 2)
        seen = np.degrees(np.arctan2(np.linalg.norm(x[a] - x[p]) / 2, middle))
        assert found[a, p, n] == (seen > angle) or abs(seen - angle) < 1e-3


def test_distance_weighted_draws_a_negative_for_every_positive_by_its_density() -> None:
    """Drawn is, by the mean weight of those drawn, what Wu's densities make likely."""
    drawn, due, spread = 0.0, 0.0, 0.0
    for seed in range(40):
        _, labels, table = on_the_sphere(seed, b=12, d=5)
        mask = whole(mask_of(distance_weighted(embedding_dim=5), table, labels))
        d = np.sqrt(2 * np.maximum(table, 0.0)).astype(np.float64)
        q = np.maximum(d, 0.5) ** 3 * (1 - np.maximum(d, 0.5) ** 2 / 4)
        weights = np.where((labels[:, None] != labels) & (d < 1.4), 1 / q, 0)
        total = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, total, where=total > 0, out=np.zeros_like(weights))
        for a, p in np.ndindex(table.shape):
            of_triplets = mask[a, p]
            possible = a != p and labels[a] == labels[p] and total[a, 0] > 0
            assert of_triplets.sum() == possible
            if possible:
                drawn += weights[a, of_triplets].sum()
                due += (weights[a] ** 2).sum()
                spread += (weights[a] ** 3).sum() - (weights[a] ** 2).sum() ** 2
    assert abs(drawn - due) < 4 * np.sqrt(spread)


def test_uniform_pairs_are_about_as_many_of_every_distance() -> None:
    rng, labels = np.random.default_rng(0), np.zeros(40, int)
    counts = np.zeros(4)
    for _ in range(10):
        table = np.triu(rng.beta(6, 2, (40, 40)), 1).astype(np.float32)
        table += table.T
        table[0, 1] = table[1, 0] = 0
        table[2, 3] = table[3, 2] = 1
        mask = whole(mask_of(uniform_pairs(UniformPairsOptions(4, 100)), table, labels))
        counts += np.histogram(table[mask], 4, (0, 1))[0]
    assert counts[0] < 200  # there are not more
    assert (np.abs(counts[1:] - 1000) < 150).all()  # two of a pair are drawn as one


@settings(max_examples=10)
@given(batch=compared_batches())
def test_uniform_pairs_leave_few_as_they_are(batch: tuple[Array, Array]) -> None:
    mask = whole(mask_of(uniform_pairs(UniformPairsOptions(per_bin=100)), *batch))
    assert np.array_equal(mask, ~np.eye(len(batch[1]), dtype=bool))


MINERS = [batch_hard(), batch_easy_hard(), semi_hard(), hard_pairs(), multi_similarity_pairs()]
MINERS += [angular_triplets(), distance_weighted(), uniform_pairs()]


@pytest.mark.parametrize("miner", MINERS)
def test_of_one_image_nothing_is_mined(miner: Miner) -> None:
    assert mask_of(miner, np.zeros((1, 1), np.float32), np.zeros(1, int)).size == 0


@pytest.mark.parametrize("miner", [angular_triplets(), distance_weighted()])
def test_a_miner_of_angles_wants_the_cosine_metric(miner: Miner) -> None:
    embedder = Embedder(lambda images: images, normalize="l2")  # type: ignore[arg-type]
    sampler = balanced(BalancedOptions(2, 2), np.arange(8) % 2)
    with pytest.raises(ConfigError, match=r"the miner requires .* cosine, .* --metric cosine$"):
        check_fits(embedder, sampler, triplet(), euclidean(), None, miner)


@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_the_hardest_triplets_cost_at_least_the_mean_of_all(seed: int) -> None:
    x, labels, _ = embedded(seed, b=9)
    hard, _ = figures(batch_hard(), triplet(), mx.array(x), labels)
    every, _ = figures(none(), triplet(), mx.array(x), labels)
    assert hard.item() >= every.item() - 1e-5


@pytest.mark.parametrize("margin", [0.0, -1.0])
def test_a_margin_of_nothing_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        SemiHardOptions(margin)


def figures(miner: Miner, loss: Loss, x: mx.array, labels: Array) -> tuple[mx.array, mx.array]:
    """The mean over what is mined of embeddings as they are, and how many that are."""
    o = Objective(
        Embedder(lambda images: images, normalize="none"),  # type: ignore[arg-type]
        *(euclidean(), loss, None, miner),
        Learned(None, euclidean()),  # type: ignore[arg-type]
        "labelled",
    )
    values, weights = o.values(x, {"labels": mx.array(labels)}, 0)
    assert weights is not None
    total = mx.maximum(weights.sum(), 1e-12)
    return (values * weights).sum() / total, weights.sum()


def embedded(seed: int, b: int = 7) -> tuple[Array, Array, Array]:
    """Embeddings (b, 2), labels and distances (b, b) in float64."""
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(b, 2)).astype(np.float32), rng.permutation(np.arange(b) % 3)
    table = np.linalg.norm(x[:, None].astype(np.float64) - x, axis=-1)
    return x, labels, table


@given(seed=st.integers(0, 99))
def test_a_triplet_loss_of_batch_hard_is_hermans_equation_5(seed: int) -> None:
    x, labels, table = embedded(seed)
    same = labels[:, None] == labels
    near = np.where(same, table, -np.inf).max(axis=1)  # an image's own 0 is never the farthest
    far = np.where(same, np.inf, table).min(axis=1)
    kept = same.sum(axis=1) > 1
    due = np.maximum(0, near - far + 0.3)[kept].mean()
    found, _ = figures(batch_hard(), triplet(), mx.array(x), labels)
    assert found.item() == pytest.approx(due, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 99), hard=st.booleans())
def test_a_contrastive_loss_is_of_the_pairs_that_are_in_a_triplet(seed: int, hard: bool) -> None:
    x, labels, table = embedded(seed)
    same = labels[:, None] == labels
    miner = batch_hard() if hard else semi_hard()
    chosen = whole(mask_of(miner, table.astype(np.float32), labels))
    if not hard:
        chosen = chosen.any(axis=2) | chosen.any(axis=1)
    costs = np.where(same, table**2, np.maximum(0, 1 - table) ** 2)
    found, count = figures(miner, contrastive(), mx.array(x), labels)
    assert count.item() == chosen.sum()
    due = costs[chosen].mean() if chosen.any() else 0
    assert found.item() == pytest.approx(due, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", [triplet(), contrastive()])
@pytest.mark.parametrize("labels", [np.zeros(6, int), np.arange(6), np.arange(6) // 3])
def test_where_nothing_is_mined_the_loss_and_its_gradient_are_0(loss: Loss, labels: Array) -> None:
    """Of two far clusters no negative is semi-hard; of one class, or all of their own, none is."""
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32) / 100
    x[3:] += 10
    value, gradient = mx.value_and_grad(
        lambda x: figures(semi_hard(), loss, x, labels)[0]
    )(mx.array(x))  # fmt: skip
    assert value.item() == 0
    assert not np.array(gradient).any()


def test_no_gradient_flows_through_a_mask() -> None:
    x, labels, _ = embedded(0)
    gradient = mx.grad(lambda x: figures(batch_hard(), triplet(), x, labels)[0])(mx.array(x))
    assert np.isfinite(np.array(gradient)).all()
    assert np.array(gradient).any()


@given(seed=st.integers(0, 99))
def test_without_a_miner_a_triplet_loss_takes_all_triplets(seed: int) -> None:
    x, labels, table = embedded(seed, b=5)
    due = [
        max(0, table[a, p] - table[a, n] + 0.3)
        for a, p, n in np.ndindex(5, 5, 5)
        if a != p and labels[a] == labels[p] != labels[n]
    ]
    found, count = figures(none(), triplet(), mx.array(x), labels)
    assert count.item() == len(due)
    assert found.item() == pytest.approx(np.mean(due), rel=1e-5, abs=1e-6)


@given(batch=compared_batches())
def test_a_table_without_its_diagonal(batch: tuple[Array, Array]) -> None:
    table, labels = batch
    assert np.array_equal(np.array(without_own(mx.array(table))), against_others(table, labels)[0])


def test_a_balanced_draw_has_its_labels() -> None:
    labels = np.repeat([3, 5, 9], 6)
    draw = balanced(BalancedOptions(2, 4), labels).draw(0, 0)
    assert [draw.classes[y] for y in draw.labels] == labels[draw.items].tolist()
    assert sorted(np.unique(draw.labels, return_counts=True)[1].tolist()) == [4, 4]
    assert set(arrays(draw)) == {"labels"}

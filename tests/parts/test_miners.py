"""The built-in miners against loops in float64 NumPy, and with the losses they choose for."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.compute.tables import without_own
from fewshot.core.interfaces import Loss, Miner
from fewshot.engine.objective import Learned, Objective, arrays
from fewshot.parts.embedder import Embedder
from fewshot.parts.losses.pairs import contrastive
from fewshot.parts.losses.triplets import triplet
from fewshot.parts.metrics import euclidean
from fewshot.parts.miners import SemiHardOptions, batch_hard, none, semi_hard
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

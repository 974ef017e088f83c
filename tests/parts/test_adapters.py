"""The built-in adapters; what every adapter keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from numpy.typing import NDArray

from fewshot.compute.modules import copied
from fewshot.core.errors import ConfigError, TrainingError
from fewshot.parts.adapters.copies import none
from fewshot.parts.adapters.linear import learner
from fewshot.parts.adapters.steps import FinetuneOptions, finetune, lora
from fewshot.parts.adapters.whitening import WhitenOptions, whiten
from fewshot.parts.embedder import Centre, Embedder
from fewshot.parts.metrics import euclidean
from fewshot.parts.transforms import normalise
from fewshot.testing.adapters import embedded, small_embedder, state

Array = NDArray[Any]

QUERIES = np.random.default_rng(5).integers(256, size=(9, 8, 8, 1)).astype(np.uint8)


# ---------------------------------------------------------------------------- finetune


def task(k_shot: int, n_way: int = 3) -> tuple[Array, Array]:
    """Classes that differ in brightness, under much noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_way), k_shot)
    images = 60 * labels[:, None, None, None] + rng.integers(120, size=(len(labels), 8, 8, 1))
    return images.clip(0, 255).astype(np.uint8), labels


def separation(model: Embedder, images: Array, labels: Array) -> float:
    """Distance between class means over the distance to one's own."""
    rows = embedded(model, images)
    means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = np.linalg.norm(rows - means[labels], axis=1).mean()
    return float(np.linalg.norm(means[:, None] - means[None], axis=-1).mean() / within)


@pytest.mark.parametrize("layers", [0, 1])
def test_finetuning_separates_the_classes_of_the_support(layers: int) -> None:
    images, labels = task(5)
    options = FinetuneOptions(steps=30, learning_rate=3e-3, layers=layers)
    adapted = finetune(options)(small_embedder(), images, labels, euclidean(), 0)
    before = separation(small_embedder(), images, labels)
    assert separation(adapted, images, labels) > 1.2 * before


def test_finetuning_of_the_last_layer_changes_that_alone() -> None:
    ours = small_embedder()
    adapted = finetune(FinetuneOptions(layers=1))(ours, *task(2), euclidean(), 0)
    before, after = state(ours.backbone), state(adapted.backbone)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"layers.5.weight", "layers.5.bias"}


def test_batch_norm_keeps_its_statistics() -> None:
    ours = small_embedder()
    adapted = finetune()(ours, *task(2), euclidean(), 0)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(
            ours.backbone.layers[1][name], adapted.backbone.layers[1][name]
        )


def test_no_steps_change_nothing() -> None:
    ours = small_embedder()
    adapted = finetune(FinetuneOptions(steps=0))(ours, *task(2), euclidean(), 0)
    assert state(ours.backbone) == state(adapted.backbone)


def test_diverged_finetuning_is_told() -> None:
    wild = finetune(FinetuneOptions(steps=50, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"adapter\.learning_rate"):
        wild(small_embedder("none"), *task(2), euclidean(), 0)


# ------------------------------------------------------------------------------ whiten


def test_whitening_makes_the_spread_within_classes_alike_in_all_directions() -> None:
    images, labels = task(20)
    plain = WhitenOptions(shrinkage=1e-6, views=1, crop=1, colour=0)
    ours = evolve(small_embedder("none"), preprocess=(normalise(),))
    rows = embedded(whiten(plain)(ours, images, labels, euclidean(), 0), images).astype(np.float64)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(3)])
    covariance = np.cov((rows - means[labels]).T)
    mean = np.trace(covariance) / len(covariance)
    np.testing.assert_allclose(covariance / mean, np.eye(len(covariance)), atol=0.02)


@pytest.mark.parametrize("options", [WhitenOptions(shrinkage=1), WhitenOptions(crop=1, colour=0)])
def test_whitening_changes_nothing_at_full_shrinkage_or_without_any_spread(
    options: WhitenOptions,
) -> None:
    images, labels = task(1)
    ours = small_embedder()
    adapted = whiten(options)(ours, images, labels, euclidean(), 0)
    np.testing.assert_allclose(embedded(ours, QUERIES), embedded(adapted, QUERIES), atol=1e-6)


# ------------------------------------------------------------------------------ copies


def test_a_copy_shares_no_array_that_can_be_written_to() -> None:
    ours = small_embedder().backbone
    mine = copied(ours)
    before = state(ours)
    for layer in mine.layers:
        if "weight" in layer:
            layer.weight[0] = 7.0
    assert state(ours) == before != state(mine)


# ---------------------------------------------------------------------------- the centre


@pytest.mark.parametrize("adapter", [none(), finetune(), learner(), lora(), whiten()])
def test_an_adapted_embedder_keeps_the_centre(adapter: Any) -> None:
    images, labels = task(2)
    ours = small_embedder("none")
    centre = Centre(6)
    centre.mean = mx.array(np.linspace(-1, 1, 6, dtype=np.float32))
    ours = evolve(ours, centre=centre)
    adapted = adapter(ours, images, labels, euclidean(), 0)
    raw = embedded(evolve(adapted, centre=None), QUERIES).astype(np.float64)
    mean, matrix = np.linspace(-1, 1, 6), getattr(adapted.backbone, "matrix", np.eye(6))
    # A linear map is one of what was centred: (x - c) M.
    expected = raw - mean @ np.array(matrix, np.float64)
    assert np.allclose(embedded(adapted, QUERIES), expected, atol=1e-5)
    assert adapted.centre is not centre
    assert np.allclose(np.array(centre.mean), mean)


@pytest.mark.parametrize("adapter", [finetune(), learner()])
def test_a_frozen_backbone_cannot_be_trained_and_the_way_out_is_named(adapter: Any) -> None:
    ours = small_embedder()
    ours.backbone.freeze()
    with pytest.raises(ConfigError, match=r"frozen: --set backbone\.frozen=false"):
        adapter(ours, *task(2), euclidean(), 0)

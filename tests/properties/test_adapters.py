"""What is true of every adapter: the caller's embedder stays, the result is finite and repeats."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from strategies import every, make

from fewshot.adapters import FinetuneOptions, WhitenOptions, finetune, whiten
from fewshot.backbones import Conv4Options, conv4
from fewshot.datasets import ArrayDataset
from fewshot.embedding import Embedder, embed
from fewshot.errors import TrainingError
from fewshot.folding import copied, folded
from fewshot.layers import BatchNorm, Flatten, Sequential
from fewshot.metrics import cosine, euclidean, sqeuclidean
from fewshot.transforms import normalise

Array = NDArray[Any]

METRICS = st.sampled_from([euclidean(), sqeuclidean(), cosine()])


def embedder(normalize: str = "l2", dropout: float = 0.5) -> Embedder:
    """A network with everything that has a mode or a state: batch norm and dropout."""
    mx.random.seed(0)
    backbone: Any = Sequential(
        nn.Conv2d(1, 4, 3, padding=1), BatchNorm(4), nn.ReLU(), Flatten(), nn.Dropout(dropout),
        nn.Linear(4 * 8 * 8, 6),
    )  # fmt: skip
    backbone.embedding_dim = 6
    mx.eval(backbone.parameters())
    return Embedder(backbone, normalize=normalize)


def state(module: nn.Module) -> dict[str, bytes]:
    flat: Any = tree_flatten(module.parameters())
    return {name: np.array(array).tobytes() for name, array in flat}


def modes(module: nn.Module) -> list[tuple[bool, frozenset[str]]]:
    return [(part.training, frozenset(part._no_grad)) for part in module.modules()]


def embedded(model: Embedder, images: Array) -> Array:
    return embed(model, ArrayDataset(images, np.zeros(len(images), np.int64), ["any"]))


@st.composite
def supports(draw: st.DrawFn) -> tuple[Array, Array]:
    """Images (s, 8, 8, 1) and labels, at least one a class; noise, or all equal."""
    n_way = draw(st.integers(2, 4))
    more = draw(st.lists(st.integers(0, n_way - 1), max_size=4))
    labels = np.array(draw(st.permutations([*range(n_way), *more])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    images = rng.integers(256, size=(len(labels), 8, 8, 1)).astype(np.uint8)
    if draw(st.booleans()):
        images[:] = draw(st.sampled_from([0, 77, 255]))
    return images, labels


QUERIES = np.random.default_rng(5).integers(256, size=(9, 8, 8, 1)).astype(np.uint8)


@every("adapter")
@given(task=supports(), metric=METRICS, training=st.booleans(), l2=st.sampled_from(["l2", "none"]))
def test_the_callers_embedder_keeps_its_weights_its_modes_and_its_answers(
    entry: Any, task: Any, metric: Any, training: bool, l2: str
) -> None:
    ours = embedder(l2)
    ours.backbone.train(training)
    ours.backbone.layers[0].freeze()
    before = state(ours.backbone), modes(ours.backbone)
    answers = embedded(ours, QUERIES)
    adapted = make(entry)(ours, *task, metric, 3)
    assert (state(ours.backbone), modes(ours.backbone)) == before
    mine = {id(part) for part in ours.backbone.modules()}
    assert not mine & {id(part) for part in adapted.backbone.modules()}
    adapted.backbone.update(
        nn.utils.tree_map(lambda array: array * 0 + 9, adapted.backbone.parameters())
    )
    adapted.backbone.freeze()
    assert (state(ours.backbone), modes(ours.backbone)) == before
    np.testing.assert_array_equal(embedded(ours, QUERIES), answers)


@every("adapter")
@given(task=supports(), metric=METRICS, l2=st.sampled_from(["l2", "none"]))
def test_embeddings_are_finite_of_their_dimension_and_normalised_as_before(
    entry: Any, task: Any, metric: Any, l2: str
) -> None:
    adapted = make(entry)(embedder(l2), *task, metric, 0)
    rows = embedded(adapted, np.concatenate([task[0], QUERIES]))
    assert rows.shape[1] == adapted.backbone.embedding_dim
    assert np.isfinite(rows).all()
    assert adapted.normalize == l2
    if l2 == "l2":
        lengths = np.linalg.norm(rows, axis=1)
        assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()


@every("adapter")
@given(task=supports(), metric=METRICS, seed=st.integers(0, 2**32 - 1))
def test_the_same_arguments_give_the_same_embedder_whatever_else_was_drawn(
    entry: Any, task: Any, metric: Any, seed: int
) -> None:
    adapt = make(entry)
    first = adapt(embedder(), *task, metric, seed)
    mx.random.seed(99)
    adapt(embedder(), *task, metric, seed + 1)
    again = adapt(embedder(), *task, metric, seed)
    assert state(first.backbone) == state(again.backbone)


@every("adapter")
@given(task=supports(), metric=METRICS, data=st.data())
def test_the_order_of_the_support_does_not_matter(
    entry: Any, task: Any, metric: Any, data: st.DataObject
) -> None:
    images, labels = task
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    one = make(entry)(embedder(), images, labels, metric, 0)
    other = make(entry)(embedder(), images[order], labels[order], metric, 0)
    np.testing.assert_allclose(embedded(one, QUERIES), embedded(other, QUERIES), atol=1e-5)


@every("adapter")
def test_an_adapted_embedder_folds_and_adapts_again(entry: Any) -> None:
    mx.random.seed(0)
    ours = Embedder(conv4(Conv4Options(4), (16, 16, 1)))
    images = np.random.default_rng(0).integers(256, size=(6, 16, 16, 1)).astype(np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2])
    adapted = make(entry)(ours, images, labels, euclidean(), 0)
    quick = evolve(adapted, backbone=folded(adapted.backbone))
    np.testing.assert_allclose(embedded(adapted, images), embedded(quick, images), atol=1e-4)
    twice = make(entry)(adapted, images, labels, euclidean(), 0)
    assert np.isfinite(embedded(twice, images)).all()


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
    adapted = finetune(options)(embedder(), images, labels, euclidean(), 0)
    before = separation(embedder(), images, labels)
    assert separation(adapted, images, labels) > 1.2 * before


def test_finetuning_of_the_last_layer_changes_that_alone() -> None:
    ours = embedder()
    adapted = finetune(FinetuneOptions(layers=1))(ours, *task(2), euclidean(), 0)
    before, after = state(ours.backbone), state(adapted.backbone)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"layers.5.weight", "layers.5.bias"}


def test_batch_norm_keeps_its_statistics() -> None:
    ours = embedder()
    adapted = finetune()(ours, *task(2), euclidean(), 0)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(
            ours.backbone.layers[1][name], adapted.backbone.layers[1][name]
        )


def test_no_steps_change_nothing() -> None:
    ours = embedder()
    adapted = finetune(FinetuneOptions(steps=0))(ours, *task(2), euclidean(), 0)
    assert state(ours.backbone) == state(adapted.backbone)


def test_diverged_finetuning_is_told() -> None:
    wild = finetune(FinetuneOptions(steps=50, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"adapter\.learning_rate"):
        wild(embedder("none"), *task(2), euclidean(), 0)


# ------------------------------------------------------------------------------ whiten


def test_whitening_makes_the_spread_within_classes_alike_in_all_directions() -> None:
    images, labels = task(20)
    plain = WhitenOptions(shrinkage=1e-6, views=1, crop=1, colour=0)
    ours = evolve(embedder("none"), preprocess=(normalise(),))
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
    ours = embedder()
    adapted = whiten(options)(ours, images, labels, euclidean(), 0)
    np.testing.assert_allclose(embedded(ours, QUERIES), embedded(adapted, QUERIES), atol=1e-6)


# ------------------------------------------------------------------------------ copies


def test_a_copy_shares_no_array_that_can_be_written_to() -> None:
    ours = embedder().backbone
    mine = copied(ours)
    before = state(ours)
    for layer in mine.layers:
        if "weight" in layer:
            layer.weight[0] = 7.0
    assert state(ours) == before != state(mine)

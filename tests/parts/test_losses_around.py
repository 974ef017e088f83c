"""Losses around another: a memory of earlier batches, and rotations told beside it."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import log_softmax
from toys import network, toy

from fewshot.compute.modules import evaluating, snapshot
from fewshot.core.errors import ConfigError
from fewshot.core.interfaces import Loss, Miner
from fewshot.engine.objective import Learned, Objective, check_fits
from fewshot.engine.training import Training, TrainingOptions, fit
from fewshot.parts.embedder import Embedder
from fewshot.parts.losses.around import (
    CrossBatchOptions,
    RotationOptions,
    cross_batch,
    rotation,
)
from fewshot.parts.losses.batches import angular, lifted_structure, supcon
from fewshot.parts.losses.pairs import contrastive
from fewshot.parts.losses.scores import prototypical
from fewshot.parts.losses.triplets import triplet
from fewshot.parts.metrics import cosine, euclidean
from fewshot.parts.miners import angular_triplets
from fewshot.parts.samplers import BalancedOptions, ProxiesOptions, balanced, proxies

seeds = st.integers(0, 2**32 - 1)


class Given(nn.Module):
    """Images are embeddings already."""

    embedding_dim = 3

    def __call__(self, images: mx.array) -> mx.array:
        return images


def objective(loss: Loss) -> Objective:
    embedder = Embedder(Given(), normalize="none")
    learned = Learned(embedder.backbone, euclidean(), loss)
    return Objective(embedder, euclidean(), loss, None, Miner(None), learned, "labelled")


def seen() -> tuple[Loss, list[tuple[Any, Any, Any]]]:
    """A loss of batches that notes what it is given."""
    given: list[tuple[Any, Any, Any]] = []

    def fn(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        given.append((np.array(distances), np.array(labels), np.array(others)))
        return distances.sum(axis=1)

    return Loss(fn, "batch"), given


@settings(max_examples=10)
@given(seed=seeds, n=st.integers(1, 14), sizes=st.lists(st.integers(2, 5), min_size=1, max_size=4))
def test_images_are_compared_with_the_last_that_were_trained_on(
    seed: int, n: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    noting, given = seen()
    o = objective(cross_batch(CrossBatchOptions(noting, n)))
    kept, of = np.empty((0, 3)), np.empty(0, int)
    for b in sizes:
        x, labels = rng.normal(size=(b, 3)).astype(np.float32), rng.integers(3, size=b)
        o.values(mx.array(x), {"labels": mx.array(labels)}, 0)
        distances, _, others = given.pop()
        assert distances.shape == others.shape == (b, b - 1 + n)
        own = ~np.eye(b, dtype=bool)
        in_batch = cdist(x, x)[own].reshape(b, -1), np.tile(labels, (b, 1))[own].reshape(b, -1)
        there = min(n, len(kept))
        np.testing.assert_allclose(distances[:, : b - 1], in_batch[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            distances[:, b - 1 : b - 1 + there], cdist(x, kept[:there]), rtol=1e-4, atol=1e-5
        )
        assert (others[:, : b - 1] == in_batch[1]).all()
        assert (others[:, b - 1 : b - 1 + there] == of[:there]).all()
        # Where none is yet, others of the batch: never an image itself.
        for row in range(b):
            rest = zip(distances[row, b - 1 + there :], others[row, b - 1 + there :], strict=True)
            pairs = {*zip(distances[row, : b - 1], others[row, : b - 1], strict=True)}
            assert {*rest} <= pairs
        kept, of = np.concatenate([x, kept]), np.concatenate([labels, of])


def test_nothing_is_remembered_outside_training_and_no_gradient_flows_into_what_is() -> None:
    noting, _ = seen()
    o = objective(cross_batch(CrossBatchOptions(noting, 4)))
    x, draw = mx.array(np.eye(3, dtype=np.float32)), {"labels": mx.array([0, 0, 1])}
    with evaluating(o.learned):
        o.values(x, draw, 0)
        assert (np.array(o.learned.memory.labels) == -1).all()
    o.values(x, draw, 0)
    assert np.array(o.learned.memory.labels).tolist() == [0, 0, 1, -1]
    before = np.array(o.learned.memory.embeddings)

    def total(y: mx.array) -> mx.array:
        return o.metric.table(y, o.learned.memory.embeddings).sum()

    def through(y: mx.array) -> mx.array:
        o.learned.memory.keep(y, draw["labels"])
        return total(mx.zeros((1, 3)))

    assert not np.array(mx.grad(through)(x)).any()
    assert np.array_equal(before[:3], np.array(x))
    assert not o.learned.memory.trainable_parameters()


@pytest.mark.parametrize("inner", [contrastive(), triplet(), supcon()])
def test_a_training_keeps_the_newest_embeddings_in_its_memory(inner: Loss) -> None:
    data, loss = toy(), cross_batch(CrossBatchOptions(inner, 9))
    embedder = Embedder(network())
    sampler = balanced(BalancedOptions(3, 2), data.labels)
    check_fits(embedder, sampler, loss, cosine(), None)
    learned = Learned(embedder.backbone, cosine(), loss)
    o = Objective(embedder, cosine(), loss, None, Miner(None), learned, "labelled")
    training = Training(o, data, sampler, TrainingOptions(steps=3, draws_per_step=1))
    for _ in range(3):
        training.step()
    newest = [data.labels[sampler.draw(0, step).items] for step in (2, 1)]
    kept = np.array(learned.memory.labels)
    assert (kept == np.concatenate(newest)[:9]).all()
    lengths = np.linalg.norm(np.array(learned.memory.embeddings), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5)
    assert {"memory.embeddings", "memory.labels"} <= {name for name, _ in snapshot(learned)}


def test_what_needs_the_batch_alone_or_scores_is_refused() -> None:
    embedder, sampler = Embedder(Given()), balanced(BalancedOptions(2, 2), np.arange(8) % 2)
    for inner in (angular(), lifted_structure()):
        with pytest.raises(ConfigError, match=r"takes those of the batch alone"):
            check_fits(embedder, sampler, cross_batch(CrossBatchOptions(inner)), cosine(), None)
    loss = cross_batch(CrossBatchOptions(triplet()))
    with pytest.raises(ConfigError, match=r"batch alone.*--miner none"):
        check_fits(embedder, sampler, loss, cosine(), None, angular_triplets())
    with pytest.raises(ConfigError, match=r"cross-batch compares images with images"):
        cross_batch(CrossBatchOptions(prototypical()))


# ------------------------------------------------------------------------------- rotation


@settings(max_examples=10)
@given(seed=seeds, b=st.integers(1, 9), weight=st.floats(0.1, 3))
def test_rotations_are_told_by_a_linear_layer_on_the_backbone(
    seed: int, b: int, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    loss = rotation(RotationOptions(prototypical(), weight), embedding_dim=12)
    assert isinstance(loss.fn, nn.Module)
    images = rng.random((b, 2, 2, 3), np.float32)
    assert loss.auxiliary is not None
    found = np.array(loss.auxiliary(nn.Sequential(lambda x: x.flatten(1)), mx.array(images)))
    w, bias = (np.array(loss.fn.told[name], np.float64) for name in ("weight", "bias"))
    due = [
        -weight * log_softmax(w @ np.rot90(image, turn).ravel() + bias)[turn]
        for turn in range(4)
        for image in images[::4]
    ]
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-5)
    scores, labels = mx.array(rng.normal(size=(5, 3))), mx.array(rng.integers(3, size=5))
    assert mx.array_equal(loss.fn(scores, labels), prototypical().fn(scores, labels))


def test_training_learns_to_tell_rotations_and_refuses_images_that_are_not_square() -> None:
    data, embedder = toy(), Embedder(network())
    plain = prototypical()
    loss = rotation(RotationOptions(plain), embedding_dim=embedder.backbone.embedding_dim)
    assert isinstance(loss.fn, nn.Module)
    before = np.array(loss.fn.told.weight)
    sampler = proxies(ProxiesOptions(2, 4), data.labels)
    options = TrainingOptions(steps=2, draws_per_step=1)
    fit(embedder, data, sampler, loss, cosine(), options=options)
    assert not np.array_equal(before, np.array(loss.fn.told.weight))
    assert loss.auxiliary is not None
    with pytest.raises(ConfigError, match=r"rotation turns images, which are 16x12"):
        loss.auxiliary(embedder.backbone, mx.zeros((2, 16, 12, 1)))

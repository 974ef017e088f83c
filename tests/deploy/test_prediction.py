"""Folded networks compute the same embeddings; a classifier answers alike however it is asked."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray

import fewshot as fs

seeds = st.integers(0, 2**32 - 1)
CHANNELS = 3
SHAPE = (8, 8, CHANNELS)


def blocks() -> dict[str, nn.Module]:
    return {
        "convolution": nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        "no bias": nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        "norm": fs.BatchNorm(CHANNELS),
        "mlx's norm": nn.BatchNorm(CHANNELS),
        "relu": nn.ReLU(),
        "pool": fs.MaxPool2x2(),
        "mlx's pool": nn.MaxPool2d(2),
        "dropout": nn.Dropout(0.5),
    }


def network(names: list[str], seed: int) -> nn.Module:
    """Layers of these names, as many pools as the image has halves, and a linear layer or two."""
    mx.random.seed(seed)
    pools = 0
    layers: list[nn.Module] = []
    for name in names:
        pools += "pool" in name
        if "pool" not in name or pools <= 2:
            layers.append(blocks()[name])
    features = CHANNELS * (8 >> min(pools, 2)) ** 2
    layers += [fs.Flatten(), nn.Linear(features, 6), fs.BatchNorm(6), nn.Linear(6, 5, bias=False)]
    for layer in layers:
        if isinstance(layer, nn.BatchNorm):  # as training may leave it: negative scales too
            for name in ("weight", "bias", "running_mean"):
                setattr(layer, name, mx.random.normal(layer[name].shape))
            layer.running_var = mx.random.uniform(0.2, 3, layer.running_var.shape)
    return fs.Sequential(*layers)


@given(names=st.lists(st.sampled_from(sorted(blocks())), max_size=8), seed=seeds)
def test_a_folded_network_computes_the_same_and_leaves_the_original(names: list[str], seed: int):
    original = network(names, seed)
    before = [(k, np.array(v)) for k, v in tree_flatten(original.parameters())]
    folded = fs.folded(original)
    images = mx.random.normal((3, *SHAPE))
    assert original.training
    original.eval()
    expected, found = np.array(original(images)), np.array(folded(images))
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))
    for (name, old), (_, new) in zip(before, tree_flatten(original.parameters()), strict=True):
        assert np.array_equal(old, np.array(new)), name


@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 5, 6)])
def test_a_folded_network_may_be_linear_from_the_start(shape: tuple[int, ...]):
    network = fs.Sequential(nn.Linear(6, 4), nn.ReLU(), fs.BatchNorm(4), nn.Linear(4, 2)).eval()
    network.layers[2].running_mean = mx.random.normal((4,))
    images = mx.random.normal(shape)
    expected = np.array(network(images))
    np.testing.assert_allclose(np.array(fs.folded(network)(images)), expected, atol=1e-5)


def kinds(module: Any) -> list[str]:
    return [type(layer).__name__ for layer in module.layers.layers]


def test_batch_norm_directly_after_a_convolution_goes():
    network = fs.conv4(fs.Conv4Options(width=4), (16, 16, 3))
    assert kinds(network).count("BatchNorm") == 4
    assert "BatchNorm" not in kinds(fs.folded(network))


def test_a_pool_comes_before_all_that_it_commutes_with():
    layers = [nn.ReLU(), fs.BatchNorm(3), fs.MaxPool2x2()]
    orders = []
    for sign in (1, -1):
        layers[1].weight = mx.array([1.0, 2.0, sign])
        orders.append([type(x).__name__ for x in fs.folded(fs.Sequential(*layers)).layers])
    assert orders == [["MaxPool2x2", "ReLU", "Affine"], ["ReLU", "Affine", "MaxPool2x2"]]


# -------------------------------------------------------------------------- classifier


def embedder(seed: int = 0) -> fs.Embedder:
    mx.random.seed(seed)
    return fs.Embedder(fs.conv4(fs.Conv4Options(width=4), (16, 16, 3)))


def test_the_first_answers_wait_for_few_images_and_no_batch_for_many():
    shown = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), np.uint8)
    mine = fs.Classifier.of(embedder(), {"a": shown[:2], "b": shown[2:4]}, fs.lda())
    read = 0

    def counted() -> Iterator[NDArray[np.uint8]]:
        nonlocal read
        for image in shown:
            read += 1
            yield image

    ahead = [read - i for i, _ in enumerate(mine.stream(counted(), nearest=0))]
    assert len(ahead) == len(shown)
    assert ahead[0] <= 4
    assert max(ahead) <= 128
    assert sum(after > before for before, after in pairwise(ahead)) < 10  # batches grow


def photos(rng: np.random.Generator, n: int) -> Any:
    return rng.integers(0, 256, (n, 16, 16, 3), np.uint8)


HEADS = [fs.nearest_prototype(), fs.nearest_support(fs.NearestSupportOptions(neighbours=3))]


@given(seed=seeds, counts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@pytest.mark.parametrize("head", HEADS, ids=["prototype", "support"])
def test_one_image_or_many_in_any_order_gets_the_same_answer(
    head: fs.Head, seed: int, counts: list[int]
):
    rng = np.random.default_rng(seed)
    of = {f"class {i}": photos(rng, n) for i, n in enumerate(counts)}
    classifier = fs.Classifier.of(embedder(), of, head, fs.euclidean())
    images = photos(rng, 7)
    together = classifier.scores(images)
    assert together.shape == (7, len(counts))
    order = rng.permutation(7)
    np.testing.assert_allclose(classifier.scores(images[order]), together[order], atol=1e-5)
    alone = np.concatenate([classifier.scores(images[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    answers = [each.best for each in classifier.predict(images)]
    assert answers == [list(of)[i] for i in together.argmax(axis=1)]


@given(seed=seeds)
@pytest.mark.parametrize("head", HEADS, ids=["prototype", "support"])
def test_its_scores_are_those_of_the_same_episode(head: fs.Head, seed: int):
    rng = np.random.default_rng(seed)
    of, images, ours = {name: photos(rng, 4) for name in "ab"}, photos(rng, 5), embedder()
    found = fs.Classifier.of(ours, of, head, fs.cosine()).scores(images)
    every = np.concatenate([of["a"], of["b"], images])
    labels = np.repeat([0, 1, 0], [4, 4, 5])
    rows = mx.array(fs.embed(ours, fs.ArrayDataset(every, labels, ["a", "b"])))
    expected = head(rows[:8], mx.array(labels[:8]), rows[8:], fs.cosine(), 2)
    np.testing.assert_allclose(found, np.array(expected), atol=1e-4)


def test_its_cost_does_not_grow_with_the_support_of_prototypes():
    rng = np.random.default_rng(0)
    for k in (1, 9):
        of = {name: photos(rng, k) for name in "abc"}
        small = fs.Classifier.of(embedder(), of, fs.nearest_prototype(), fs.euclidean())
        assert small._fitted.points.shape[0] == small._fitted.state.shape[0] == 3
        every = fs.Classifier.of(embedder(), of, fs.nearest_support(), fs.euclidean())
        assert every._fitted.points.shape[0] == 3 * k


def test_no_images_no_answers():
    classifier = fs.Classifier.of(
        embedder(), {"a": photos(np.random.default_rng(0), 1)}, HEADS[0], fs.euclidean()
    )
    assert classifier.scores(np.empty((0, 16, 16, 3), np.uint8)).shape == (0, 1)
    assert classifier.predict(np.empty((0, 16, 16, 3), np.uint8)) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "at least one class"),
        ({"a": np.empty((0, 16, 16, 3), np.uint8)}, "class 'a' has no image"),
        ({"a": np.zeros((1, 16, 16, 3))}, "uint8"),
        ({"a": np.zeros((1, 16, 16, 3), "u1"), "b": np.zeros((1, 8, 8, 3), "u1")}, "one size"),
    ],
)
def test_a_wrong_support_is_refused(images: Any, message: str):
    with pytest.raises(fs.DataError, match=message):
        fs.Classifier.of(embedder(), images, HEADS[0], fs.euclidean())


def test_a_wrong_query_is_refused():
    classifier = fs.Classifier.of(
        embedder(), {"a": photos(np.random.default_rng(0), 1)}, HEADS[0], fs.euclidean()
    )
    with pytest.raises(fs.DataError, match=r"\(b, h, w, c\) uint8, not \(16, 16, 3\) uint8"):
        classifier.scores(np.zeros((16, 16, 3), np.uint8))

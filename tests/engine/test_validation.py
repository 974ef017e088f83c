"""What early stopping asks: the validation classes and nothing else."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from numpy.typing import NDArray
from strategies import every, make
from toys import NAMES, network, toy

from fewshot.data.datasets import ArrayDataset
from fewshot.data.split import ClassSplit
from fewshot.engine.embedding import embed
from fewshot.engine.evaluation import evaluate
from fewshot.engine.protocol import validation_draws
from fewshot.engine.validation import validation
from fewshot.parts.embedder import Centre, Embedder
from fewshot.parts.heads.nearest import nearest_support
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.metrics import euclidean


class Sealed:
    """A dataset whose test classes cannot be looked at."""

    def __init__(self, data: ArrayDataset, sealed: str) -> None:
        self.data, self.sealed = data, sealed
        self.classes, self.labels, self.groups = data.classes, data.labels, data.groups
        self.seen: set[str] = set()

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        name = self.classes[self.labels[index]]
        assert name not in self.sealed
        self.seen.add(name)
        return self.data[index]


def test_without_validation_classes_there_is_no_validation() -> None:
    split = ClassSplit("abcd", "", "ef")
    assert validation(Embedder(network()), toy(), split, nearest_support(), euclidean()) is None


@every("head")
def test_validation_never_reads_test_classes_and_repeats(entry: Any) -> None:
    data, net = Sealed(toy(), "ef"), network()
    head = make(entry, embedding_dim=net.embedding_dim)
    examine = validation(Embedder(net), data, ClassSplit("ab", "cd", "ef"), head, euclidean())
    assert examine is not None
    figures = examine()
    assert data.seen == set("abcd")
    assert figures.keys() == {"score", "spread", "auc", "pair_accuracy", "train_pair_accuracy"}
    assert all(0 <= value <= 1 for value in figures.values())
    assert examine() == figures
    mx.random.seed(9)
    net.layers.layers[0].weight = mx.random.normal(net.layers.layers[0].weight.shape)
    assert examine() != figures  # it looks at the embedder as it is now


def test_validation_centres_by_the_training_classes_of_its_pool() -> None:
    data, net, split = Sealed(toy(), "ef"), network(), ClassSplit("ab", "cd", "ef")
    embedder = Embedder(net, centre=Centre(net.embedding_dim))
    head, metric = nearest_prototype(), euclidean()
    examine = validation(embedder, data, split, head, metric)
    assert examine is not None
    figures = examine()
    raw = embed(Embedder(net, normalize="none"), data, np.flatnonzero(data.labels < 4))
    mean = raw[data.labels < 2].mean(axis=0, dtype=np.float64)  # the pool holds all of them
    assert embedder.centre is not None
    assert np.allclose(np.array(embedder.centre.mean), mean, atol=1e-5)
    rows = raw.astype(np.float64) - mean
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    drawn = validation_draws(data, split)
    assert drawn is not None
    expected = evaluate(rows, drawn.tasks, head, metric, data.classes).accuracy
    assert figures["score"] == pytest.approx(expected, abs=0.02)  # but for rounding
    plain = validation(evolve(embedder, centre=None), data, split, head, metric)
    assert plain is not None
    assert plain()["auc"] != pytest.approx(figures["auc"], abs=1e-4)


def test_validation_on_one_class_has_no_pairs_to_verify() -> None:
    split = ClassSplit("abc", "d", "ef")
    examine = validation(Embedder(network()), toy(), split, nearest_support(), euclidean())
    assert examine is not None
    assert examine().keys() == {"score", "spread"}


def test_validation_reads_no_more_of_a_class_than_its_pool() -> None:
    data = Sealed(toy(per_class=30), "ef")
    read: list[int] = []
    plain = data.data.__getitem__
    data.data = type("Counting", (), {"__getitem__": lambda _, i: read.append(i) or plain(i)})()
    examine = validation(
        Embedder(network()),
        data,
        ClassSplit("ab", "cd", "ef"),
        nearest_support(),
        euclidean(),
        grouping="mixed",
        pool=8,
    )
    assert examine is not None
    examine()
    per_class = np.bincount(data.labels[np.unique(read)], minlength=6)
    assert (per_class[:4] <= 8).all()
    assert (per_class[:4] > 0).all()


class Flat(nn.Module):
    """Pixels as embeddings."""

    embedding_dim = 256

    def __call__(self, images: mx.array) -> mx.array:
        return images.flatten(1)


@pytest.mark.parametrize("distinct", ["abcdef", "abef", "cdef", "cd"])
def test_validation_is_about_the_validation_classes_alone(distinct: str) -> None:
    # Images of the distinct classes bear a mark of their own, all others are black.
    data = toy()
    flat = np.zeros_like(data.images)
    marked = np.isin(np.array(NAMES)[data.labels], list(distinct))
    flat[np.arange(len(flat)), data.labels, 0, 0] = 255 * marked
    examine = validation(
        Embedder(Flat(), preprocess=()),
        evolve(data, images=flat),
        ClassSplit("ab", "cd", "ef"),
        nearest_prototype(),
        euclidean(),
    )
    assert examine is not None
    told_apart = "c" in distinct
    figures = examine()
    assert figures["auc"] == (1 if told_apart else 0.5)
    assert (figures["score"] == 1) == told_apart
    assert told_apart or figures["score"] <= 0.5
    # The threshold is the training classes' own: where these are all alike, it says nothing.
    if "a" in distinct:
        assert figures["train_pair_accuracy"] == 1
        assert (figures["pair_accuracy"] == 1) == told_apart


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_network_embeds_once_for_all_validations(frozen: bool) -> None:
    asked: list[int] = []

    class Counting(nn.Module):
        embedding_dim = 256

        def __init__(self) -> None:
            super().__init__()
            self.factor = mx.array(1.0)

        def __call__(self, images: mx.array) -> mx.array:
            asked.append(len(images))
            return self.factor * images.reshape(len(images), -1)

    net = Counting()
    if frozen:
        net.freeze()
    split = ClassSplit("ab", "cd", "ef")
    examine = validation(Embedder(net), toy(), split, nearest_support(), euclidean())
    assert examine is not None
    first, once = examine(), sum(asked)
    assert examine() == first
    assert sum(asked) == (once if frozen else 2 * once)

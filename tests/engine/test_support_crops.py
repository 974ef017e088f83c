"""With crops of support, each support image brings its corners, and a query brings none."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve

import fewshot as fs
from fewshot.core.draws import EpisodeBlock
from fewshot.data.corners import CORNERS, corners
from fewshot.data.datasets import ArrayDataset
from fewshot.engine.adaptation import evaluate_adapted
from fewshot.engine.calibration import answers
from fewshot.engine.embedding import embed, embed_task
from fewshot.engine.evaluation import evaluate, predict
from fewshot.parts.adapters.copies import none
from fewshot.parts.embedder import Embedder

HEADS = (fs.nearest_prototype(), fs.lda(), fs.nearest_support(), fs.alpha_tim())


def data() -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    return ArrayDataset(images, np.repeat(np.arange(4), 6), ("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    mx.random.seed(0)
    net = fs.conv4(fs.Conv4Options(width=4), input_shape=(16, 16, 3))
    return Embedder(net.eval(), crops="support")


@pytest.fixture(scope="module")
def block() -> EpisodeBlock:
    (found,) = fs.episodes(fs.EpisodesOptions(3, 2, 3), data().labels).blocks(0, 4)
    return found


def by_hand(embedder: Embedder, head: fs.Head, task: Any) -> np.ndarray:
    """Answers to an episode whose support is written out: images, then their corners."""
    images, support = data().images, task.items[task.support]
    shown = np.concatenate([images[support], corners(images[support])])
    labels = np.concatenate([task.support_labels, task.support_labels.repeat(CORNERS)])

    def rows(of: np.ndarray) -> mx.array:
        return embedder(mx.array(embedder.prepared(of)))

    query = rows(images[task.items[task.query]])
    scores = head(rows(shown), mx.array(labels), query, fs.euclidean(), task.n_way)
    return np.array(scores).argmax(axis=1)


@pytest.mark.parametrize("head", HEADS)
def test_answers_are_those_with_the_corners_written_out(
    head: fs.Head, embedder: Embedder, block: EpisodeBlock
) -> None:
    dataset, metric, items = data(), fs.euclidean(), np.arange(24)
    rows, crops = embed_task(embedder, dataset, items, [block])
    tasks = [block.episode(i) for i in range(len(block))]
    due = [by_hand(embedder, head, task) for task in tasks]
    for task, answer in zip(tasks, due, strict=True):
        np.testing.assert_array_equal(predict(rows, task, head, metric, crops=crops), answer)
    found = evaluate(rows, [block], head, metric, dataset.classes, crops=crops)
    right = [np.mean(answer == task.query_labels) for answer, task in zip(due, tasks, strict=True)]
    np.testing.assert_allclose(found.per_episode, right)
    assert found.digest == evaluate(rows, [block], head, metric, dataset.classes).digest
    adapted, _ = evaluate_adapted(none(), embedder, dataset, [block], head, metric)
    np.testing.assert_allclose(adapted.per_episode, right)


def test_only_support_is_cropped_and_images_embed_as_ever(
    embedder: Embedder, block: EpisodeBlock
) -> None:
    told: list[tuple[int, int]] = []
    rows, crops = embed_task(
        embedder, data(), np.arange(24), [EpisodeBlock.of([block.episode(0)])],
        lambda *done: told.append(done),
    )  # fmt: skip
    assert crops is not None
    np.testing.assert_allclose(rows[:24], embed(evolve(embedder, crops="one"), data()), atol=1e-6)
    support = np.unique(block.support[0])
    np.testing.assert_array_equal(np.flatnonzero(crops[:, 0] >= 0), support)
    assert sorted(crops[support].ravel().tolist()) == list(range(24, len(rows)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_a_classifier_answers_as_the_evaluation_does(embedder: Embedder) -> None:
    images = data().images.reshape(4, 6, 16, 16, 3)
    support, query = images[:3, :2], images[:3, 2:].reshape(-1, 16, 16, 3)
    made = fs.Classifier.of(embedder, dict(zip("abc", support, strict=True)), fs.lda())
    one_by_one = made.remove("b").enrol({"b": support[1, :1]}).enrol({"b": support[1, 1:]})
    items = np.concatenate([[6 * c, 6 * c + 1] for c in range(3)])
    task = fs.Episode.joined(
        items, np.arange(3).repeat(2), np.setdiff1d(np.arange(18), items), np.arange(3).repeat(4),
        [0, 1, 2],
    )  # fmt: skip
    due = by_hand(embedder, fs.lda(), task)
    assert [each.best for each in made.predict(query)] == ["abc"[i] for i in due]
    assert [each.best for each in one_by_one.predict(query)] == ["abc"[i] for i in due]
    blocks = [EpisodeBlock.of([task])]
    every, of_all = embed_task(embedder, data(), task.items, blocks)
    known = answers(every, blocks, fs.lda(), fs.euclidean(), crops=of_all).known
    np.testing.assert_allclose([p.distance for p in made.predict(query)], known, atol=1e-4)

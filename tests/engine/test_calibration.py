"""The threshold keeps 95 % of the known, the temperature is the best one, errors are as defined."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import fewshot as fs
from fewshot.data.datasets import ArrayDataset
from fewshot.engine import calibration
from fewshot.engine.calibration import (
    BINS,
    Answers,
    Calibration,
    answers,
    by_class,
    calibrate,
    calibrated,
    figures,
    fitted,
    for_counts,
    from_enrolled,
    reliability,
)
from fewshot.engine.protocol import held_out_episodes, leave_one_out
from fewshot.parts.heads.nearest import tip_adapter
from fewshot.parts.metrics import euclidean

seeds = st.integers(0, 2**32 - 1)
HEADS = [fs.nearest_prototype(), fs.nearest_support(fs.NearestSupportOptions(neighbours=3))]


def some_answers(seed: int, n_way: int = 4, queries: int = 200) -> Answers:
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_way, size=queries)
    logits = rng.normal(size=(queries, n_way))
    logits[np.arange(queries), labels] += rng.uniform(0, 2)
    known = rng.gamma(2, size=queries)
    return Answers(logits * rng.uniform(0.1, 10), labels, known, known + rng.gamma(2, size=queries))


@given(seed=seeds)
def test_the_threshold_is_the_smallest_that_keeps_95_percent_of_the_known(seed: int):
    found = some_answers(seed)
    threshold = calibrate(5, found).threshold
    assert (found.known <= threshold).mean() >= 0.95
    assert (found.known < threshold).mean() < 0.95


@given(seed=seeds)
def test_the_temperature_has_the_least_log_loss(seed: int):
    found = some_answers(seed)

    def loss(temperature: float) -> float:
        scaled = found.logits / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        own = scaled[np.arange(len(scaled)), found.labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - own).mean())

    ours = calibrate(5, found).temperature
    other = minimize(lambda x: loss(np.exp(x[0])), [np.log(ours) + 0.5], method="Nelder-Mead")
    assert loss(ours) <= other.fun + 1e-6


def test_the_ece_of_guo_et_al_by_hand():
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    rows, ece = reliability(logits, np.array([0, 1, 0, 0]))
    assert ece == pytest.approx(0.5 * abs(0.5 - 0.9) + 0.5 * abs(1 - 0.6))
    np.testing.assert_allclose(rows, [[0.6, 1, 0.5], [0.9, 0.5, 0.5]])


@given(seed=seeds)
def test_confident_and_right_has_no_error_and_shares_sum_to_one(seed: int):
    found = some_answers(seed)
    rows, ece = reliability(found.logits, found.labels)
    assert 0 <= ece <= 1
    assert len(rows) <= BINS
    assert sum(share for *_, share in rows) == pytest.approx(1)
    sure = np.where(np.eye(4)[found.labels] > 0, 1000.0, 0.0)
    assert reliability(sure, found.labels)[1] == 0


@given(seed=seeds)
def test_figures_against_counting(seed: int):
    found = some_answers(seed, queries=40)
    calibration = calibrate(5, some_answers(seed + 1))
    got = figures(calibration, found)
    pairs = found.known[:, None] - found.unknown
    assert got.auroc == pytest.approx(((pairs < 0) + (pairs == 0) / 2).mean())
    assert got.recall == (found.known <= calibration.threshold).mean()
    assert got.false_accepts == (found.unknown <= calibration.threshold).mean()
    for name in ("known", "unknown"):
        assert sum(getattr(got.distances, name)) == 40


def points(seed: int, classes: int = 6, each: int = 14, spread: float = 0.3) -> Any:
    """Embeddings about a centre for each class, as a dataset of as many blank images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = rng.normal(size=(classes, 8))[labels] + spread * rng.normal(size=(len(labels), 8))
    names = [f"c{i}" for i in range(classes)]
    images = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return rows.astype(np.float32), ArrayDataset(images, labels, names)


@settings(max_examples=5)
@given(seed=seeds)
@pytest.mark.parametrize("head", HEADS, ids=["prototype", "support"])
def test_a_query_is_unknown_where_its_class_is_left_out(head: fs.Head, seed: int):
    rows, dataset = points(seed)
    options = fs.EvaluationOptions(k_shot=(3,))
    split = fs.ClassSplit(("c0",), ("c1", "c2", "c3"), ("c4", "c5"))
    ((blocks, _),) = held_out_episodes(dataset, split, options).values()
    found = answers(rows, blocks[:1], head, euclidean())
    task = blocks[0].episode(0)
    support, query = rows[task.items[task.support]], rows[task.items[task.query]]
    for i, label in enumerate(task.query_labels):
        for out, expected in ((None, found.known), (label, found.unknown)):
            kept = [c for c in range(task.n_way) if c != out]
            of = [support[task.support_labels == c].astype(np.float64) for c in kept]
            if not head.votes:
                of = [each.mean(axis=0, keepdims=True) for each in of]
            nearest = min(np.linalg.norm(each - query[i], axis=1).min() for each in of)
            assert expected[i] == pytest.approx(nearest, abs=1e-4)


@settings(max_examples=3)
@given(seed=seeds)
def test_the_test_classes_decide_nothing(seed: int):
    rows, dataset = points(seed)
    options = fs.EvaluationOptions(k_shot=(1, 3))
    split = fs.ClassSplit(("c0",), ("c1", "c2", "c3"), ("c4", "c5"))
    held_out = held_out_episodes(dataset, split, options)
    other = rows.copy()
    other[dataset.labels >= 4] = np.random.default_rng(seed).normal(size=(28, 8))
    ours, theirs = (
        calibrated(each, held_out, fs.nearest_prototype(), euclidean()) for each in (rows, other)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a.threshold, a.temperature, a.validation) == (
            b.threshold,
            b.temperature,
            b.validation,
        )
        assert a.test != b.test


@pytest.mark.parametrize("grouping", ["separate", "mixed"])
def test_where_nothing_was_trained_every_class_is_asked_among_all_on_one_side(grouping: Any):
    _, dataset = points(0)
    dataset = evolve(dataset, groups=np.arange(len(dataset.labels)) // 2)
    split = fs.ClassSplit((), (), dataset.classes)
    options = fs.EvaluationOptions(k_shot=(1, 5, 100), repeats=3, groups=(grouping,))
    found = held_out_episodes(dataset, split, options)
    smallest = 12 if grouping == "separate" else 13  # of 14 images, without one or its group
    assert list(found) == [1, 5, smallest]
    for k, both in found.items():
        for blocks, ids in zip(both, ({0, 2, 4}, {1, 3, 5}), strict=True):
            asked = np.concatenate([b.query.ravel() for b in blocks])
            assert {*dataset.labels[asked].tolist()} == ids
            assert sum(b.query.size for b in blocks) <= 2000
            for block in blocks:
                for i in range(len(block)):
                    task = block.episode(i)
                    support = task.items[task.support]
                    counts = np.bincount(dataset.labels[support], minlength=6)
                    assert counts.min() >= k
                    assert not {*support.tolist()} & {*task.items[task.query].tolist()}
    rows, _ = points(0)
    for row in calibrated(rows, found, fs.nearest_prototype(), euclidean()):
        assert row.test.auroc > 0.9
        assert row.validation.recall >= 0.95
    two = fs.ClassSplit((), (), ("c0", "c1"))
    assert held_out_episodes(dataset, two, options) == {}


def test_only_held_out_classes_are_asked_and_only_with_enough_images():
    _, dataset = points(0)
    split = fs.ClassSplit(("c0",), ("c1", "c2", "c3"), ("c4", "c5"))
    found = held_out_episodes(dataset, split, fs.EvaluationOptions(k_shot=(1, 5, 13, 14, 100)))
    assert list(found) == [1, 5, 13]
    for validation, test in found.values():
        for blocks, ids in ((validation, {1, 2, 3}), (test, {4, 5})):
            asked = np.concatenate(
                [b.support.ravel() for b in blocks] + [b.query.ravel() for b in blocks]
            )
            assert {*dataset.labels[asked].tolist()} == ids
    for split in (
        fs.ClassSplit(("c0", "c1"), (), ("c4", "c5")),
        fs.ClassSplit(("c0", "c1"), ("c2",), ("c4", "c5")),
    ):
        assert held_out_episodes(dataset, split, fs.EvaluationOptions()) == {}


@given(seed=seeds)
def test_votes_are_no_logits_but_distances_are(seed: int):
    rows, dataset = points(seed)
    support, labels = mx.array(rows[::3]), mx.array(dataset.labels[::3])
    query, head, metric = mx.array(rows[1::3]), HEADS[1], euclidean()
    to = fitted(support, labels, head, metric, 6)
    scores, logits, distances = by_class(to, query, head, metric, 6)
    assert np.array_equal(np.array(logits), -np.array(distances))
    assert np.array_equal(np.array(scores), np.array(head(support, labels, query, metric, 6)))
    table = np.linalg.norm(rows[1::3][:, None] - rows[::3], axis=2)
    for c in range(6):
        nearest = table[:, dataset.labels[::3] == c].min(axis=1)
        np.testing.assert_allclose(np.array(distances)[:, c], nearest, atol=1e-4)


def test_the_calibration_of_the_nearest_k_is_taken():
    known = [Calibration(k, k, 1) for k in (1, 5, 20)]
    for counts, k in (([1], 1), ([2, 2], 1), ([3], 5), ([1, 1, 40], 1), ([9] * 3, 5), ([99], 20)):
        found = for_counts(known, counts)
        assert found is not None
        assert found.k_shot == k, counts
    assert for_counts([], [5]) is None
    assert for_counts(known, []) is None


@settings(max_examples=5)
@given(seed=seeds, counts=st.lists(st.integers(1, 5), min_size=1, max_size=4))
@pytest.mark.parametrize("head", HEADS, ids=["prototype", "support"])
def test_the_enrolled_classes_calibrate_themselves(head: fs.Head, seed: int, counts: list[int]):
    """No image is among what it is compared with, one alone in its class is never asked."""
    counts = [2, 2, 2, *counts]
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = (rng.normal(size=(len(counts), 5))[labels] + rng.normal(size=(len(labels), 5))) / 3
    found = from_enrolled(rows.astype(np.float32), labels, head, euclidean())
    assert found is not None
    assert (found.origin, found.k_shot) == ("enrolled", round(float(np.median(counts))))
    blocks = leave_one_out(labels, None, np.flatnonzero(np.array(counts) > 1).tolist(), 5)
    nearest = []
    for block in blocks:
        for i in block.query[0]:
            of = [rows[[j for j in block.support[0] if labels[j] == c]] for c in {*labels.tolist()}]
            if not head.votes:
                of = [each.mean(axis=0, keepdims=True) for each in of]
            nearest.append(min(np.linalg.norm(each - rows[i], axis=1).min() for each in of))
    assert len(nearest) == sum(c for c in counts if c > 1)
    assert np.abs(np.array(nearest) - found.threshold).min() < 1e-5
    within = np.array(nearest) <= found.threshold + 1e-5
    assert within.mean() >= 0.95
    assert (np.array(nearest) < found.threshold - 1e-5).mean() < 0.95


def test_what_the_enrolled_classes_cannot_tell_is_not_told():
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    head = fs.nearest_prototype()
    assert from_enrolled(rows, np.array([0, 0, 1, 1, 2, 3]), head, euclidean()) is None
    assert from_enrolled(rows[:0], np.array([], int), head, euclidean()) is None
    three = np.array([0, 0, 1, 1, 2, 2])
    assert from_enrolled(rows, three, head, euclidean()) is not None
    assert from_enrolled(rows, three, fs.bd_cspn(), euclidean()) is None


def test_classes_that_are_names_alone_do_not_count_for_the_k_of_the_others():
    rows = np.random.default_rng(0).normal(size=(13, 3)).astype(np.float32)
    labels = np.array([3, 3, 6, 6, 9, 9])  # of ten classes
    found = from_enrolled(rows[:6], labels, tip_adapter(has_text=True), euclidean(), rows[:10])
    assert found is not None
    assert found.k_shot == 2


def test_of_many_enrolled_images_an_even_share_of_each_class_is_asked(monkeypatch):
    rows, dataset = points(0)
    asked = []

    def told(embeddings, blocks, *given):
        asked.extend(label for block in blocks for label in block.query_labels.tolist())
        return answers(embeddings, blocks, *given)

    monkeypatch.setattr(calibration, "answers", told)
    given = (rows, dataset.labels, fs.nearest_prototype(), euclidean())
    assert from_enrolled(*given) is not None
    assert np.bincount(asked).tolist() == [14] * 6
    asked.clear()
    monkeypatch.setattr(calibration, "MOST_ASKED", 30)
    assert from_enrolled(*given) is not None
    assert np.bincount(asked).tolist() == [5] * 6

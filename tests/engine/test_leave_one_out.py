"""Every image is asked once, by all that are not held out with it; and what its share is worth."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from toys import NAMES, toy

import fewshot as fs
from fewshot.core.errors import ClassTooSmallError
from fewshot.engine.evaluation import evaluate
from fewshot.engine.protocol import Setting, k_shot_episodes, leave_one_out, smallest_support
from fewshot.engine.statistics import wilson_interval

seeds = st.integers(0, 2**32 - 1)
sizes = st.lists(st.integers(2, 9), min_size=2, max_size=6)


def labelled(seed: int, counts: list[int]) -> NDArray[np.int64]:
    """Labels of classes of so many images, in any order, some images of no class among them."""
    of = np.concatenate([np.repeat(np.arange(len(counts)), counts), [-1, -1]])
    return np.random.default_rng(seed).permutation(of)


@given(seed=seeds, counts=sizes, most=st.integers(2, 12))
def test_every_image_of_the_asked_is_asked_once_among_all_the_others(
    seed: int, counts: list[int], most: int
):
    labels = labelled(seed, counts)
    asked = [*range(0, len(counts), 2)]
    blocks = leave_one_out(labels, None, asked, most, seed)
    queries = np.concatenate([block.query[0] for block in blocks])
    assert sorted(queries) == np.flatnonzero(np.isin(labels, asked)).tolist()
    for block in blocks:
        every = np.concatenate([block.query[0], block.support[0]])
        assert sorted(every) == np.flatnonzero(labels >= 0).tolist()
        ids = block.classes[0]
        assert np.array_equal(ids[block.query_labels], labels[block.query[0]])
        assert np.array_equal(ids[block.support_labels], labels[block.support[0]])
        if max(counts) <= most:
            assert np.unique(block.query_labels, return_counts=True)[1].max() == 1
    least = min(
        int((labels[block.support[0]] == labels[i]).sum())
        for block in blocks
        for i in block.query[0]
    )
    assert smallest_support(blocks) == least


@given(seed=seeds, groups=st.integers(2, 5))
def test_no_group_is_on_both_sides(seed: int, groups: int):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], 2 * groups)
    signers = rng.permuted(np.tile(np.arange(groups), (3, 2)), axis=1).ravel()
    for of in (signers, signers + 100 * labels):  # spanning the classes, and within them
        blocks = leave_one_out(labels, of, [0, 1, 2], 20, seed)
        assert sum(block.query.size for block in blocks) == len(labels)
        for block in blocks:
            assert not {*of[block.query[0]]} & {*of[block.support[0]]}


def test_an_image_without_another_of_its_class_cannot_be_asked():
    with pytest.raises(ClassTooSmallError, match="class 1 has one image"):
        leave_one_out(np.array([0, 0, 1]), None, [0, 1], 5)
    labels, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    with pytest.raises(ClassTooSmallError, match="class 1 has one group"):
        leave_one_out(labels, groups, [0, 1], 5)


@given(seed=seeds, counts=sizes)
def test_the_accuracy_is_the_share_of_images_that_are_nearest_to_their_class(
    seed: int, counts: list[int]
):
    labels = labelled(seed, counts)
    rows = np.random.default_rng(seed).normal(size=(len(labels), 3)).astype(np.float32)
    names = NAMES[: len(counts)]
    blocks = leave_one_out(labels, None, range(len(counts)), 4, seed)
    found = evaluate(rows, blocks, fs.nearest_prototype(), fs.euclidean(), names, once=True)
    right = []
    for block in blocks:
        means = [
            rows[[i for i in block.support[0] if labels[i] == c]].astype(np.float64).mean(axis=0)
            for c in range(len(counts))
        ]
        table = np.linalg.norm(rows[block.query[0]][:, None] - np.array(means), axis=2)
        right += [*(table.argmin(axis=1) == labels[block.query[0]])]
    assert found.per_episode.tolist() == [float(each) for each in right]
    assert found.accuracy == pytest.approx(np.mean(right))
    expected = binomtest(sum(map(int, right)), len(right)).proportion_ci(method="wilson")
    assert found.ci95 == pytest.approx((expected.low, expected.high))


@given(n=st.integers(1, 1000), share=st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(n: int, share: float):
    right = round(share * n)
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_it_takes_the_place_of_every_k_that_a_class_is_too_small_for():
    dataset: Any = toy(per_class=5, classes=4, group=1)
    split = fs.ClassSplit((), (), dataset.classes)
    options = fs.EvaluationOptions(k_shot=(1, 4, 5, 50), repeats=2, groups=("mixed",))
    with pytest.raises(fs.DataError, match="k_shot"):
        k_shot_episodes(dataset, split, options)
    found = k_shot_episodes(dataset, split, options, leave_one=True)
    last = Setting(4, 0, "mixed", "leave-one-out")
    assert [*found] == [Setting(1, 0, "mixed"), Setting(4, 0, "mixed"), last]
    assert [block.query.size for block in found[last]] == [4] * 5

"""Images in a wrong folder are found where classes lie apart, and nobody is blamed at random."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.engine.astray import astray

seeds = st.integers(0, 2**32 - 1)


def heaps(rng: np.random.Generator, classes: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of classes that lie far apart, in any order."""
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    rows = 10 * np.eye(classes)[labels] + rng.normal(0, 0.1, (len(labels), classes))
    return rows.astype(np.float32), labels


@settings(max_examples=30)
@given(seeds, st.integers(2, 5), st.integers(5, 12))
def test_images_in_a_wrong_folder_are_found_and_no_others(seed: int, classes: int, each: int):
    rng = np.random.default_rng(seed)
    rows, truth = heaps(rng, classes, each)
    assert astray(rows, truth) == []
    moved = rng.integers(len(rows))
    labels = truth.copy()
    labels[moved] = (labels[moved] + rng.integers(1, classes)) % classes
    assert astray(rows, labels) == [(moved, truth[moved])]
    assert astray(rows, np.zeros_like(labels)) == []


@settings(max_examples=30)
@given(seeds, st.integers(2, 4), st.booleans())
def test_each_lies_among_one_other_class_by_the_distances_themselves(
    seed: int, classes: int, grouped: bool
):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(40, 3)).astype(np.float32)
    rows[rng.random(40) < 0.1] = np.nan  # not embedded
    labels, groups = rng.integers(classes, size=40), np.arange(40) // (2 if grouped else 1)
    for i, other in astray(rows, labels, groups if grouped else None):
        distances = np.linalg.norm(rows.astype(np.float64) - rows[i], axis=1)
        distances[groups == groups[i]] = np.inf
        near = np.argsort(distances)[:3]
        assert {*labels[near].tolist()} == {other}
        assert other != labels[i]
        assert np.isfinite(distances[labels == labels[i]]).any()


@given(seeds)
def test_where_classes_do_not_lie_apart_nobody_is_named(seed: int):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, 2)).astype(np.float32)
    labels = np.arange(200) % 2
    assert len(astray(rows, labels)) <= 10


def test_copies_and_few_rows_are_no_trouble():
    assert len(astray(np.ones((12, 2), np.float32), np.arange(12) % 2)) <= 3
    for n in range(5):
        assert astray(np.zeros((n, 2), np.float32), np.arange(n)) == []

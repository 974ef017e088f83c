"""The map of an episode, its names and its pictures, as HTML."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import from_arrays
from fewshot.core.draws import Episode
from fewshot.core.shown import Shown
from fewshot.reports import shown_page

N_WAY, EACH = 4, 6


def shown(seed: int) -> Shown:
    """Classes in heaps, one support image of each, some answers wrong."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_WAY), EACH)
    first = np.tile(np.arange(EACH) == 0, N_WAY)
    support, query = np.flatnonzero(first), np.flatnonzero(~first)
    names = tuple(f"<{'long ' * i}{i}>" for i in range(N_WAY))
    task = Episode(np.arange(len(labels)), support, labels[support], query, labels[query], names)
    places = rng.uniform(-0.7, 0.7, (N_WAY, 2))[labels] + rng.normal(0, 0.15, (len(labels), 2))
    wrong = rng.random(len(query)) < 0.3
    answers = np.where(wrong, (labels[query] + 1) % N_WAY, labels[query])
    return Shown((task,), (answers,), task.items, places.clip(-1, 1), ())


DATA = from_arrays(np.zeros((N_WAY * EACH, 8, 8, 3), np.uint8), np.repeat(np.arange(N_WAY), EACH))


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_no_name_on_the_map_covers_a_dot_or_another_name(seed: int):
    drawn = shown_page.embedding_map(DATA, shown(seed))
    dots = re.findall(r'<circle class="p" cx="(\d+)" cy="(\d+)"', drawn)
    squares = re.findall(r'<rect class="p" x="(\d+)" y="(\d+)"', drawn)
    at = np.array([*dots, *((int(x) + 7, int(y) + 7) for x, y in squares)], float)
    assert len(at) == N_WAY * EACH
    texts = re.findall(r'<text x="(\d+)" y="(\d+)"[^>]*>&lt;(.*?)&gt;</text>', drawn)
    assert len(texts) == N_WAY
    boxes = []
    for x, y, name in texts:  # 13 pixels high, its foot at y
        middle, half = np.array([int(x), int(y) - 5]), np.array([3.5 * len(name) + 7, 7])
        assert ((middle - half >= 0) & (middle + half <= (760, 520))).all()
        assert not (np.abs(at - middle) < half + 5).all(axis=1).any()
        assert not any((np.abs(middle - other) < half + size).all() for other, size in boxes)
        boxes.append((middle, half))


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_an_episode_has_a_row_of_pictures_for_each_class_with_the_answers(seed: int):
    of = shown(seed)
    drawn = shown_page.episode(DATA, of)
    assert drawn.count("<tr>") == drawn.count("<th>") == N_WAY
    assert drawn.count("<img ") == N_WAY * EACH
    wrong = int((of.answers[0] != of.episodes[0].query_labels).sum())
    assert drawn.count('class="bad"') == drawn.count("✗ &lt;") == wrong
    assert drawn.count("✓") == N_WAY * (EACH - 1) - wrong

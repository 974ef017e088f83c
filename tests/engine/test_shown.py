"""What a page shows of an episode: near images near each other, and the worst answers first."""

import mlx.core as mx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import fewshot as fs
from fewshot.core.draws import Episode
from fewshot.engine.protocol import leave_one_out
from fewshot.engine.shown import mapped, plane, shown, wrong


def episode(n_way: int, k: int, q: int) -> Episode:
    """Its items are in order, class after class, support first."""
    labels = np.repeat(np.arange(n_way), k + q)
    first = np.tile(np.arange(k + q) < k, n_way)
    support, query = np.flatnonzero(first), np.flatnonzero(~first)
    items, names = np.arange(len(labels)), tuple(f"c{i}" for i in range(n_way))
    return Episode(items, support, labels[support], query, labels[query], names)


def test_what_is_near_among_the_rows_is_near_on_the_map():
    rng = np.random.default_rng(0)
    groups = np.arange(40) % 5
    rows = 6 * rng.normal(size=(5, 16))[groups] + rng.normal(size=(40, 16))
    places = plane(rows.astype(np.float32))
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + 9 * np.eye(40)
    assert (groups[apart.argmin(axis=1)] == groups).all()
    np.testing.assert_array_equal(places, plane(rows.astype(np.float32)))


@settings(max_examples=8)
@given(st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_any_rows_have_a_place(n: int, d: int, alike: bool):
    rows = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32) * (not alike)
    places = plane(rows)
    assert places.shape == (n, 2)
    assert np.abs(places).max() <= 1


@settings(max_examples=15)
@given(st.integers(1, 130), st.integers(1, 5), st.integers(1, 5))
def test_a_map_is_of_support_and_queries_and_of_a_bounded_size(n_way: int, k: int, q: int):
    task = episode(n_way, k, q)
    items = mapped([task])
    assert len(items) == len({*items.tolist()}) <= 240
    both = [np.isin(items, task.items[of]) for of in (task.support, task.query)]
    assert both[0].any()
    assert both[1].any()
    if n_way * (k + q) <= 80 and k <= 2:
        assert len(items) == n_way * (k + q)


def test_the_worst_of_each_confusion_comes_first_beside_its_nearest_images():
    task = episode(3, 2, 2)
    rows = np.array(
        [[0], [1], [9], [0.5], [10], [11], [10.5], [2], [20], [21], [20.5], [20.6]], np.float32
    )
    answers = np.array([1, 0, 1, 0, 2, 2])
    found = wrong(rows, [task], [answers], fs.euclidean())
    assert [(each.image, each.own, each.taken) for each in found] == [(2, 1, 4), (7, 4, 1)]
    assert shown(rows, [task], [task.query_labels], fs.euclidean()).wrong == ()


@settings(max_examples=8)
@given(st.integers(2, 4), st.integers(2, 5))
def test_a_leave_one_out_is_shown_whole(n_way: int, each: int):
    labels = np.arange(n_way).repeat(each)
    blocks = leave_one_out(labels, None, range(n_way), 20)
    tasks = [block.episode(0) for block in blocks]
    rows = np.random.default_rng(each).normal(size=(len(labels), 3)).astype(np.float32)
    answers = [(task.query_labels + 1) % n_way for task in tasks]
    seen = shown(rows, tasks, answers, fs.euclidean())
    assert seen.mapped.tolist() == list(range(len(labels)))
    assert {(one.label, one.answer) for one in seen.wrong} == {
        (label, (label + 1) % n_way) for label in range(n_way)
    }
    for one in seen.wrong:
        assert one.image not in (one.own, one.taken)
        assert labels[[one.image, one.own, one.taken]].tolist() == [
            one.label, one.label, one.answer
        ]  # fmt: skip


def test_without_support_images_a_mistake_stands_alone():
    labels = np.array([0, 1])
    none = np.array([], np.int64)
    task = Episode(np.arange(2), none, none, np.arange(2), labels, ("a", "b"))
    (one, other) = wrong(np.eye(2, dtype=np.float32), [task], [1 - labels], fs.euclidean())
    assert {one.own, one.taken, other.own, other.taken} == {None}


def test_the_runs_own_metric_tells_the_nearest():
    def fn(x: mx.array, y: mx.array) -> mx.array:
        return -mx.abs(x - y).sum(axis=-1) + 100  # the farthest is the nearest

    task = episode(2, 2, 1)
    rows = np.array([[0], [5], [1], [3], [9], [2]], np.float32)
    metric = fs.Metric(fn, frozenset(), lambda _: 100.0)
    (only,) = wrong(rows, [task], [np.array([1, 1])], metric)
    assert (only.own, only.taken) == (1, 4)

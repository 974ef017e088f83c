"""Figures are what they say: against brute force and SciPy, on embeddings made by hand."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import scipy.stats
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.distance import cdist
from strategies import every, make

from fewshot import evaluation
from fewshot.backbones import Conv4Options, conv4
from fewshot.datasets import ArrayDataset
from fewshot.draws import Episode, EpisodeBlock, Pairs
from fewshot.embedding import Embedder, embed, evaluating, raw_pixels
from fewshot.errors import ConfigError, DataError
from fewshot.evaluation import (
    bootstrap_interval,
    embedding_speed,
    evaluate,
    k_shot_episodes,
    needed,
    predict,
    t_interval,
    unembedded,
    validation,
)
from fewshot.heads import nearest_prototype, nearest_support
from fewshot.metrics import cosine, euclidean, manhattan, sqeuclidean
from fewshot.records import ClassSplit, EvaluationOptions, Setting
from fewshot.samplers import EpisodesOptions, all_way, episodes
from fewshot.testing.laws import ULP
from fewshot.verification import best_threshold, pair_distances, roc_auc, verification_pairs, verify

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)
shares = st.lists(st.floats(0, 1), min_size=2, max_size=20).map(np.array)
NAMES = tuple("abcdef")


def toy(per_class: int = 12, classes: int = 6, size: int = 16, group: int = 2) -> ArrayDataset:
    """Noise images; classes in blocks, groups of `group` consecutive images."""
    n = classes * per_class
    rng = np.random.default_rng(0)
    return ArrayDataset(
        images=rng.integers(256, size=(n, size, size, 1)).astype(np.uint8),
        labels=np.repeat(np.arange(classes), per_class),
        classes=NAMES[:classes],
        groups=np.arange(n) // group,
    )


def corners(labels: Array, rng: np.random.Generator, noise: float = 0.1) -> NDArray[np.float32]:
    """One corner of a simplex for each class, so that every class is told from every other."""
    points = np.eye(labels.max() + 1)[labels]
    return (points + rng.uniform(-noise, noise, points.shape)).astype(np.float32)


def episode(rng: np.random.Generator, labels: Array, n_way: int = 4, k_shot: int = 3) -> Episode:
    classes = rng.choice(np.unique(labels), n_way, replace=False)
    pools = [rng.permutation(np.flatnonzero(labels == c)) for c in classes]
    support = np.concatenate([pool[:k_shot] for pool in pools])
    query = rng.permutation(np.concatenate([pool[k_shot:] for pool in pools]))
    named = [NAMES[c] for c in labels]
    return Episode.of(
        support.tolist(), [named[i] for i in support], query.tolist(), [named[i] for i in query]
    )


def one_by_one(blocks: list[EpisodeBlock]) -> list[Episode]:
    return [block.episode(i) for block in blocks for i in range(len(block))]


# ------------------------------------------------------------------------------ intervals


@given(values=shares)
def test_t_interval_is_scipys_cut_to_shares(values: Array) -> None:
    error = scipy.stats.sem(values)
    low, high = t_interval(values)
    if error > 1e-12:
        expected = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), error)
        assert (low, high) == pytest.approx(np.clip(expected, 0, 1), abs=1e-9)
    assert 0 <= low <= values.mean() + 1e-12
    assert values.mean() - 1e-12 <= high <= 1


def test_one_value_says_nothing_about_the_mean() -> None:
    assert t_interval(np.array([0.7])) == (0.0, 1.0)


@given(values=shares)
def test_bootstrap_interval_lies_among_the_values_and_repeats(values: Array) -> None:
    low, high = bootstrap_interval(values)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    assert bootstrap_interval(values) == (low, high)


def test_bootstrap_interval_of_many_values_is_scipys() -> None:
    values = np.random.default_rng(0).random(200)
    spread = values.std() / len(values) ** 0.5
    found = bootstrap_interval(values)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx(tuple(expected), abs=0.3 * spread)


# --------------------------------------------------------------------- pair verification


@st.composite
def judged(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Distances with many ties, and which pairs are alike: some, not all."""
    n = draw(st.integers(2, 15))
    distances = draw(
        arrays(np.float32, n, elements=st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 1.0, 7.3]))
    )
    same = draw(arrays(np.bool_, n))
    assume(same.any() and not same.all())
    return distances, same


@given(pair=judged())
def test_auc_is_the_share_of_couples_in_order_ties_half(pair: Any) -> None:
    distances, same = pair
    near, far = distances[same][:, None], distances[~same][None]
    expected = np.mean((near < far) + 0.5 * (near == far))
    assert roc_auc(distances, same) == pytest.approx(expected, abs=1e-12)


@given(pair=judged())
def test_auc_depends_on_order_alone_and_turns_round_with_the_labels(pair: Any) -> None:
    distances, same = pair
    area = roc_auc(distances, same)
    assert roc_auc(np.exp(distances), same) == pytest.approx(area, abs=1e-12)
    assert roc_auc(distances, ~same) == pytest.approx(1 - area, abs=1e-12)


def check_best(distances: Array, same: Array) -> None:
    def balanced(at: float) -> float:
        said = distances < at  # as `verify` says it
        hits = [np.mean(said[same])] if same.any() else []
        passes = [np.mean(~said[~same])] if not same.all() else []
        return float(np.mean(hits + passes))

    tried = [*distances.tolist(), *(distances + np.float32(0.01)).tolist(), -1.0, 100.0]
    assert balanced(best_threshold(distances, same)) == pytest.approx(max(map(balanced, tried)))


@given(pair=judged())
def test_no_threshold_is_right_more_often_than_the_best(pair: Any) -> None:
    check_best(*pair)


@given(pair=judged(), alike=st.booleans())
def test_the_best_threshold_of_pairs_of_one_kind_says_that_kind(pair: Any, alike: bool) -> None:
    check_best(pair[0], np.full_like(pair[1], alike))


@given(seed=seeds, block=st.integers(1, 10))
def test_pair_distances_are_the_metrics_whatever_the_block(seed: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, 3)).astype(np.float32)
    items = rng.permutation(9)[:6]
    left, right = rng.integers(6, size=(2, 8))
    draw = Pairs(items, left, right, left == right)
    expected = [cdist(rows[[items[a]]], rows[[items[b]]])[0, 0] for a, b in zip(left, right)]  # noqa: B905
    assert np.allclose(pair_distances(rows, draw, euclidean(), block), expected, atol=1e-5)


@given(seed=seeds, margin=st.one_of(st.none(), st.floats(0.1, 3)))
def test_verification_applies_the_other_classes_threshold(seed: int, margin: float | None) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 2)).astype(np.float32)
    draws = []
    for _ in range(2):
        left, right = rng.integers(10, size=(2, 30))
        draws.append(Pairs(rng.permutation(20)[:10], left, right, np.arange(30) < 12))
    found = verify(rows, *draws, sqeuclidean(), margin)
    tuning, test = (pair_distances(rows, draw, sqeuclidean()) for draw in draws)
    assert found.threshold == best_threshold(tuning, draws[0].same)
    assert found.auc == roc_auc(test, draws[1].same)
    assert found.accuracy == np.mean((test < found.threshold) == draws[1].same)
    assert found.pairs == 30
    assert found.margin == margin
    assert found.accuracy_at_margin == (
        None if margin is None else np.mean((test < margin) == draws[1].same)
    )


def test_well_separated_classes_are_verified_without_error() -> None:
    data, split = toy(), ClassSplit("ab", "cd", "ef")
    draws = verification_pairs(data, split, EvaluationOptions(pairs=200))
    assert draws is not None
    found = verify(corners(data.labels, np.random.default_rng(0)), *draws, euclidean(), 0.7)
    assert found.auc == found.accuracy == found.accuracy_at_margin == 1


def test_verification_pairs_come_from_validation_and_test_classes() -> None:
    data, options = toy(), EvaluationOptions(pairs=60)
    for split, chosen in (
        (ClassSplit("ab", "cd", "ef"), "cd"),
        (ClassSplit("abc", "d", "ef"), "abc"),
    ):
        draws = verification_pairs(data, split, options)
        assert draws is not None
        for draw, allowed in zip(draws, (chosen, "ef"), strict=True):
            assert {NAMES[c] for c in data.labels[draw.items]} == set(allowed)
            assert len(draw.same) == 60
    assert verification_pairs(data, ClassSplit("abc", "de", "f"), options) is None
    assert verification_pairs(data, split, evolve(options, pairs=0)) is None


# ------------------------------------------------------------------------ few-shot figures


@every("head")
@given(seed=seeds)
def test_separated_embeddings_are_classified_without_error(entry: Any, seed: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    tasks = [episode(rng, labels) for _ in range(3)]
    found = evaluate(corners(labels, rng), tasks, make(entry), euclidean(), NAMES)
    assert found.accuracy == 1
    assert found.per_episode.tolist() == [1, 1, 1]
    assert set(found.per_class.values()) == {1.0}
    assert np.array_equal(found.confusion, np.diag(np.diag(found.confusion)))


@every("head")
@given(seed=seeds, n_way=st.integers(2, 6))
def test_embeddings_that_say_nothing_reach_chance_exactly(
    entry: Any, seed: int, n_way: int
) -> None:
    # All scores are equal, the first class wins, and queries are balanced.
    rng, labels = np.random.default_rng(seed), toy().labels
    rows = np.ones((len(labels), 3), np.float32)
    found = evaluate(rows, [episode(rng, labels, n_way)], make(entry), euclidean(), NAMES)
    assert found.accuracy == pytest.approx(1 / n_way)


@every("head")
@given(seed=seeds)
def test_figures_are_counted_from_the_answers(entry: Any, seed: int) -> None:
    rng, labels, head = np.random.default_rng(seed), toy().labels, make(entry)
    rows = rng.normal(size=(len(labels), 3)).astype(np.float32)
    tasks = [episode(rng, labels, n_way) for n_way in (2, 3, 4)]
    found = evaluate(rows, iter(tasks), head, cosine(), NAMES)
    confusion = np.zeros((6, 6), np.int64)
    shares_right = []
    for task in tasks:
        answers = predict(rows, task, head, cosine())
        names = np.array(task.classes)
        for truth, answer in zip(names[task.query_labels], names[answers], strict=True):
            confusion[NAMES.index(truth), NAMES.index(answer)] += 1
        shares_right.append(np.mean(answers == task.query_labels))
    assert np.array_equal(found.confusion, confusion)
    assert np.allclose(found.per_episode, shares_right)
    assert found.accuracy == pytest.approx(np.mean(shares_right))
    assert found.confusion.sum() == sum(len(task.query) for task in tasks)
    asked = confusion.sum(axis=1)
    right = {n: confusion[i, i] / asked[i] for i, n in enumerate(NAMES) if asked[i]}
    assert found.per_class == pytest.approx(right)
    assert found.ci95 == t_interval(found.per_episode)
    assert found.ci95_classes == bootstrap_interval(np.array(list(found.per_class.values())))
    assert found.classes == NAMES


@given(seed=seeds)
def test_predict_agrees_with_a_search_in_float64(seed: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    rows, task = rng.normal(size=(len(labels), 3)).astype(np.float32), episode(rng, labels)
    support, query = task.items[task.support], task.items[task.query]
    table = cdist(rows[query].astype(np.float64), rows[support].astype(np.float64))
    nearest = np.sort(table, axis=1)
    clear = nearest[:, 1] - nearest[:, 0] > 1e-5
    expected = task.support_labels[table.argmin(axis=1)]
    found = predict(rows, task, nearest_support(), euclidean())
    assert found.dtype == np.int64
    assert np.array_equal(found[clear], expected[clear])


@every("head")
@given(seed=seeds, numbers=st.integers(1, 2000))
def test_answers_do_not_depend_on_the_size_of_a_block(entry: Any, seed: int, numbers: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    rows, task = rng.normal(size=(len(labels), 3)).astype(np.float32), episode(rng, labels)
    for metric in (euclidean(), evolve(euclidean(), matrix=None)):
        whole = predict(rows, task, make(entry), metric)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation, "_numbers", lambda _: numbers)
            assert np.array_equal(predict(rows, task, make(entry), metric), whole)


def same_figures(a: Any, b: Any) -> None:
    assert a.per_episode.tolist() == pytest.approx(b.per_episode.tolist(), abs=1e-12)
    assert np.array_equal(a.confusion, b.confusion)
    assert (a.digest, a.classes) == (b.digest, b.classes)
    assert a.per_class == b.per_class
    assert a.accuracy == pytest.approx(b.accuracy, abs=1e-12)
    assert a.ci95 == pytest.approx(b.ci95, abs=1e-12)


@every("head")
@given(seed=seeds, count=st.integers(1, 40), grouped=st.booleans(), data=st.data())
def test_figures_do_not_depend_on_how_episodes_are_put_together(
    entry: Any, seed: int, count: int, grouped: bool, data: Any
) -> None:
    rng, images = np.random.default_rng(seed), toy(per_class=8)
    rows = rng.normal(size=(len(images.labels), 3)).astype(np.float32)
    groups = images.groups if grouped else None
    # With groups the second sampler's episodes differ in their number of queries.
    uneven = None if groups is None else np.where(np.arange(48) % 8 < 3, 0, np.arange(48))
    names = data.draw(st.sampled_from([None, [f"{i}.png" for i in range(48)]]))
    head = make(entry)
    for sampler in (
        episodes(EpisodesOptions(3, 2, 2), images.labels, groups),
        all_way(images.labels, uneven, [1, 4], 2),
    ):
        single = [sampler.draw(seed, i) for i in range(count)]
        given = [head, euclidean(), NAMES, names]
        expected = evaluate(rows, single, *given)
        same_figures(evaluate(rows, sampler.blocks(seed, count), *given), expected)
        at = data.draw(st.integers(0, count))
        mixed = [*single[:at], *(EpisodeBlock.of([task]) for task in single[at:])]
        same_figures(evaluate(rows, iter(mixed), *given), expected)
        for numbers in data.draw(st.lists(st.integers(1, 5000), min_size=1, max_size=2)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(evaluation, "_numbers", lambda _, numbers=numbers: numbers)
                same_figures(evaluate(rows, sampler.blocks(seed, count), *given), expected)


@given(seed=seeds)
def test_figures_agree_with_a_loop_in_float64(seed: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    rows = rng.normal(size=(len(labels), 4)).astype(np.float32)
    single = [episode(rng, labels, n_way) for n_way in (3, 3, 2, 2, 2, 4)]
    single += [lopsided()[1]]
    confusion, shares_right = np.zeros((6, 6), np.int64), []
    for task in single:
        support, query = (rows[task.items[x]].astype(float) for x in (task.support, task.query))
        answers = []
        for image in query:
            means = [support[task.support_labels == c].mean(axis=0) for c in range(task.n_way)]
            answers.append(int(np.argmin([np.linalg.norm(image - mean) for mean in means])))
        right: dict[int, list[bool]] = {}
        for truth, answer in zip(task.query_labels, answers, strict=True):
            right.setdefault(int(truth), []).append(truth == answer)
            row, column = (NAMES.index(str(task.classes[y])) for y in (truth, answer))
            confusion[row, column] += 1
        shares_right.append(np.mean([np.mean(r) for r in right.values()]))
    found = evaluate(rows, single, nearest_prototype(), euclidean(), NAMES)
    assert np.array_equal(found.confusion, confusion)
    assert found.per_episode.tolist() == pytest.approx(shares_right)


@pytest.mark.parametrize("metric", [euclidean(), manhattan()], ids=["products", "broadcast"])
@every("head")
def test_no_array_is_larger_than_the_memory_allows(entry: Any, metric: Any) -> None:
    rng, images = np.random.default_rng(0), toy(per_class=60)
    rows = rng.normal(size=(360, 300)).astype(np.float32)
    drawn = list(all_way(images.labels, None, [0, 1, 2], 20).blocks(0, 4))
    evaluate(rows, drawn, make(entry), metric, NAMES, memory=8)  # what is made once
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    evaluate(rows, drawn, make(entry), metric, NAMES, memory=8)
    assert mx.get_peak_memory() - before < 8 << 20


@pytest.mark.parametrize(
    "change", ["query label", "support label", "query", "support", "class", "more"]
)
@given(seed=seeds)
def test_a_digest_names_the_episodes_whatever_the_embedding(change: str, seed: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    rows = rng.normal(size=(2, len(labels), 3)).astype(np.float32)
    tasks = [episode(rng, labels) for _ in range(2)]

    def digest(tasks: list[Episode], run: int = 0) -> str:
        head, metric = ((nearest_support(), cosine()), (nearest_prototype(), euclidean()))[run]
        return evaluate(rows[run], tasks, head, metric, NAMES).digest

    here = digest(tasks)
    assert digest(tasks, 1) == here
    by_id = [evolve(t, classes=[NAMES.index(c) for c in t.classes]) for t in tasks]
    assert digest(by_id) == here  # a class by its name and by its id is one class
    last = tasks[-1]
    wrong, items = (last.query_labels + 1) % last.n_way, last.items.copy()
    turned = (last.support_labels + 1) % last.n_way
    if change in ("query", "support"):
        free = np.setdiff1d(np.arange(len(labels)), items)
        items[getattr(last, change)[0]] = free[0]
    other = {
        "query label": [tasks[0], evolve(last, query_labels=wrong)],
        "support label": [tasks[0], evolve(last, support_labels=turned)],
        "query": [tasks[0], evolve(last, items=items)],
        "support": [tasks[0], evolve(last, items=items)],
        "class": [tasks[0], evolve(last, classes=last.classes[::-1])],
        "more": [*tasks, last],
    }[change]
    assert digest(other) != here
    assert digest(tasks[::-1]) != here


def test_episodes_whose_numbers_run_together_have_two_digests() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    wide = Episode([5, 6, 7, 8, 0], [0, 1], [0, 1], [2, 3, 4], [0, 0, 0], (0, 1))
    tall = Episode([5, 6, 7, 8], [0, 1, 2], [0, 0, 1], [3], [0], (0, 1))
    one, other = (
        evaluate(rows, [task], nearest_support(), euclidean(), NAMES).digest
        for task in (wide, tall)
    )
    assert one != other


def test_no_episode_is_nothing_to_evaluate() -> None:
    with pytest.raises(ConfigError, match="no episode"):
        evaluate(np.zeros((3, 2), np.float32), [], nearest_support(), euclidean(), NAMES)


def test_an_episode_without_queries_has_no_answers() -> None:
    task = Episode.of([0, 1], ["a", "b"], [], [])
    found = predict(np.eye(2, dtype=np.float32), task, nearest_support(), euclidean())
    assert found.shape == (0,)


@every("head")
@pytest.mark.parametrize("side", ["support", "query"])
def test_a_row_that_was_never_embedded_does_not_pass_for_an_answer(entry: Any, side: str) -> None:
    rng, labels = np.random.default_rng(0), toy().labels
    rows, task = corners(labels, rng), episode(rng, labels)
    rows[task.items[getattr(task, side)[0]]] = np.nan
    with pytest.raises((ConfigError, DataError, ValueError), match=r"(?i)nan|embed"):
        predict(rows, task, make(entry), euclidean())
    with pytest.raises((ConfigError, DataError, ValueError), match=r"(?i)nan|embed"):
        evaluate(rows, [episode(rng, labels), task], make(entry), euclidean(), NAMES)


def test_a_row_that_no_episode_uses_may_be_missing_and_infinities_are_numbers() -> None:
    rng, labels = np.random.default_rng(0), toy().labels
    rows, task = corners(labels, rng), episode(rng, labels)
    expected = evaluate(rows, [task], nearest_support(), euclidean(), NAMES)
    rows[np.setdiff1d(np.arange(len(rows)), task.items)] = np.nan
    same_figures(evaluate(rows, [task], nearest_support(), euclidean(), NAMES), expected)
    rows[task.items[task.query[0]], :2] = [np.inf, -np.inf]
    evaluate(rows, [task], nearest_support(), euclidean(), NAMES)


def test_rows_known_to_be_missing_are_not_looked_for_again() -> None:
    rng, labels = np.random.default_rng(0), toy().labels
    rows, task = corners(labels, rng), episode(rng, labels)
    given = ([task], nearest_prototype(), euclidean(), NAMES)
    missing = unembedded(rows)
    assert not missing.any()
    same_figures(evaluate(rows, *given, missing=missing), evaluate(rows, *given))
    rows[task.query[0], 1] = np.nan
    assert np.flatnonzero(unembedded(rows)).tolist() == [task.query[0]]
    missing[task.items[task.support[0]]] = True
    with pytest.raises(ConfigError, match="not embedded"):
        evaluate(corners(labels, rng), *given, missing=missing)


def test_an_image_beyond_the_embeddings_is_an_error() -> None:
    rng, labels = np.random.default_rng(0), toy().labels
    task = episode(rng, labels)
    rows = corners(labels, rng)[: task.items.max()]
    with pytest.raises(IndexError):
        predict(rows, task, nearest_support(), euclidean())
    with pytest.raises(IndexError):
        evaluate(rows, [task], nearest_support(), euclidean(), NAMES)


# -------------------------------------------------------------------------- the run's tasks


@pytest.mark.parametrize("groups", ["separate", "mixed"])
def test_all_way_tasks_support_every_class_and_query_the_test_classes(groups: Any) -> None:
    data, split = toy(), ClassSplit("ab", "c", "ef")  # d is in no part
    options = EvaluationOptions(k_shot=(1, 3, 5), repeats=4, groups=(groups,))
    blocks = k_shot_episodes(data, split, options)
    assert list(blocks) == [Setting(k, 0, groups) for k in (1, 3, 5)]
    found = {setting.k_shot: one_by_one(blocks[setting]) for setting in blocks}
    for k, tasks in found.items():
        assert len(tasks) == 4
        assert len({task.items.tobytes() for task in tasks}) == 4
        for task in tasks:
            assert [NAMES[c] for c in task.classes] == list("abcef")
            assert np.bincount(task.support_labels).tolist() == [k] * 5
            assert {NAMES[task.classes[y]] for y in task.query_labels} == {"e", "f"}
            if groups == "mixed":
                assert len(task.query) == 2 * (12 - k)
    images = np.unique([i for tasks in found.values() for task in tasks for i in task.items])
    for tasks in (found, blocks):
        assert np.array_equal(needed([task for part in tasks.values() for task in part]), images)


def test_standard_tasks_are_of_test_classes_with_the_counts_asked_for() -> None:
    options = EvaluationOptions(k_shot=(1, 2), n_way=(2,), n_query=4, episodes=5)
    found = k_shot_episodes(toy(), ClassSplit("ab", "c", "def"), options)
    assert {(setting.n_way, setting.groups) for setting in found} == {(2, "separate")}
    for setting, blocks in found.items():
        k, tasks = setting.k_shot, one_by_one(blocks)
        assert len(tasks) == 5
        for task in tasks:
            assert {NAMES[c] for c in task.classes} < set("def")
            assert np.bincount(task.support_labels).tolist() == [k] * 2
            assert np.bincount(task.query_labels).tolist() == [4] * 2


def test_every_setting_asked_for_has_the_episodes_it_has_alone() -> None:
    split = ClassSplit("ab", "c", "def")
    options = EvaluationOptions((1, 2), n_way=(0, 2), groups=("mixed", "separate"), n_query=2)
    found = k_shot_episodes(toy(), split, options)
    assert list(found) == [
        Setting(k, n_way, groups)
        for n_way in (0, 2)
        for groups in ("mixed", "separate")
        for k in (1, 2)
    ]
    for setting, blocks in found.items():
        alone = EvaluationOptions(
            (setting.k_shot,), (setting.n_way,), groups=(setting.groups,), n_query=2
        )
        ((same, others),) = k_shot_episodes(toy(), split, alone).items()
        assert same == setting
        for one, other in zip(one_by_one(blocks), one_by_one(others), strict=True):
            assert np.array_equal(one.items, other.items)
    ungrouped = k_shot_episodes(evolve(toy(), groups=None), split, options)
    assert list(ungrouped) == [Setting(k, n_way) for n_way in (0, 2) for k in (1, 2)]


def test_two_evaluations_of_one_seed_meet_the_same_tasks_and_others_do_not() -> None:
    split = ClassSplit("abc", "", "def")

    def images(seed: int, grouping: Any = "mixed", k_shot: tuple[int, ...] = (1, 2)) -> list[Any]:
        options = EvaluationOptions(k_shot, repeats=2, seed=seed, groups=(grouping,))
        tasks = one_by_one(k_shot_episodes(toy(), split, options)[Setting(2, 0, grouping)])
        return [task.items.tolist() for task in tasks]

    assert images(3) == images(3)
    assert images(3) == images(3, k_shot=(2,))  # other shots asked for beside it change nothing
    assert images(3) != images(4)


def test_a_hundred_shots_work_and_one_more_image_is_needed() -> None:
    split, options = ClassSplit("a", "", "b"), EvaluationOptions(k_shot=(100,), repeats=2)
    data = toy(101, 2, 2, group=1)
    tasks = one_by_one(
        k_shot_episodes(data, split, evolve(options, groups=("mixed",)))[Setting(100, 0, "mixed")]
    )
    assert all(np.bincount(task.support_labels).tolist() == [100, 100] for task in tasks)
    assert all(len(task.query) == 1 for task in tasks)
    rows = corners(toy(101, 2, 2).labels, np.random.default_rng(0))
    assert evaluate(rows, tasks, nearest_support(), euclidean(), NAMES[:2]).accuracy == 1
    with pytest.raises(DataError, match=r"100 images.*100.*k_shot"):
        k_shot_episodes(toy(100, 2, 2), split, evolve(options, groups=("mixed",)))


@pytest.mark.parametrize(
    "change",
    [
        {"k_shot": ()},
        {"k_shot": (0,)},
        {"n_way": ()},
        {"n_way": (1,)},
        {"groups": ()},
        {"groups": "mixed"},
        {"n_query": 0},
        {"episodes": 1},
        {"repeats": 1},
        {"pairs": -1},
        {"memory": 0},
    ],
)
def test_an_evaluation_that_measures_nothing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        EvaluationOptions(**change)


# ------------------------------------------------------------------------------ embedding


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    mx.random.seed(seed)
    net = conv4(Conv4Options(4), (16, 16, 1))
    if dropout:
        net.layers.layers.append(nn.Dropout(dropout))
    return net


def state(module: nn.Module) -> dict[str, Any]:
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def modes(module: nn.Module) -> dict[str, bool]:
    return {name: part.training for name, part in module.named_modules()}


@given(data=st.data(), batch=st.integers(1, 40))
def test_embedding_puts_back_every_mode_and_changes_no_number(data: Any, batch: int) -> None:
    net, images = network(dropout=0.5), toy(per_class=4)
    # No `train(mode)`: that would set the children's too.
    for part in net.modules():
        part._training = data.draw(st.booleans())
    before, mode_before = state(net), modes(net)
    first = embed(Embedder(net), images, batch=batch)
    assert modes(net) == mode_before
    after = state(net)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # Neither dropout nor the batch's own statistics: every batch size gives the same.
    assert np.allclose(first, embed(Embedder(net), images), atol=100 * ULP)


def test_modes_are_put_back_where_the_inside_fails() -> None:
    net = network(dropout=0.5)
    net.layers.layers[1].eval()
    before = modes(net)

    def fail() -> None:
        with evaluating(net):
            assert not any(modes(net).values())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert modes(net) == before


@given(data=st.data())
def test_rows_asked_for_are_those_of_the_whole_and_all_others_are_nan(data: Any) -> None:
    images = toy(per_class=3)
    rows = st.lists(st.integers(0, len(images.labels) - 1), min_size=1, max_size=25)
    indices = np.array(data.draw(rows))
    embedder = Embedder(network())
    whole, part = embed(embedder, images), embed(embedder, images, indices, batch=4)
    assert part.shape == whole.shape
    assert np.allclose(part[indices], whole[indices], atol=100 * ULP)
    assert np.isnan(part[np.setdiff1d(np.arange(len(whole)), indices)]).all()
    floor = raw_pixels(images, indices)
    assert np.isfinite(floor[indices]).all()
    assert np.isnan(floor[np.setdiff1d(np.arange(len(whole)), indices)]).all()


def test_embeddings_have_length_one_unless_told_otherwise() -> None:
    images, net = toy(per_class=3), network()
    plain = embed(Embedder(net, normalize="none"), images)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert lengths.min() > 0.01
    assert lengths.max() - lengths.min() > 0.01
    assert np.allclose(embed(Embedder(net), images), plain / lengths, atol=100 * ULP)


def test_progress_counts_the_batches_of_an_embedding() -> None:
    calls: list[tuple[int, int]] = []
    embed(Embedder(network()), toy(4), batch=10, progress=lambda *done: calls.append(done))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@given(size=st.integers(1, 8), by=st.integers(1, 4), c=st.sampled_from([1, 3]), seed=seeds)
def test_raw_pixels_are_pillows_box_average(size: int, by: int, c: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(256, size=(3, size * by, size * by, c))
    data = ArrayDataset(images.astype(np.uint8), [0, 0, 1], ("a", "b"))
    found = raw_pixels(data, np.arange(3), size).reshape(3, size, size, c)
    for i, channel in np.ndindex(3, c):
        plane = Image.fromarray(images[i, :, :, channel].astype(np.float32))
        box = np.asarray(plane.resize((size, size), Image.Resampling.BOX)) / 255
        assert np.allclose(found[i, :, :, channel], box, atol=1e-5)


@given(h=st.integers(1, 20), w=st.integers(1, 20), size=st.integers(1, 8), seed=seeds)
def test_raw_pixels_average_whole_blocks_of_any_image(h: int, w: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(256, size=(1, h, w, 2)).astype(np.uint8)
    data = ArrayDataset(image, [0], ("a",))
    found = raw_pixels(data, np.array([0]), size)
    rows, columns, down, across = min(size, h), min(size, w), max(1, h // size), max(1, w // size)
    expected = [
        image[0, r * down : (r + 1) * down, k * across : (k + 1) * across].mean(axis=(0, 1)) / 255
        for r in range(rows)
        for k in range(columns)
    ]
    assert np.allclose(found[0], np.ravel(expected), atol=1e-5)


def test_speeds_are_positive_and_one_image_takes_the_reciprocal() -> None:
    net = network().train()
    found = embedding_speed(Embedder(net), (16, 16, 1), batch=4, seconds=0)
    assert min(found.values()) > 0
    assert found["single_latency_ms"] * found["single_images_per_second"] == pytest.approx(1000)
    assert all(modes(net).values())


# ----------------------------------------------------------------------------- validation


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
    examine = validation(
        Embedder(net), data, ClassSplit("ab", "cd", "ef"), make(entry), euclidean()
    )
    assert examine is not None
    figures = examine()
    assert data.seen == set("abcd")
    assert figures.keys() == {"score", "auc", "pair_accuracy", "train_pair_accuracy"}
    assert all(0 <= value <= 1 for value in figures.values())
    assert examine() == figures
    mx.random.seed(9)
    net.layers.layers[0].weight = mx.random.normal(net.layers.layers[0].weight.shape)
    assert examine() != figures  # it looks at the embedder as it is now


def test_validation_on_one_class_has_no_pairs_to_verify() -> None:
    split = ClassSplit("abc", "d", "ef")
    examine = validation(Embedder(network()), toy(), split, nearest_support(), euclidean())
    assert examine is not None
    assert examine().keys() == {"score"}


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


# ------------------------------------------------------------------ classes, names and their weight


def lopsided() -> tuple[NDArray[np.float32], Episode]:
    """Nine queries of class a, all right; one of class b, wrong."""
    embeddings = np.zeros((12, 1), np.float32)
    embeddings[1] = 1
    task = Episode.of([0, 1], ["a", "b"], range(2, 12), ["a"] * 9 + ["b"])
    return embeddings, task


def test_every_query_class_weighs_the_same_in_an_episodes_accuracy() -> None:
    embeddings, task = lopsided()
    result = evaluate(embeddings, [task, task], nearest_support(), euclidean(), ["a", "b"])
    assert result.accuracy == np.mean(list(result.per_class.values())) == 0.5


def test_the_digest_tells_images_by_name() -> None:
    embeddings, task = lopsided()

    def digest(names: list[str] | None) -> str:
        given = (embeddings, [task], nearest_support(), euclidean(), ["a", "b"], names)
        return evaluate(*given).digest

    names = [f"{i}.jpg" for i in range(12)]
    assert digest(names) == digest(list(names))
    assert len({digest(names), digest([*names[:-1], "other.jpg"]), digest(None)}) == 3


@pytest.mark.parametrize("stranger", ["c", 2, -1])
def test_a_class_that_the_dataset_lacks_is_named(stranger: int | str) -> None:
    embeddings, task = lopsided()
    with pytest.raises(DataError, match=str(stranger)):
        evaluate(
            embeddings,
            [evolve(task, classes=("a", stranger))],
            nearest_support(),
            euclidean(),
            ["a", "b"],
        )


def test_one_class_says_nothing_about_other_classes() -> None:
    assert evaluation.bootstrap_interval(np.array([0.8])) == (0.0, 1.0)

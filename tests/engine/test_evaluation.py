"""Figures are what they say: against brute force and SciPy, on embeddings made by hand."""

import itertools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import scipy.stats
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import every, make
from toys import NAMES, toy

from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import ConfigError, DataError
from fewshot.data.split import ClassSplit
from fewshot.engine import evaluation
from fewshot.engine.evaluation import evaluate, predict, unembedded
from fewshot.engine.protocol import (
    EvaluationOptions,
    Setting,
    held_out_episodes,
    k_shot_episodes,
    needed,
    validation_draws,
)
from fewshot.engine.statistics import bootstrap_interval, t_interval
from fewshot.parts.episodes import EpisodesOptions, all_way, episodes
from fewshot.parts.heads.nearest import nearest_support
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.metrics import cosine, euclidean, manhattan

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)
shares = st.lists(st.floats(0, 1), min_size=2, max_size=20).map(np.array)


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


# ------------------------------------------------------------------------ few-shot figures


@every("head")
@given(seed=seeds)
def test_separated_embeddings_are_classified_without_error(entry: Any, seed: int) -> None:
    rng, labels = np.random.default_rng(seed), toy().labels
    tasks = [episode(rng, labels) for _ in range(3)]
    head = make(entry, embedding_dim=6)
    if head.module is not None:
        pytest.skip("has yet to learn it")
    found = evaluate(corners(labels, rng), tasks, head, euclidean(), NAMES)
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
    head = make(entry, embedding_dim=3)
    if head.module is not None:
        pytest.skip("equal but for the rounding of its layers")
    if head.queries == "together":
        pytest.skip("equal but for the rounding of what flows between queries")
    rows = np.ones((len(labels), 3), np.float32)
    found = evaluate(rows, [episode(rng, labels, n_way)], head, euclidean(), NAMES)
    assert found.accuracy == pytest.approx(1 / n_way)


@every("head")
@given(seed=seeds)
def test_figures_are_counted_from_the_answers(entry: Any, seed: int) -> None:
    rng, labels, head = np.random.default_rng(seed), toy().labels, make(entry, embedding_dim=3)
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
    head = make(entry, embedding_dim=3)
    for metric in (euclidean(), evolve(euclidean(), matrix=None)):
        whole = predict(rows, task, head, metric)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation, "_numbers", lambda _: numbers)
            assert np.array_equal(predict(rows, task, head, metric), whole)


def test_a_head_that_looks_at_queries_together_is_asked_about_all_whatever_the_memory() -> None:
    rng, asked = np.random.default_rng(0), []
    rows = rng.normal(size=(4000, 64)).astype(np.float32)
    names = np.array(NAMES)[np.arange(4000) % 4]
    task = Episode.of(range(100), names[:100], range(100, 4000), names[100:])
    known = nearest_prototype()

    def scores(means: mx.array, query: mx.array, metric: Any) -> mx.array:
        asked.append(query.shape[-2])
        return known.scores(means - query.mean(axis=-2, keepdims=True), query, metric)

    head = evolve(known, scores=scores, queries="together")
    found = [
        evaluate(rows, [task], head, euclidean(), NAMES, memory=memory) for memory in (1, 2, 4000)
    ]
    assert {each.accuracy for each in found} == {found[-1].accuracy}
    assert asked == [3900] * 3


def same_figures(a: Any, b: Any) -> None:
    assert a.per_episode.tolist() == pytest.approx(b.per_episode.tolist(), abs=1e-12)
    assert np.array_equal(a.confusion, b.confusion)
    assert (a.digest, a.classes) == (b.digest, b.classes)
    assert a.per_class == b.per_class
    assert a.accuracy == pytest.approx(b.accuracy, abs=1e-12)
    assert a.ci95 == pytest.approx(b.ci95, abs=1e-12)


@every("head")
@settings(max_examples=10)
@given(seed=seeds, count=st.integers(1, 15), grouped=st.booleans(), data=st.data())
def test_figures_do_not_depend_on_how_episodes_are_put_together(
    entry: Any, seed: int, count: int, grouped: bool, data: Any
) -> None:
    rng, images = np.random.default_rng(seed), toy(per_class=8)
    rows = rng.normal(size=(len(images.labels), 3)).astype(np.float32)
    groups = images.groups if grouped else None
    # With groups the second sampler's episodes differ in their number of queries.
    uneven = None if groups is None else np.where(np.arange(48) % 8 < 3, 0, np.arange(48))
    names = data.draw(st.sampled_from([None, [f"{i}.png" for i in range(48)]]))
    head = make(entry, embedding_dim=3)
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
    head = make(entry, embedding_dim=300)
    evaluate(rows, drawn, head, metric, NAMES, memory=8)  # what is made once
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    evaluate(rows, drawn, head, metric, NAMES, memory=8)
    # An episode of a head that asks together is never cut.
    allowed = 8 if head.queries == "alone" else 16
    assert mx.get_peak_memory() - before < allowed << 20


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
    head = make(entry, embedding_dim=6)
    with pytest.raises((ConfigError, DataError, ValueError), match=r"(?i)nan|embed"):
        predict(rows, task, head, euclidean())
    with pytest.raises((ConfigError, DataError, ValueError), match=r"(?i)nan|embed"):
        evaluate(rows, [episode(rng, labels), task], head, euclidean(), NAMES)


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


@pytest.mark.parametrize("grouped", [False, True])
def test_enrolment_and_probe_images_stay_what_they_are(grouped: bool) -> None:
    """Of every examination, whatever is asked: a fixed part of each class is never asked about."""
    images = toy(per_class=24)
    role = np.tile(["support"] * 4 + ["query"] * 6 + ["both"] * 2, 12)
    data = evolve(images, role=role, groups=images.groups if grouped else None)
    split = ClassSplit(["a", "b"], ["c", "d"], ["e", "f"])
    options = EvaluationOptions(k_shot=(1, 3), n_way=(0, 2), n_query=3, episodes=20, repeats=5)
    validation = validation_draws(data, split, pool=12)
    assert validation is not None
    held_out = held_out_episodes(data, split, options)
    assert set(held_out) == {1, 3}
    blocks = [*itertools.chain(*k_shot_episodes(data, split, options).values()), *validation.tasks]
    blocks += [block for sides in held_out.values() for side in sides for block in side]
    for block in blocks:
        assert "query" not in role[block.support]
        assert "support" not in role[block.query]


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
        {"k_shot": (-1,)},
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
    assert bootstrap_interval(np.array([0.8])) == (0.0, 1.0)

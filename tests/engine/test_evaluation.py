"""Figures are what they say: against brute force and SciPy, on embeddings made by hand."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from strategies import every, make
from toys import NAMES, toy

from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import ConfigError, DataError
from fewshot.engine import evaluation
from fewshot.engine.evaluation import evaluate, predict, unembedded
from fewshot.engine.statistics import bootstrap_interval, t_interval
from fewshot.parts.episodes import EpisodesOptions, all_way, episodes
from fewshot.parts.heads.nearest import nearest_support
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.metrics import cosine, euclidean, manhattan

Array = NDArray[Any]

seeds = st.integers(0, 2**32 - 1)


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
@settings(max_examples=5)  # the counting is the same for all
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
@settings(max_examples=5)
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

"""Queries whose class shares are drawn: how many, of whom, and what the evaluation says of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

import fewshot as fs
from fewshot.engine.evaluation import evaluate
from fewshot.engine.protocol import EvaluationOptions, Setting, k_shot_episodes

seeds = st.integers(0, 2**32 - 1)


def labelled(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


@given(
    seed=seeds,
    sizes=st.lists(st.integers(8, 30), min_size=3, max_size=6),
    concentration=st.floats(0.01, 50),
    groups=st.sampled_from((0, 2)),
)
@settings(max_examples=40)
def test_an_episode_asks_as_many_queries_however_they_are_shared_out(
    seed: int, sizes: list[int], concentration: float, groups: int
):
    labels = labelled(sizes)
    of = np.arange(len(labels)) // groups if groups else None
    options = fs.EpisodesOptions(3, 2, 2, dirichlet=concentration)
    sampler = fs.episodes(options, labels, of)
    (block,) = sampler.blocks(seed, 9)
    assert block.query.shape == (9, 6)
    for i in range(9):
        task = block.episode(i)
        assert len(np.unique(task.items)) == len(task.items) == 12
        ids = np.array(task.classes)
        assert np.array_equal(labels[task.items[task.query]], ids[task.query_labels])
        alone = sampler.draw(seed, i)
        assert np.array_equal(alone.items, task.items)
        assert np.array_equal(alone.query_labels, task.query_labels)
        if of is not None:
            assert not {*of[task.items[task.support]]} & {*of[task.items[task.query]]}


@given(seed=seeds)
@settings(max_examples=10)
def test_classes_and_support_are_those_of_even_queries(seed: int):
    labels = labelled([20] * 7)
    even, uneven = (
        next(iter(fs.episodes(fs.EpisodesOptions(4, 2, 5, dirichlet=a), labels).blocks(seed, 20)))
        for a in (0.0, 2.0)
    )
    assert np.array_equal(even.support, uneven.support)
    assert np.array_equal(even.classes, uneven.classes)


@pytest.mark.parametrize("concentration", [0.5, 2.0, 20.0])
def test_shares_are_of_the_distribution(concentration: float):
    labels = labelled([400] * 5)
    sampler = fs.episodes(fs.EpisodesOptions(5, 1, 60, dirichlet=concentration), labels)
    rows = np.concatenate([block.query_labels for block in sampler.blocks(0, 1000)])
    shares = np.stack([(rows == c).mean(axis=1) for c in range(5)])
    # Of Dirichlet(a, …, a) over w: mean 1/w, variance (w - 1) / w² / (w a + 1).
    variance = 4 / 25 / (5 * concentration + 1)
    assert np.allclose(shares.mean(axis=1), 0.2, atol=5 * (variance / 1000) ** 0.5)
    assert np.allclose(shares.var(axis=1), variance, rtol=0.25)


def test_a_class_that_is_too_small_gives_its_queries_to_others():
    sampler = fs.episodes(fs.EpisodesOptions(3, 1, 5, dirichlet=0.05), labelled([6, 6, 30]))
    rows = np.concatenate([block.query_labels for block in sampler.blocks(0, 200)])
    counts = np.stack([(rows == c).sum(axis=1) for c in range(3)])
    assert (counts.sum(axis=0) == 15).all()
    assert counts.max() > 5  # uneven all the same
    every = [*sampler.blocks(0, 200)]
    asked = np.concatenate([np.take_along_axis(b.classes, b.query_labels, 1) for b in every])
    assert ((asked == 0).sum(axis=1) <= 5).all()
    assert ((asked == 1).sum(axis=1) <= 5).all()


@given(seed=seeds, concentration=st.sampled_from((0.0, 0.3, 2.0)))
@settings(max_examples=15)
def test_balance_and_accuracy_over_queries_are_what_they_say(seed: int, concentration: float):
    labels = labelled([30] * 6)
    rows = np.random.default_rng(seed).normal(size=(len(labels), 4)).astype(np.float32)
    sampler = fs.episodes(fs.EpisodesOptions(4, 1, 6, dirichlet=concentration), labels)
    blocks = [*sampler.blocks(seed, 12)]
    head, metric, names = fs.nearest_prototype(), fs.euclidean(), [*map(str, range(6))]
    found = evaluate(rows, blocks, head, metric, names, by_query=True)
    tasks = [blocks[0].episode(i) for i in range(12)]
    shares = [np.bincount(task.query_labels, minlength=4) / 24 for task in tasks]
    due = np.mean([entropy(share) / np.log(4) for share in shares])
    assert found.balance == pytest.approx(due)
    if not concentration:
        assert found.balance == pytest.approx(1)
        by_class = evaluate(rows, blocks, head, metric, names)
        assert found.per_episode == pytest.approx(by_class.per_episode)
    answers = [fs.predict(rows, task, head, metric) for task in tasks]
    right = [(a == task.query_labels).mean() for a, task in zip(answers, tasks, strict=True)]
    assert found.per_episode == pytest.approx(right)


def test_a_head_that_asks_queries_together_is_asked_even_and_uneven_ones():
    labels = labelled([20] * 6)
    data = fs.from_arrays(np.zeros((len(labels), 4, 4, 1), np.uint8), labels)
    split = fs.ClassSplit((), (), data.classes)
    options = EvaluationOptions(k_shot=(1, 2), n_way=(0, 3), n_query=3, episodes=4, repeats=2)

    def drawn(together: bool, options: EvaluationOptions = options) -> list[Setting]:
        return [*k_shot_episodes(data, split, options, together=together)]

    assert [(s.n_way, s.dirichlet, s.k_shot) for s in drawn(True)] == [
        (0, 0.0, 1), (0, 0.0, 2), (3, 0.0, 1), (3, 0.0, 2), (3, 2.0, 1), (3, 2.0, 2),
    ]  # fmt: skip
    assert {s.dirichlet for s in drawn(False)} == {0.0}
    said = EvaluationOptions(k_shot=(1,), n_way=(3,), n_query=3, episodes=4, dirichlet=(0.5,))
    assert {s.dirichlet for s in drawn(True, said) + drawn(False, said)} == {0.5}


def test_even_shares_cost_pt_map_where_queries_are_uneven_and_alpha_tim_little():
    labels = labelled([80] * 10)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16)) * 0.55
    rows = (centres[labels] + rng.normal(size=(len(labels), 16)) * 0.5).astype(np.float32)
    names = [*map(str, range(10))]
    falls = {}
    for name, head in (("pt-map", fs.pt_map()), ("alpha-tim", fs.alpha_tim())):
        even, uneven = (
            evaluate(
                rows,
                fs.episodes(fs.EpisodesOptions(5, 5, 15, dirichlet=a), labels).blocks(0, 60),
                head,
                fs.euclidean(),
                names,
                by_query=True,
            ).accuracy
            for a in (0.0, 2.0)
        )
        falls[name] = even - uneven
    assert falls["pt-map"] > 0.05 > falls["alpha-tim"]

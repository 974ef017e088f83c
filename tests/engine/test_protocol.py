"""The tasks of a run: of which classes, with which images, as many as asked for."""

import itertools
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from toys import NAMES, toy

from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import DataError
from fewshot.data.split import ClassSplit
from fewshot.engine.evaluation import evaluate
from fewshot.engine.protocol import (
    EvaluationOptions,
    Setting,
    held_out_episodes,
    k_shot_episodes,
    needed,
    validation_draws,
)
from fewshot.parts.heads.nearest import nearest_support
from fewshot.parts.metrics import euclidean


def one_by_one(blocks: list[EpisodeBlock]) -> list[Episode]:
    return [block.episode(i) for block in blocks for i in range(len(block))]


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
    rows = np.eye(2, dtype=np.float32)[data.labels]
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

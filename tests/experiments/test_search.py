"""A search never reads test classes, loses no trial that is done and does none twice."""

import fcntl
import json
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tomli_w
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered
from fewshot.core.components import Component
from fewshot.core.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    OutputError,
    TrainingError,
)
from fewshot.core.interfaces import Learner, Miner, Optimizer, Schedule
from fewshot.data.split import ClassSplit
from fewshot.experiments.config import resolve
from fewshot.experiments.manifest import verify
from fewshot.experiments.run import run
from fewshot.experiments.search import SearchOptions, best, held_out_folds, recorded, search, spread
from fewshot.experiments.search_space import parameter
from fewshot.experiments.status import run_status
from fewshot.parts.learners import plain
from fewshot.parts.miners import batch_hard
from fewshot.parts.optimizers import AdamwOptions, adamw

REGISTRY = build_registry()[0]
CLASSES, PER_CLASS = 9, 12
SMALL = SearchOptions(trials=3, folds=2, held_out=2, k_shot=2)
SPACE = [
    parameter("training.learning_rate", "log:0.0001:0.01"),
    parameter("loss.margin", "0.5,1"),
]
FLAGS = (
    *("--over", "training.learning_rate=log:0.0001:0.01", "--over", "loss.margin=0.5,1"),
    *("--folds", "2", "--held-out", "2", "--k-shot", "2"),
)


def images(noise: int = 0) -> np.ndarray[Any, Any]:
    """Classes of different tints; `noise` seeds other images of the last two, the test classes."""
    n = CLASSES * PER_CLASS
    made = np.random.default_rng(0).integers(160, size=(n, 16, 16, 1))
    made += 10 * np.repeat(np.arange(CLASSES), PER_CLASS)[:, None, None, None]
    if noise:
        test = slice(-2 * PER_CLASS, None)
        made[test] = np.random.default_rng(noise).integers(256, size=made[test].shape)
    return made.astype(np.uint8)


def layer(folder: Path, noise: int = 0) -> dict[str, Any]:
    path = folder / f"data{noise}.npz"
    names = [f"class {i}" for i in range(CLASSES)]
    np.savez(path, images=images(noise), labels=np.repeat(names, PER_CLASS))
    return {
        "dataset": {"name": "arrays", "path": str(path)},
        "backbone": {"name": "conv4", "width": 2},
        "split": {"val": names[:2], "test": names[-2:]},
        "training": {"steps": 3},
        "evaluation": {"repeats": 3},
    }


@pytest.fixture
def layers(tmp_path: Path) -> list[dict[str, Any]]:
    return [layer(tmp_path)]


def results(records: Any) -> list[Any]:
    """All but the time they took."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


# --------------------------------------------------------------------------------- folds


@given(
    known=st.integers(4, 30),
    folds=st.integers(1, 5),
    held_out=st.integers(2, 4),
    seed=st.integers(0),
)
def test_folds_hold_out_other_classes_each_and_never_touch_test_classes(
    known: int, folds: int, held_out: int, seed: int
) -> None:
    names = [f"c{i}" for i in range(known)]
    split = ClassSplit(names[1:], names[:1], ["test 1", "test 2"])
    options = SearchOptions(folds=folds, held_out=held_out)
    if known < max(folds * held_out, held_out + 2):
        with pytest.raises(DataError, match=f"there are {known}"):
            held_out_folds(split, options, seed)
        return
    found = held_out_folds(split, options, seed)
    assert len(found) == folds
    for train, out in found:
        assert len(out) == held_out
        assert sorted([*train, *out]) == sorted(names)
    every = [name for _, out in found for name in out]
    assert len(set(every)) == len(every)


def test_no_score_depends_on_the_images_of_test_classes(tmp_path: Path) -> None:
    one, other = (
        recorded(search([layer(tmp_path, noise)], REGISTRY, SPACE, tmp_path / str(noise), SMALL))
        for noise in (0, 1)
    )
    assert results(one) == results(other)


# ------------------------------------------------------------------------------- records


def test_a_search_that_goes_on_is_the_one_that_was_never_stopped(
    layers: Any, tmp_path: Path
) -> None:
    whole = recorded(search(layers, REGISTRY, SPACE, tmp_path / "whole", SMALL))
    search(
        layers,
        REGISTRY,
        SPACE,
        tmp_path / "parts",
        evolve(SMALL, trials=1),
    )
    with (tmp_path / "parts" / "trials.jsonl").open("a") as file:
        file.write('{"trial": 1, "val')  # killed while it was written
    first = recorded(tmp_path / "parts")
    parts = recorded(search(layers, REGISTRY, SPACE, tmp_path / "parts", SMALL))
    assert results(parts) == results(whole)
    assert parts[0] == first[0]
    assert [record["trial"] for record in whole] == [0, 1, 2]
    again = recorded(search(layers, REGISTRY, SPACE, tmp_path / "parts", SMALL))
    assert again == parts


def test_scores_are_means_of_folds_and_the_best_is_a_configuration_to_run(
    layers: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    records = recorded(search(layers, REGISTRY, SPACE, folder, SMALL))
    for record in records:
        assert record["score"] == pytest.approx(np.mean(record["folds"]))
        assert spread(record) == pytest.approx(np.std(record["folds"], ddof=1))
        assert len(record["folds"]) == 2
    top = best(records)
    assert top is not None
    assert top["score"] == max(record["score"] for record in records)
    tree = tomllib.loads((folder / "best.toml").read_text())
    assert tree["training"]["learning_rate"] == top["values"]["training.learning_rate"]
    assert tree["loss"]["margin"] == top["values"]["loss.margin"]
    assert tree["split"]["test"] == layers[0]["split"]["test"]
    assert (folder / "search.svg").stat().st_size > 0
    config = resolve(REGISTRY, [tree, {"evaluation": {"k_shot": [1]}}])
    assert (run(config, REGISTRY, tmp_path / "run") / "results.json").exists()


def test_trials_train_with_the_parts_that_are_named_and_the_options_that_are_varied(
    layers: Any, tmp_path: Path
) -> None:
    asked = set()

    def miner(_: Any) -> Miner:
        def mask(*batch: Any) -> Any:
            asked.add("miner")
            hard = batch_hard().mask
            assert hard is not None
            return hard(*batch)

        return Miner(mask)

    def learner(_: Any) -> Learner:
        def step(*given: Any) -> Any:
            asked.add("learner")
            return plain().step(*given)

        return Learner(step)

    def optimizer(options: AdamwOptions, learning_rate: Any) -> Optimizer:
        asked.add(options.weight_decay)
        return adamw(options, learning_rate)

    def schedule(_: Any, steps: int) -> Schedule:
        asked.add("schedule")
        return lambda step: mx.ones(step.shape)

    registry = build_registry()[0]
    told = {"miner": miner, "learner": learner, "schedule": schedule}
    for kind, factory in told.items():
        registry.add([Registered(kind, Component("told", factory), "test", "1")])
    part = Component("told", optimizer, AdamwOptions)
    registry.add([Registered("optimizer", part, "test", "1")])
    sampler = {"name": "balanced", "classes": 3, "per_class": 3}
    layers.append(dict.fromkeys((*told, "optimizer"), "told"))
    layers.append({"loss": "triplet", "sampler": sampler})
    space = [parameter("optimizer.weight_decay", "0.5")]
    search(layers, registry, space, tmp_path / "search", evolve(SMALL, trials=1))
    assert asked == {*told, 0.5}


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(layers: Any, tmp_path: Path) -> None:
    space = [parameter("loss.margin", "9,1"), parameter("training.learning_rate", "1e30,0.001")]
    layers[0] |= {"optimizer": "sgd", "schedule": "constant"}
    layers[0]["embedding"] = {"normalize": "none"}
    options = SearchOptions(method="grid", folds=1, held_out=2, k_shot=2)
    records = recorded(search(layers, REGISTRY, space, tmp_path / "search", options))
    assert len(records) == 4
    assert [("score" in r) for r in records] == [False, True, False, True]
    assert all("learning_rate" in r["error"] for r in records if "error" in r)


def test_where_every_trial_fails_the_first_reason_is_told(layers: Any, tmp_path: Path) -> None:
    space = [parameter("loss.margin", "9,10")]  # l2: at most 2
    with pytest.raises(TrainingError, match="out of reach"):
        search(layers, REGISTRY, space, tmp_path / "search", SMALL)
    assert len(recorded(tmp_path / "search")) == 3


# -------------------------------------------------------------------------------- folder


def test_the_folder_of_another_search_is_refused(layers: Any, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    search(layers, REGISTRY, SPACE, folder, evolve(SMALL, trials=1))
    for changed in (
        (layers, SPACE[:1], SMALL),
        ([*layers, {"training": {"steps": 4}}], SPACE, SMALL),
        (layers, SPACE, evolve(SMALL, folds=1)),
    ):
        with pytest.raises(OutputError, match="another search"):
            search(changed[0], REGISTRY, changed[1], folder, changed[2])
    with pytest.raises(OutputError, match="something else"):
        search(layers, REGISTRY, SPACE, tmp_path, SMALL)


def test_every_file_of_a_search_is_told_when_it_is_changed(layers: Any, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    few = evolve(SMALL, trials=1, folds=1)
    search(layers, REGISTRY, SPACE, folder, few)
    for name in ("search.toml", "best.toml", "trials.jsonl", "search.svg", "manifest.json"):
        whole = (folder / name).read_bytes()
        assert not any(fault for _, fault in verify(folder))
        (folder / name).write_bytes(whole.replace(b"1", b"2", 1))
        if name == "manifest.json":
            with pytest.raises(OutputError, match=r"manifest\.json: damaged"):
                [*verify(folder)]
        else:
            (path,) = (path for path, fault in verify(folder) if fault)
            assert path.name == name
        if name == "search.toml":
            with pytest.raises(OutputError, match=r"search\.toml: damaged"):
                search(layers, REGISTRY, SPACE, folder, few)
        (folder / name).write_bytes(whole)
    with pytest.raises(OutputError, match="a search, not a run"):
        run_status(folder)


@pytest.mark.parametrize("key", ["training.lerning_rate", "loss.margim", "lossy.margin"])
def test_a_misspelt_key_is_refused_before_anything_is_written(
    key: str, layers: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        search(layers, REGISTRY, [parameter(key, "1,2")], tmp_path / "search", SMALL)
    assert not (tmp_path / "search").exists()


def test_a_trial_that_another_process_works_on_is_left_to_it(layers: Any, tmp_path: Path) -> None:
    folder = tmp_path / "search"
    search(layers, REGISTRY, SPACE, folder, evolve(SMALL, trials=1))
    with (folder / "claims" / "0001").open("a") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        records = recorded(search(layers, REGISTRY, SPACE, folder, SMALL))
        assert [record["trial"] for record in records] == [0, 2]
        only = evolve(SMALL, trials=2)
        assert recorded(search(layers, REGISTRY, SPACE, folder, only)) == records
    records = recorded(search(layers, REGISTRY, SPACE, folder, SMALL))
    assert [record["trial"] for record in records] == [0, 1, 2]


def test_ctrl_c_in_a_trial_leaves_the_others(layers: Any, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int, status: str, line: str) -> None:
        if stage == "training" and status.startswith("trial 1"):
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match=r"trial 1.*the same command goes on"):
        search(layers, REGISTRY, SPACE, tmp_path / "search", SMALL, stop)
    records = recorded(search(layers, REGISTRY, SPACE, tmp_path / "search", SMALL))
    assert [record["trial"] for record in records] == [0, 1, 2]


# ------------------------------------------------------------------------- the command


def start(folder: Path, trials: int) -> subprocess.Popen[str]:
    config = folder / "base.toml"
    if not config.exists():
        config.write_text(tomli_w.dumps(layer(folder)))
    command = [sys.executable, "-m", "fewshot", "search", "--config", str(config), *FLAGS]
    return subprocess.Popen(
        [*command, "--trials", str(trials), "--out", str(folder / "search")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_killed_and_started_twice_at_once_every_trial_is_done_once(
    layers: Any, tmp_path: Path
) -> None:
    path = tmp_path / "search" / "trials.jsonl"
    killed = start(tmp_path, 8)
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith("\n")) and time.monotonic() < until:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    kept = path.read_text()
    assert kept
    two = [start(tmp_path, 8), start(tmp_path, 8)]
    said = [process.communicate(timeout=90) for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    assert path.read_text().startswith(kept)
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    assert sorted(line["trial"] for line in lines) == list(range(8))
    alone = recorded(
        search(
            layers,
            REGISTRY,
            SPACE,
            tmp_path / "alone",
            evolve(SMALL, trials=8),
        )
    )
    assert [line["values"] for line in sorted(lines, key=lambda line: line["trial"])] == [
        record["values"] for record in alone
    ]
    assert any("8 trials; score" in out for out, _ in said)

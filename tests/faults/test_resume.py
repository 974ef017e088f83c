"""Every step and two hundred kills, counted; `tests/engine` and `tests/experiments` have a few.

FEWSHOT_FULL=1 python -m pytest -s tests/faults/test_resume.py
"""

import os
import random
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from commands import command
from gone_on import judged, made, outcome
from resumed import layer
from resumed import outcome as of_run
from strategies import REGISTRY
from trainings import LAYOUTS

from fewshot.core.interfaces import Learner
from fewshot.engine.checkpoints import go_on, save_state
from fewshot.engine.training import Training, TrainingOptions, train
from fewshot.parts.learners import MamlOptions, maml, plain

pytestmark = pytest.mark.skipif(
    not os.environ.get("FEWSHOT_FULL"), reason="the full counts, for FEWSHOT_FULL=1"
)

STEPS, KILLS = 40, int(os.environ.get("FEWSHOT_KILLS", "200"))
SCHEDULES = REGISTRY.names("schedule")
LEARNERS = {"plain": plain(), "maml": maml(MamlOptions(inner_steps=1))}
EVERY = [(layout, "plain") for layout in LAYOUTS] + [("episode", "maml")]


def digest(training: Training) -> str:
    """Of all weights and of the history, but for times."""
    weights, history = outcome(training)
    found = sha256(repr(history).encode())
    for name, array in sorted(weights.items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("optimizer", REGISTRY.names("optimizer"))
@pytest.mark.parametrize(("layout", "learner"), EVERY)
def test_from_every_step(optimizer: str, layout: str, learner: str, tmp_path: Path) -> None:
    options = TrainingOptions(STEPS, 1, 1e-3, 5, validate_every=7, patience=0)
    schedule = SCHEDULES[REGISTRY.names("optimizer").index(optimizer) % len(SCHEDULES)]

    def fresh(seed: int) -> Training:
        chosen: Learner = LEARNERS[learner]
        return made(layout, seed, chosen, options, (optimizer, schedule))

    left_alone = fresh(1)

    def keep(training: Training) -> None:
        save_state(training.state(), tmp_path / f"{training.history.steps}.safetensors")

    train(left_alone, judged(left_alone), on_step=keep)
    wanted, same = digest(left_alone), 0
    for step in range(1, STEPS + 1):
        other = fresh(2)
        go_on(other, tmp_path / f"{step}.safetensors")
        assert other.history.steps == step
        train(other, judged(other))
        same += digest(other) == wanted
    print(f"\n{optimizer}, {schedule}, {layout}, {learner}: {same} of {STEPS} steps equal")
    assert same == STEPS


def test_at_any_moment(tmp_path: Path) -> None:
    """Kills at random times, one after another, until the run is done; then the next run."""
    settings = layer(tmp_path)
    settings["training"] |= {"steps": STEPS, "validate_every": 5, "checkpoint_every": 1}
    (tmp_path / "run.toml").write_text(tomli_w.dumps(settings))

    def start(folder: Path) -> subprocess.Popen[bytes]:
        words = ("run", "--config", tmp_path / "run.toml", "--out", folder)
        if (folder / "manifest.json").exists():
            words = ("resume", folder)
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(**command(*words), **quiet)

    whole, began = tmp_path / "whole", time.monotonic()
    assert start(whole).wait() == 0
    wanted, seconds = of_run(whole), time.monotonic() - began
    rng = random.Random(0)
    kills = runs = resumed = 0
    while kills < KILLS:
        folder = tmp_path / f"run-{runs}"
        runs += 1
        while True:
            resumed += (folder / "manifest.json").exists()
            process = start(folder)
            try:
                _, told = process.communicate(timeout=rng.uniform(0.3, 1.1) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                continue
            assert process.returncode == 0, told.decode()
            break
        assert of_run(folder) == wanted
        print(f"{kills} kills, {resumed} resumed, {runs} runs, all equal", flush=True)

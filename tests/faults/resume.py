"""Runs that stop at every step and at any moment, gone on with and held against the run left alone.

    python -m tests.faults.resume          every fifth step of three trainings, 5 kills
    python -m tests.faults.resume --full   every step of 40 for each optimizer, kind of draw and
                                           learner; 200 kills (-9) of a real run

prints how many came to equal SHA-256, and ends with 1 where one did not.
"""

# ruff: noqa: E402

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

sys.path.insert(0, str(Path(__file__).parents[1]))  # what tests share

from fewshot.compute import runtime

runtime.prepare()

from commands import command
from gone_on import judged, made, outcome
from resumed import layer
from resumed import outcome as of_run
from strategies import REGISTRY
from trainings import LAYOUTS

from fewshot.engine.checkpoints import go_on, save_state
from fewshot.engine.training import Training, TrainingOptions, train
from fewshot.parts.learners import MamlOptions, anil, maml, plain, proto_maml, reptile

STEPS = 40
OPTIMIZERS, SCHEDULES = REGISTRY.names("optimizer"), REGISTRY.names("schedule")
LEARNERS = {
    "plain": plain(),
    "maml": maml(MamlOptions(inner_steps=1)),
    "anil": anil(),
    "proto-maml": proto_maml(),
    "reptile": reptile(),
}
EVERY = [(layout, "plain") for layout in LAYOUTS] + [("episode", "maml")]


def main() -> int:
    """Count, print; 1: something differed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    others = [("adam", ("episode", learner)) for learner in ("anil", "proto-maml", "reptile")]
    combinations = [*product(OPTIMIZERS, EVERY), *others]
    different = 0
    for optimizer, (layout, learner) in combinations if full else combinations[:: len(EVERY) * 4]:
        steps = range(1, STEPS + 1, 1 if full else 5)
        different += stopped_at(steps, optimizer, layout, learner)
    different += killed(200 if full else 5)
    print("all equal" if not different else f"{different} differ")
    return int(different > 0)


def stopped_at(steps: range, optimizer: str, layout: str, learner: str) -> int:
    """How many trainings differ that go on from these steps."""
    options = TrainingOptions(STEPS, 1, 1e-3, 5, validate_every=7, patience=0)
    schedule = SCHEDULES[OPTIMIZERS.index(optimizer) % len(SCHEDULES)]

    def fresh(seed: int) -> Training:
        return made(layout, seed, LEARNERS[learner], options, (optimizer, schedule))

    with tempfile.TemporaryDirectory() as folder:

        def kept(step: int) -> Path:
            return Path(folder, f"{step}.safetensors")

        def keep(training: Training) -> None:
            if training.history.steps in steps:
                save_state(training.state(), kept(training.history.steps))

        left_alone, same = fresh(1), 0
        train(left_alone, judged(left_alone), on_step=keep)
        for step in steps:
            other = fresh(2)
            assert kept(step).exists()
            go_on(other, kept(step))
            train(other, judged(other))
            same += digest(other) == digest(left_alone)
    named = f"{optimizer}, {schedule}, {layout}, {learner}"
    print(f"{named}: from {same} of {len(steps)} steps to equal SHA-256", flush=True)
    return len(steps) - same


def digest(training: Training) -> str:
    """Of all weights and of the history, but for times."""
    weights, history = outcome(training)
    found = sha256(repr(history).encode())
    for name, array in sorted(weights.items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def killed(count: int) -> int:
    """How many runs differ that were killed `count` times in all, each till it was done."""
    rng, kills, resumed, different, runs = random.Random(0), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as work:
        settings = layer(Path(work))
        settings["training"] |= {"steps": STEPS, "validate_every": 5, "checkpoint_every": 1}
        Path(work, "run.toml").write_text(tomli_w.dumps(settings))

        def start(folder: Path) -> subprocess.Popen[bytes]:
            words: tuple[Any, ...] = ("run", "--config", f"{work}/run.toml", "--out", folder)
            if (folder / "manifest.json").exists():
                words = ("resume", folder)
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            return subprocess.Popen(**command(*words), **quiet)

        began, whole = time.monotonic(), Path(work, "whole")
        _, told = start(whole).communicate()
        wanted, seconds = of_run(whole), time.monotonic() - began
        while kills < count:
            folder = Path(work, f"{runs}")
            runs += 1
            for patience in itertools.count(1.0, 0.1):  # the machine may be busier now
                anew = not (folder / "manifest.json").exists()
                resumed += not anew
                began, process = time.monotonic(), start(folder)
                limit = patience * rng.uniform(0.2, 1.1) * seconds
                try:
                    _, told = process.communicate(timeout=limit)
                    if anew:  # the machine was busier when the first was timed
                        seconds = min(seconds, time.monotonic() - began)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills += 1
            if process.returncode or of_run(folder) != wanted:
                print(f"{folder}: differs: {told.decode()[-500:]}")
                different += 1
            print(f"{kills} kills, {resumed} resumed, {runs} runs done", flush=True)
    return different


if __name__ == "__main__":
    sys.exit(main())

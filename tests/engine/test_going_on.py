"""Training that goes on from a state is the training left alone, bit for bit."""

import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from gone_on import judged, made, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import REGISTRY
from trainings import LAYOUTS, equal

import fewshot as fs
from fewshot.compute.compiling import compiling
from fewshot.core.errors import OutputError
from fewshot.core.interfaces import Learner
from fewshot.engine import checkpoints as kept_states
from fewshot.engine import training
from fewshot.engine.checkpoints import checkpoints, go_on, read_state, save_state
from fewshot.engine.training import (
    State,
    Training,
    TrainingOptions,
)
from fewshot.engine.training import train as loop
from fewshot.parts.learners import MamlOptions, maml, plain


class KilledError(Exception):
    """Takes the process's place."""


def holds_going_on(
    layout: str,
    learner: Learner,
    options: TrainingOptions,
    stop: int,
    validated: bool,
    named: tuple[str, str] = ("adam", "cosine"),
    mixer: fs.Mixer = fs.Mixer(None),
) -> None:
    left_alone = made(layout, 1, learner, options, named, mixer)
    loop(left_alone, judged(left_alone) if validated else None)

    stopped = made(layout, 1, learner, options, named, mixer)
    with TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.safetensors")

        def at(training: Training) -> None:
            if training.history.steps == stop:
                save_state(training.state(), path)
                raise KilledError

        with suppress(KilledError):  # or out of patience before
            loop(stopped, judged(stopped) if validated else None, on_step=at)
        if not path.exists():
            return
        other = made(layout, 2, learner, options, named, mixer)
        go_on(other, path)
        loop(other, judged(other) if validated else None)
    weights, history = outcome(other)
    expected, wanted = outcome(left_alone)
    assert equal(weights, expected)
    assert history == wanted


@settings(max_examples=12)
@given(
    layout=st.sampled_from(LAYOUTS),
    optimizer=st.sampled_from(REGISTRY.names("optimizer")),
    schedule=st.sampled_from(REGISTRY.names("schedule")),
    warmup=st.integers(0, 3),
    stop=st.integers(1, 6),
    draws=st.integers(1, 2),
    every=st.integers(1, 4),
    patience=st.integers(0, 2),
    validated=st.booleans(),
)
def test_a_run_that_is_gone_on_with_is_the_run_left_alone(
    layout: str,
    optimizer: str,
    schedule: str,
    warmup: int,
    stop: int,
    draws: int,
    every: int,
    patience: int,
    validated: bool,
) -> None:
    options = TrainingOptions(6, draws, 1e-2, warmup, validate_every=every, patience=patience)
    holds_going_on(layout, plain(), options, stop, validated, (optimizer, schedule))


@pytest.mark.parametrize("stop", [1, 3])
def test_so_is_one_that_learns_by_maml(stop: int) -> None:
    options = TrainingOptions(4, 2, learning_rate=1e-2, validate_every=2)
    holds_going_on("episode", maml(MamlOptions(inner_steps=1)), options, stop, True)


@pytest.mark.parametrize("mixer", [fs.mixup(), fs.cutmix()])
def test_so_is_one_that_mixes(mixer: fs.Mixer) -> None:
    options = TrainingOptions(4, 2, learning_rate=1e-2, validate_every=2)
    holds_going_on("labelled", plain(), options, 3, False, mixer=mixer)


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles with g++ on the CPU")
@pytest.mark.parametrize(
    "learner", [plain(), maml(MamlOptions(inner_steps=1))], ids=["plain", "maml"]
)
def test_so_is_one_whose_steps_are_compiled(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "on_cpu", lambda: False)
    options = TrainingOptions(4, learning_rate=1e-2, validate_every=2)
    with compiling():
        holds_going_on("episode", learner, options, 2, True)


def test_a_state_of_other_parts_is_refused() -> None:
    options = TrainingOptions(2)
    one = made("pairs", 1, plain(), options)
    kept = one.state()
    arrays = {name: array for name, array in kept.arrays.items() if "scale" not in name}
    with pytest.raises(ValueError, match="loss"):
        made("pairs", 1, plain(), options).restore(State(arrays, kept.facts))


def test_a_checkpoint_with_any_byte_changed_is_refused_or_none(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    one = made("pairs", 1, plain(), TrainingOptions(2))
    go_on(one, path)  # nothing to go on from
    assert one.history.steps == 0
    save_state(one.state(), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 7, 8, len(whole) - 1, *rng.integers(len(whole), size=40)]:
        changed = bytes([whole[place] ^ 1 << rng.integers(8)])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        with pytest.raises(OutputError, match="checkpoint"):
            go_on(one, path)
    for length in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(OutputError, match="checkpoint"):
            go_on(one, path)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_checkpoints_are_taken_every_so_many_steps(every: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    training = made("pairs", 1, plain(), TrainingOptions(4))
    keep, found = checkpoints(path, every), []

    def on_step(training: Training) -> None:
        keep(training)
        found.append(read_state(path).facts["history"]["steps"] if path.exists() else 0)

    loop(training, on_step=on_step)
    assert found == [step - step % every for step in range(1, 5)]


@pytest.mark.parametrize("cost", [0.0, 0.04, 3.0])
def test_by_the_clock_checkpoints_take_under_one_percent(
    cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 0.1 s and a checkpoint its cost, by a clock of their own."""
    now, spent = 0.0, [0.0]

    def save(*_: Any) -> None:
        nonlocal now
        now += cost
        spent.append(cost)

    monkeypatch.setattr(kept_states, "save_state", save)
    monkeypatch.setattr(kept_states.time, "monotonic", lambda: now)
    keep, training = checkpoints(Path("none"), 0), made("pairs", 1, plain(), TrainingOptions(2))
    for _ in range(20_000):
        now += 0.1
        keep(training)
        assert sum(spent) <= max(0.01 * now, cost)  # the first one's is not known before
    assert len(spent) > 2

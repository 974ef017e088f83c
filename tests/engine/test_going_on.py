"""Training that goes on from a state is the training left alone, bit for bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import REGISTRY, make
from trainings import (
    LAYOUTS,
    Weights,
    described,
    equal,
    network,
    parts,
    state,
    toy,
)

import fewshot as fs
from fewshot.core.interfaces import Learner, Loss, Metric, Miner
from fewshot.engine import training
from fewshot.engine.objective import Learned, Objective, proxies_of
from fewshot.engine.training import (
    State,
    Training,
    TrainingOptions,
)
from fewshot.engine.training import train as loop
from fewshot.parts.embedder import Embedder
from fewshot.parts.learners import MamlOptions, maml, plain


class Stretched(nn.Module):
    """A distance with weights and dropout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = mx.array(np.random.default_rng(seed).uniform(0.5, 2, 1).astype(np.float32))
        self.dropout = nn.Dropout(0.2)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return mx.square(self.dropout(self.weight * (x - y))).sum(axis=-1)


class Tempered(nn.Module):
    """A loss with a weight."""

    def __init__(self, fn: Any, seed: int) -> None:
        super().__init__()
        self.fn, self.scale = fn, mx.array(1.0 + seed)

    def __call__(self, *given: mx.array) -> mx.array:
        return self.scale * self.fn(*given)


def made(
    layout: str,
    seed: int,
    learner: Learner,
    options: TrainingOptions,
    named: tuple[str, str] = ("adam", "cosine"),
    mixer: fs.Mixer = fs.Mixer(None),
) -> Training:
    """A training whose weights, of every learned part, are drawn with a seed of their own.

    `named`: optimizer and schedule.
    """
    data = toy()
    given = parts(layout, data)
    loss = Loss(Tempered(given["loss"].fn, seed), given["loss"].layout)
    metric = Metric(Stretched(seed), frozenset(), lambda _: float("inf"))
    embedder = Embedder(network(seed, dropout=0.3))
    width = embedder.backbone.embedding_dim
    vectors = proxies_of(given["sampler"], loss, width, seed)
    learned = Learned(embedder.backbone, metric, loss, None, vectors)
    objective = Objective(embedder, metric, loss, given["head"], Miner(None), learned, layout)
    flip = make(REGISTRY.get("transform", "flip"))
    optimizer = described(options, *named)
    sampler = given["sampler"]
    return Training(objective, data, sampler, options, [flip], learner, 4, optimizer, mixer)


def judged(training: Training) -> Callable[[], dict[str, float]]:
    """A score that goes up and down with the weights themselves."""

    def validate() -> dict[str, float]:
        weight = np.array(training.learned.backbone.layers.layers[0].weight)
        return {"score": float(np.sin(1e4 * weight.sum()))}

    return validate


def stored(kept: State, folder: Path) -> State:
    """What is left of a state after JSON and a file of arrays."""
    mx.save_safetensors(str(folder / "state.safetensors"), dict(kept.arrays))
    arrays: Any = mx.load(str(folder / "state.safetensors"))
    return State(arrays, json.loads(json.dumps(kept.facts)))


def outcome(training: Training) -> tuple[Weights, dict[str, Any]]:
    """All weights and the history, but for times."""
    history = attrs.asdict(training.history)
    for told in (history, *history["records"]):
        told.pop("seconds", None)
        told.pop("images_per_second")
    return state(training.learned), history


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

    kept: list[State] = []
    stopped = made(layout, 1, learner, options, named, mixer)

    def at(step: int, *_: Any) -> None:
        if step == stop:
            kept.append(stopped.state())

    loop(stopped, judged(stopped) if validated else None, progress=at)
    if not kept:  # out of patience before
        return
    with TemporaryDirectory() as folder:
        before = stored(kept[0], Path(folder))
        other = made(layout, 2, learner, options, named, mixer)
        other.restore(before)
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
    holds_going_on("episode", learner, options, 2, True)


def test_a_state_of_other_parts_is_refused() -> None:
    options = TrainingOptions(2)
    one = made("pairs", 1, plain(), options)
    kept = one.state()
    arrays = {name: array for name, array in kept.arrays.items() if "scale" not in name}
    with pytest.raises(ValueError, match="loss"):
        made("pairs", 1, plain(), options).restore(State(arrays, kept.facts))

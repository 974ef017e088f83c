"""What training promises: the same weights again, the best ones, and the true gradient."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from scipy.special import log_softmax
from strategies import REGISTRY, make

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import parameter_count
from fewshot.core.components import Component
from fewshot.core.draws import Episode, Labelled, Pairs, Triplets
from fewshot.core.errors import ConfigError, TrainingError
from fewshot.core.files import read_json
from fewshot.core.interfaces import Learner, Loss, Metric, Miner, Optimizer, Sampler
from fewshot.core.seeding import mlx_seed
from fewshot.data.datasets import ArrayDataset
from fewshot.engine import training
from fewshot.engine.embedding import embed
from fewshot.engine.objective import Learned, Objective, check_fits, proxies_of
from fewshot.engine.training import (
    History,
    State,
    Training,
    TrainingOptions,
    fit,
    learning_rate,
    scheduled_steps,
)
from fewshot.engine.training import train as loop
from fewshot.engine.weights import WEIGHTS
from fewshot.experiments.assembly import build
from fewshot.experiments.config import resolve
from fewshot.experiments.run import run
from fewshot.parts.backbones import Conv4Options, conv4
from fewshot.parts.embedder import Embedder
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.heads import nearest_prototype, nearest_support
from fewshot.parts.learners import MamlOptions, maml, plain
from fewshot.parts.losses import (
    ContrastiveOptions,
    PrototypicalOptions,
    TripletOptions,
    contrastive,
    prototypical,
    triplet,
)
from fewshot.parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from fewshot.parts.samplers import (
    PairsOptions,
    ProxiesOptions,
    TripletsOptions,
    pairs,
    proxies,
    triplets,
)

Array = NDArray[Any]
Weights = dict[str, Array]

LAYOUTS = ("pairs", "triplets", "episode", "labelled")
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def toy(classes: int = 4, per_class: int = 8, size: int = 16) -> ArrayDataset:
    """Each class is a grating of its own frequency under noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    waves = np.sin(np.arange(size) * (1 + labels[:, None]) / 2)
    images = 128 + 80 * waves[:, None, :, None] + rng.normal(0, 15, (len(labels), size, size, 1))
    return ArrayDataset(np.clip(images, 0, 255).astype(np.uint8), labels, tuple("abcdef")[:classes])


def network(seed: int = 0, dropout: float = 0.0, width: int = 4) -> nn.Module:
    mx.random.seed(seed)
    net = conv4(Conv4Options(width), (16, 16, 1))
    if dropout:
        net.layers.layers.append(nn.Dropout(dropout))
    return net


class Linear(nn.Module):
    """The least of backbones: tanh(Wx + b) of the pixels."""

    def __init__(self, inputs: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = mx.array(rng.normal(size=(outputs, inputs)).astype(np.float32) / inputs**0.5)
        self.bias = mx.array(rng.normal(size=outputs).astype(np.float32) / 10)
        self.embedding_dim = outputs

    def __call__(self, images: mx.array) -> mx.array:
        return mx.tanh(images.flatten(1) @ self.weight.T + self.bias)


def state(module: nn.Module) -> Weights:
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def parts(layout: str, data: ArrayDataset) -> dict[str, Any]:
    """Sampler, loss, metric and head of a layout, small."""
    labels = data.labels
    if layout == "pairs":
        sampler: Any = pairs(PairsOptions(12), labels)
        loss = contrastive(ContrastiveOptions(1.0))
    elif layout == "triplets":
        sampler = triplets(TripletsOptions(3, 3, 24), labels)
        loss = triplet(TripletOptions(0.3))
    else:
        sampler = episodes(EpisodesOptions(3, 2, 2), labels)
        if layout == "labelled":
            sampler = proxies(ProxiesOptions(3, 2), labels)
        loss = prototypical(PrototypicalOptions(0.25))
    return {
        "sampler": sampler,
        "loss": loss,
        "metric": euclidean(),
        "head": nearest_prototype() if layout == "episode" else None,
    }


def train(
    net: nn.Module,
    layout: str = "pairs",
    data: ArrayDataset | None = None,
    seed: int = 0,
    **options: Any,
) -> History:
    """`fit` on the toy; keyword arguments are `TrainingOptions` or `fit`'s own."""
    data = toy() if data is None else data
    known = attrs.fields_dict(TrainingOptions)
    mine = {name: options.pop(name) for name in list(options) if name in known}
    given = {**parts(layout, data), **options}
    return fit(Embedder(net), data, options=TrainingOptions(**mine), seed=seed, **given)


class Script:
    """Scores a validation gives in turn, and the weights it was asked about."""

    def __init__(self, module: nn.Module, scores: Sequence[float], end: Any = None) -> None:
        self.module, self.scores, self.end = module, list(scores), end
        self.states: list[Weights] = []

    def __call__(self) -> dict[str, float]:
        self.states.append(state(self.module))
        asked = len(self.states)
        if asked > len(self.scores):
            raise self.end
        return {"score": self.scores[asked - 1]}


# ---------------------------------------------------------------------------- the same again


@layouts
def test_one_seed_gives_one_set_of_weights_and_another_seed_another(layout: str) -> None:
    flip = make(REGISTRY.get("transform", "flip"))
    found = []
    for seed in (5, 5, 6):
        net = network(dropout=0.3)
        mx.random.seed(seed + len(found))  # whatever was drawn before
        train(net, layout, seed=seed, steps=4, draws_per_step=2, augment=[flip])
        found.append(state(net))
    assert equal(found[0], found[1])
    assert not np.array_equal(
        found[0]["layers.layers.0.weight"], found[2]["layers.layers.0.weight"]
    )


@layouts
def test_all_weights_and_running_statistics_move(layout: str) -> None:
    net = network().eval()  # an embedder that was used before is trained all the same
    before = state(net)
    train(net, layout, steps=2)
    after = state(net)
    assert all(not np.array_equal(before[name], after[name]) for name in before)


def test_no_step_changes_no_number_and_ends_in_eval_mode() -> None:
    net = network().train()
    before = state(net)
    history = train(net, steps=0)
    assert equal(state(net), before)
    assert history.steps == 0
    assert history.records == []
    assert not any(part.training for part in net.modules())


def test_draws_are_taken_in_order_with_the_seed_and_never_twice() -> None:
    data, asked = toy(), []
    given = parts("pairs", data)

    def draw(seed: int, index: int) -> Any:
        asked.append((seed, index))
        return given["sampler"].draw(seed, index)

    train(network(), data=data, seed=7, steps=3, draws_per_step=2, sampler=Sampler(draw, "pairs"))
    assert asked == [(7, index) for index in range(6)]


@layouts
def test_the_loss_falls_on_classes_that_can_be_told_apart(layout: str) -> None:
    net = network(width=8)
    optimizer = optimizers.Adam(1e-2, bias_correction=True)
    history = train(net, layout, steps=60, validate_every=10, optimizer=optimizer)
    losses = [record["loss"] for record in history.records]
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]


class Fixed(nn.Module):
    """The mean colour of every column: nothing to learn."""

    embedding_dim = 16

    def __call__(self, images: mx.array) -> mx.array:
        return images.mean(axis=(1, 3))


def test_proxies_are_learned_and_are_among_the_weights_that_are_kept() -> None:
    history = train(Fixed(), "labelled", steps=60, learning_rate=0.1, validate_every=10)
    assert history.records[-1]["loss"] < 0.7 * history.records[0]["loss"]
    kept: list[set[str]] = []
    net = network()
    train(net, "labelled", steps=2, on_best=lambda model: kept.append(set(state(model))))
    assert kept == [{"proxies", *(f"backbone.{name}" for name in state(net))}]


def test_the_nearest_of_several_centres_of_a_class_counts() -> None:
    data, net, loss = toy(), Linear(256, 3), prototypical()
    sampler = proxies(ProxiesOptions(3, 2, centres=2), data.labels)
    vectors = proxies_of(sampler, loss, 3, seed=0)
    assert vectors is not None
    assert vectors.shape == (4 * 2, 3)
    learned = Learned(net, euclidean(), loss, None, vectors)
    o = Objective(
        Embedder(net, normalize="none"), euclidean(), loss, None, Miner(None), learned, "labelled"
    )
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 0])
    table = np.linalg.norm(x[:, None].astype(np.float64) - np.array(vectors), axis=-1)
    nearest = np.array([[min(row[2 * c : 2 * c + 2]) for c in range(4)] for row in table])
    due = -np.take_along_axis(log_softmax(-nearest, axis=-1), labels[:, None], axis=-1)[:, 0]
    values, _ = o.values(mx.array(x), {"labels": mx.array(labels)}, 4)
    np.testing.assert_allclose(np.array(values), due, rtol=1e-5)


def test_making_proxies_draws_nothing_from_the_global_generator() -> None:
    sampler = proxies(ProxiesOptions(3, 2), toy().labels)
    mx.random.seed(0)
    due = mx.random.normal((3,)).tolist()
    mx.random.seed(0)
    proxies_of(sampler, prototypical(), 3, seed=7)
    assert mx.random.normal((3,)).tolist() == due


# ------------------------------------------------------------------- the gradient of a step


def twin(
    layout: str, draws: Sequence[Any], images: Array, weight: Array, bias: Array
) -> tuple[float, float]:
    """A step's loss in float64 NumPy, and the share of values above 0."""
    key = mx.random.key(mlx_seed(3, "proxies"))
    proxy = np.array(mx.random.normal((4, 3), key=key), np.float64)
    proxy /= np.linalg.norm(proxy, axis=1, keepdims=True)
    values: list[Array] = []

    def distance(a: Array, b: Array) -> Array:
        return np.sqrt(((a - b) ** 2).sum(axis=-1))

    for draw in draws:
        x = (images[draw.items].astype(np.float64) / 255 - 0.5) / 0.25
        e = np.tanh(x.reshape(len(x), -1) @ weight.T + bias)
        e /= np.linalg.norm(e, axis=1, keepdims=True)
        if isinstance(draw, Pairs):
            d = distance(e[draw.left], e[draw.right])
            values.append(np.where(draw.same, d**2, np.maximum(0, 1 - d) ** 2))
        elif isinstance(draw, Triplets):
            to_positive, to_negative = (
                distance(e[draw.anchor], e[other]) for other in (draw.positive, draw.negative)
            )
            values.append(np.maximum(0, to_positive - to_negative + 0.3))
        else:
            if isinstance(draw, Labelled):
                asked, labels, points = e, draw.labels, proxy
            else:
                assert isinstance(draw, Episode)
                asked, labels = e[draw.query], draw.query_labels
                of = draw.support_labels
                points = np.array([e[draw.support][of == c].mean(0) for c in range(draw.n_way)])
            logs = log_softmax(-distance(asked[:, None], points[None]) / 0.25, axis=-1)
            values.append(-logs[np.arange(len(logs)), labels])
    every = np.concatenate(values)
    return float(every.mean()), float((every > 0).mean())


@layouts
@pytest.mark.parametrize("draws", [1, 3])
def test_a_step_of_gradient_descent_follows_the_float64_gradient(layout: str, draws: int) -> None:
    data, net = toy(size=4), Linear(16, 3)
    given = parts(layout, data)
    before = state(net)
    # SGD at rate 1 without momentum: the change of the weights is minus the gradient.
    history = train(
        net,
        layout,
        data,
        seed=3,
        steps=1,
        draws_per_step=draws,
        optimizer=optimizers.SGD(1.0),
    )
    after = state(net)
    drawn = [given["sampler"].draw(3, i) for i in range(draws)]
    start = {name: value.astype(np.float64) for name, value in before.items()}

    def loss(weights: Weights) -> tuple[float, float]:
        return twin(layout, drawn, data.images, weights["weight"], weights["bias"])

    value, violating = loss(start)
    assert history.records[0]["loss"] == pytest.approx(value, rel=1e-4)
    assert history.records[0]["above_zero"] == pytest.approx(violating, abs=1e-6)
    gradients: Weights = {name: np.empty_like(value) for name, value in start.items()}
    step = 1e-6
    for name, where in ((n, w) for n, v in start.items() for w in np.ndindex(v.shape)):
        sides = []
        for sign in (1, -1):
            moved = {n: v.copy() for n, v in start.items()}
            moved[name][where] += sign * step
            sides.append(loss(moved)[0])
        gradients[name][where] = (sides[0] - sides[1]) / (2 * step)
    largest = max(np.abs(g).max() for g in gradients.values())
    assert largest > 0.01
    for name, gradient in gradients.items():
        # float32 sums of some hundred terms, and weights near 1 that round
        found = before[name].astype(np.float64) - after[name]
        assert np.allclose(found, gradient, rtol=0, atol=1e-3 * largest + 3e-7)


def test_a_record_holds_the_means_of_the_steps_since_the_last() -> None:
    records = {}
    for every in (1, 2):
        history = train(Linear(256, 3), steps=5, validate_every=every)
        records[every] = {
            name: np.array([record[name] for record in history.records])
            for name in ("loss", "above_zero")
        }
    for name, single in records[1].items():
        means = [single[0:2].mean(), single[2:4].mean(), single[4]]
        assert np.allclose(records[2][name], means, rtol=1e-6)


# ------------------------------------------------------------------------------ going on


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


def described(options: TrainingOptions, optimizer: str, schedule: str) -> Optimizer:
    """An optimizer by name, its rate that of the options and a schedule by name."""
    factors = make(REGISTRY.get("schedule", schedule), scheduled_steps(options))
    made: Optimizer = make(REGISTRY.get("optimizer", optimizer), learning_rate(options, factors))
    return made


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
    holds_going_on("labelled", plain(), options, 3, False, mixer)


def test_a_mixer_changes_images_and_targets_alike_after_the_transforms() -> None:
    """Turned round, both are the batch that they were in another order."""

    def turned(images: Array, targets: Array, rng: Any) -> tuple[Array, Array]:
        assert targets.shape == (len(images), 4)
        assert (targets.sum(axis=1) == 1).all()
        return images[::-1], targets[::-1]

    def apart(images: Array, targets: Array, rng: Any) -> tuple[Array, Array]:
        return images[::-1], targets

    found = []
    colour = make(REGISTRY.get("transform", "colour"))
    for mix in (None, turned, apart):
        net = Linear(256, 3)
        train(
            net, "labelled", steps=3, draws_per_step=2, optimizer="sgd", momentum=0.0,
            augment=[colour], mixer=fs.Mixer(mix),
        )  # fmt: skip
        found.append(np.array(net.weight))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-3


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


# ---------------------------------------------------------------------------- the best weights


scripts = st.lists(st.sampled_from([0.1, 0.4, 0.4, 0.7, 0.9]), min_size=1, max_size=7)


def expected_end(scores: Sequence[float], patience: int) -> tuple[int, int, bool]:
    """Index of the best score, how many validations there are, whether patience ran out."""
    best, stale = 0, 0
    for i, score in enumerate(scores[1:], start=1):
        best, stale = (i, 0) if score > scores[best] else (best, stale + 1)
        if patience and stale == patience:
            return best, i + 1, True
    return best, len(scores), False


@given(scores=scripts, patience=st.integers(0, 3), every=st.integers(1, 2))
def test_the_best_weights_are_kept_and_patience_ends_training(
    scores: list[float], patience: int, every: int
) -> None:
    net = Linear(256, 3)
    script, told, kept = Script(net, scores), [], []
    history = train(
        net,
        steps=every * len(scores),
        validate_every=every,
        patience=patience,
        validate=script,
        on_record=told.append,
        on_best=lambda module: kept.append(state(module)["backbone.weight"]),
    )
    best, validations, impatient = expected_end(scores, patience)
    assert equal(state(net), script.states[best])
    assert len(script.states) == validations
    assert history.stopped == ("patience" if impatient else "steps")
    assert history.steps == every * validations
    assert history.best_step == every * (best + 1)
    assert history.best_score == scores[best]
    assert [record["score"] for record in history.records] == scores[:validations]
    assert told == history.records
    assert np.array_equal(kept[-1], script.states[best]["weight"])
    bests = [s for i, s in enumerate(scores[:validations]) if s > max(scores[:i], default=-1)]
    assert len(kept) == len(bests)


def test_the_best_running_statistics_come_back_with_the_best_weights() -> None:
    net = network()
    script = Script(net, [0.9, 0.5, 0.4])
    train(net, steps=3, validate_every=1, validate=script)
    assert equal(state(net), script.states[0])
    assert not np.array_equal(
        script.states[0]["layers.layers.1.running_mean"],
        script.states[2]["layers.layers.1.running_mean"],
    )
    assert not any(part.training for part in net.modules())


def test_without_validation_the_last_weights_are_kept() -> None:
    seen: list[Weights] = []
    net = Linear(256, 3)
    train(net, steps=5, validate_every=2, progress=lambda *_: seen.append(state(net)))
    assert len(seen) == 5
    assert equal(state(net), seen[-1])
    assert not equal(seen[-1], seen[-2])


def test_progress_counts_every_step_and_tells_the_speed() -> None:
    calls: list[tuple[int, int, str]] = []
    history = train(
        Linear(256, 3), steps=5, validate_every=2, progress=lambda *call: calls.append(call)
    )
    assert [call[:2] for call in calls] == [(step, 5) for step in range(1, 6)]
    assert all(speed.endswith(" images/s") and int(speed.split()[0]) >= 0 for *_, speed in calls)
    assert [record["step"] for record in history.records] == [2, 4, 5]
    assert history.images_per_second > 0
    assert history.seconds > 0


# --------------------------------------------------------------------------------- interrupts


def test_an_interrupt_in_validation_keeps_the_best_weights_so_far() -> None:
    net = Linear(256, 3)
    script = Script(net, [0.2, 0.8, 0.3], end=KeyboardInterrupt())
    history = train(net, steps=20, validate_every=1, validate=script)
    assert history.stopped == "interrupted"
    assert history.best_score == 0.8
    assert equal(state(net), script.states[1])
    assert not equal(script.states[1], script.states[3])
    assert not any(part.training for part in net.modules())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupt_between_steps_keeps_the_best_weights_so_far(layout: str) -> None:
    net = network()
    script = Script(net, [0.8, 0.3])

    def progress(step: int, steps: int, note: str) -> None:
        if step == 5:
            raise KeyboardInterrupt

    history = train(net, layout, steps=20, validate_every=2, validate=script, progress=progress)
    assert history.stopped == "interrupted"
    assert history.steps == 5
    assert equal(state(net), script.states[0])


def test_an_interrupt_before_the_first_validation_keeps_what_there_is() -> None:
    net, seen = Linear(256, 3), []
    before = state(net)

    def progress(step: int, steps: int, note: str) -> None:
        seen.append(state(net))
        if step == 2:
            raise KeyboardInterrupt

    history = train(net, steps=20, validate=Script(net, []), progress=progress)
    assert history.stopped == "interrupted"
    assert equal(state(net), seen[-1])
    assert not equal(state(net), before)


def test_other_errors_are_not_taken_for_an_interrupt() -> None:
    net = Linear(256, 3)
    with pytest.raises(ZeroDivisionError):
        train(net, steps=2, validate_every=1, validate=Script(net, [], end=ZeroDivisionError()))


# ------------------------------------------------------------------------------------ refusals


class Unbounded(nn.Module):
    """A backbone whose embeddings grow with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = mx.ones((3, 256))
        self.embedding_dim = 3

    def __call__(self, images: mx.array) -> mx.array:
        return images.flatten(1) @ self.weight.T


def test_a_loss_that_is_no_longer_finite_is_an_error_that_names_the_step() -> None:
    data = toy()
    given = {**parts("pairs", data), "metric": sqeuclidean()}
    embedder = Embedder(Unbounded(), normalize="none")
    optimizer = optimizers.SGD(1e25)
    with pytest.raises(TrainingError, match=r"at step 2: lower training\.learning_rate"):
        fit(embedder, data, **given, options=TrainingOptions(10), optimizer=optimizer)


@pytest.mark.parametrize(
    ("of_loss", "of_sampler"),
    [
        (loss, sampler)
        for loss, sampler in itertools.product(LAYOUTS[:3], LAYOUTS)
        if sampler not in (loss, "labelled")
    ],
)
def test_a_sampler_that_does_not_fit_the_loss_is_refused(of_loss: str, of_sampler: str) -> None:
    data, net = toy(), Linear(256, 3)
    before = state(net)
    with pytest.raises(ConfigError, match=f"{of_loss}.*{of_sampler}"):
        train(net, of_loss, data, sampler=parts(of_sampler, data)["sampler"])
    assert equal(state(net), before)


@pytest.mark.parametrize("head", [None, nearest_support()], ids=["no head", "no gradient"])
def test_an_episode_loss_needs_a_head_with_a_gradient(head: Any) -> None:
    with pytest.raises(ConfigError, match="nearest-prototype"):
        train(Linear(256, 3), "episode", head=head)


@pytest.mark.parametrize("metric", [euclidean(), sqeuclidean(), cosine(), manhattan()])
@pytest.mark.parametrize("normalize", ["l2", "none"])
def test_a_margin_beyond_the_metrics_bound_is_refused(metric: Metric, normalize: str) -> None:
    embedder = Embedder(Linear(4, 2), normalize=normalize)
    upper = metric.upper(2)
    sampler = Sampler(draw=lambda seed, index: None, layout="pairs")
    reachable = contrastive(ContrastiveOptions(margin=upper))
    check_fits(embedder, sampler, reachable, metric, None)
    beyond = contrastive(ContrastiveOptions(margin=upper * 1.01))
    if normalize == "l2" or "scale_free" in metric.laws:
        with pytest.raises(ConfigError, match="out of reach"):
            check_fits(embedder, sampler, beyond, metric, None)
    else:
        check_fits(embedder, sampler, beyond, metric, None)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1},
        {"draws_per_step": 0},
        {"learning_rate": 0.0},
        {"warmup": -1},
        {"validate_every": 0},
        {"patience": -1},
        {"validation_pool": 5},
    ],
)
def test_options_that_train_nothing_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingOptions(**change)


# ---------------------------------------------------------------------------- learned parts


class Weighted(nn.Module):
    """A distance with a weight for every coordinate."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = mx.ones(d)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        difference = self.weight * (x - y)
        return (difference * difference).sum(axis=-1)


class Scaled(nn.Module):
    """A contrastive loss that learns a scale of distances."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = mx.array(1.0)

    def __call__(self, distances: mx.array, same: mx.array) -> mx.array:
        return contrastive().fn(self.scale * distances, same)


def test_a_metric_and_a_loss_with_weights_are_trained_beside_the_backbone() -> None:
    net, distance, scaled = Linear(256, 3), Weighted(3), Scaled()
    metric = Metric(distance, frozenset({"symmetry"}), lambda _: float("inf"))
    loss = Loss(scaled, "pairs", 1.0)
    model = Learned(net, metric, loss)
    names = set(state(model))
    assert names == {"backbone.weight", "backbone.bias", "metric.weight", "loss.scale"}
    assert parameter_count(model) == parameter_count(net) + 3 + 1
    before = state(model)
    train(net, metric=metric, loss=loss, steps=2)
    after = state(model)
    assert all(not np.array_equal(before[name], after[name]) for name in names)


def test_the_best_weights_are_those_of_learned_metrics_too() -> None:
    net, distance = Linear(256, 3), Weighted(3)
    metric = Metric(distance, frozenset({"symmetry"}), lambda _: float("inf"))
    script = Script(distance, [0.9, 0.5, 0.4])
    train(net, metric=metric, steps=3, validate_every=1, validate=script)
    assert equal(state(distance), script.states[0])
    assert not equal(state(distance), script.states[2])


def test_parts_without_weights_add_none() -> None:
    net = network()
    assert set(state(Learned(net, euclidean(), contrastive()))) == {
        f"backbone.{name}" for name in state(net)
    }
    trainable = [v for k, v in state(net).items() if "running" not in k]
    assert parameter_count(net) == sum(value.size for value in trainable)


class Late(nn.Module):
    """What it is a copy of, with a weight more that is made at the first call."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of, self.embedding_dim = of, getattr(of, "embedding_dim", 0)

    def __call__(self, *given: mx.array) -> mx.array:
        if "late" not in self:
            self.late = mx.array(1.0)
        return self.late * self.of(*given)


class Grown(nn.Module):
    """A distance whose weights take their number from the first vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = mx.ones(1)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        self.weight = mx.broadcast_to(self.weight[:1], x.shape[-1:])
        return (self.weight * mx.square(x - y)).sum(axis=-1)


def balanced(data: ArrayDataset) -> Sampler[Labelled]:
    return fs.balanced(fs.BalancedOptions(2, 2), data.labels)


def unlearned(fn: Any) -> Metric:
    return Metric(fn, frozenset(), lambda _: float("inf"))


UNFIT: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "no cosine": (
        "requires.*cosine.*--metric cosine",
        lambda: {"loss": fs.supcon(), "sampler": balanced(toy(6)), "metric": euclidean()},
    ),
    "nothing to mine": (
        "a miner chooses",
        lambda: {"miner": fs.batch_hard(), "sampler": pairs(PairsOptions(12), toy(6).labels)},
    ),
    "nothing to mix": (
        "a mixer mixes labelled images.*--mixer none",
        lambda: {"mixer": fs.mixup(), "sampler": pairs(PairsOptions(12), toy(6).labels)},
    ),
    "no soft targets": (
        "takes no soft targets",
        lambda: {
            "mixer": fs.cutmix(),
            "loss": fs.arcface(),
            "metric": cosine(),
            "sampler": proxies(ProxiesOptions(2, 2), toy(6).labels),
        },
    ),
    "late metric": ("'metric.late'", lambda: {"metric": unlearned(Late(sqeuclidean().fn))}),
    "grown metric": ("'metric.weight'", lambda: {"metric": unlearned(Grown())}),
    "late loss": ("'loss.late'", lambda: {"loss": Loss(Late(contrastive().fn), "pairs")}),
    "late backbone": ("'backbone.late'", lambda: {"backbone": Late(Linear(256, 3))}),
    "frozen": ("training.steps=0", lambda: {"backbone": Linear(256, 3).freeze()}),
    "all frozen": (
        "training.steps=0",
        lambda: {
            "backbone": Linear(256, 3).freeze(),
            "metric": unlearned(Weighted(3).freeze()),
            "loss": Loss(Scaled().freeze(), "pairs"),
        },
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_parts_that_leave_nothing_to_train_are_refused_in_one_line(case: str) -> None:
    says, make_them = UNFIT[case]
    given = make_them()
    net = given.pop("backbone", None) or Linear(256, 3)
    with pytest.raises(ConfigError, match=says) as refusal:
        train(net, steps=2, **given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("case", UNFIT)
def test_a_run_refuses_them_before_anything_is_decoded(case: str, tmp_path: Path) -> None:
    says, make_them = UNFIT[case]
    registry, chosen = _of_parts({"backbone": Linear(256, 3), **make_them()})
    with pytest.raises(ConfigError, match=says) as refusal:
        run(resolve(registry, [chosen]), registry, tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def _of_parts(parts: dict[str, Any]) -> tuple[Registry, dict[str, Any]]:
    """A configuration of these on the toy."""
    registry, _ = build_registry()
    parts = {"dataset": toy(6), **parts}
    registry.add(
        [
            Registered(kind, Component("tried", lambda *_, part=part: part), "test", "1")
            for kind, part in parts.items()
        ]
    )
    return registry, {
        **dict.fromkeys(parts, "tried"),
        "split": {"val": ["a"], "test": ["b", "c"]},
        "training": {"steps": 2},
        "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 10},
    }


def test_training_episodes_keep_the_roles_of_the_data_set() -> None:
    role = np.tile(["support", "query"], 24)
    registry, chosen = _of_parts({"backbone": Linear(256, 3)})
    chosen["sampler"] = {"name": "episodes", "n_way": 2, "k_shot": 2, "n_query": 3}
    config = resolve(registry, [{**chosen, "loss": "prototypical"}])
    sampler = build(config, registry, attrs.evolve(toy(6), role=role)).sampler
    for i in range(5):
        draw = sampler.draw(0, i)
        assert isinstance(draw, Episode)
        assert set(role[draw.items[draw.support]]) == {"support"}
        assert set(role[draw.items[draw.query]]) == {"query"}


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_of_no_steps_evaluates_the_network_as_it_is(frozen: bool, tmp_path: Path) -> None:
    net = network().freeze() if frozen else network()
    before = state(net)
    registry, chosen = _of_parts({"backbone": net})
    chosen["training"] = {"steps": 0}
    folder = run(resolve(registry, [chosen]), registry, tmp_path / "run")
    assert equal(state(net), before)
    saved: Any = mx.load(str(folder / WEIGHTS))
    assert equal({f"backbone.{k}": v for k, v in before.items()}, saved)
    (row,) = read_json(folder / "results.json")["k_shot"]
    assert row["accuracy"] == row["untrained"]


def test_one_part_that_is_not_frozen_is_trained() -> None:
    net, distance = Linear(256, 3), Weighted(3)
    net.freeze()
    before = state(net), state(distance)
    train(net, metric=unlearned(distance), steps=2)
    assert equal(state(net), before[0])
    assert not equal(state(distance), before[1])


# -------------------------------------------------------------------- optimizers and schedules


def test_an_optimizer_that_is_given_takes_the_place_of_adam() -> None:
    described_, handed, other = Linear(256, 3), Linear(256, 3), Linear(256, 3)
    for net in (handed, other):
        net.load_weights(list(tree_flatten(described_.parameters())))
    options = TrainingOptions(3, learning_rate=0.1, warmup=1)
    data = toy()
    fit(Embedder(described_), data, **parts("pairs", data), options=options)
    for net, schedule in ((handed, "cosine"), (other, "constant")):
        given_optimizer = described(options, "adam", schedule)
        fit(
            Embedder(net), data, **parts("pairs", data), optimizer=given_optimizer,
            options=TrainingOptions(3, learning_rate=1e-5),
        )  # fmt: skip
    assert equal(state(handed), state(described_))
    assert not equal(state(other), state(described_))


@given(
    schedule=st.sampled_from(["constant", "cosine"]),
    steps=st.integers(1, 12),
    warmup=st.integers(0, 5),
    rate=st.sampled_from([1e-3, 0.1]),
)
def test_rates_rise_linearly_then_follow_the_schedule(
    schedule: str, steps: int, warmup: int, rate: float
) -> None:
    options = TrainingOptions(steps, learning_rate=rate, warmup=warmup)
    factors = make(REGISTRY.get("schedule", schedule), scheduled_steps(options))
    expected: Callable[[int], float] = {
        "constant": lambda _: rate,
        "cosine": lambda t: rate / 2 * (1 + np.cos(np.pi * min(1, t / max(1, steps - warmup)))),
    }[schedule]
    wanted = [rate * t / warmup if t < warmup else expected(t - warmup) for t in range(steps)]
    asked = learning_rate(options, factors)(mx.arange(steps, dtype=mx.uint64))
    assert asked.tolist() == pytest.approx(wanted, abs=1e-5 * rate)


@pytest.mark.parametrize("steps", [5, 40])
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_usual_rates_are_to_the_last_digit_those_of_mlx(steps: int, warmup: int) -> None:
    """`mlx.optimizers.cosine_decay`, joined to its `linear_schedule` where there is a warm-up."""
    rate = 1e-3
    wanted = optimizers.cosine_decay(rate, steps - warmup)
    if warmup:
        rise = optimizers.linear_schedule(0.0, rate, warmup)
        wanted = optimizers.join_schedules([rise, wanted], [warmup])
    options = TrainingOptions(steps, learning_rate=rate, warmup=warmup)
    factors = make(REGISTRY.get("schedule", "cosine"), scheduled_steps(options))
    found = learning_rate(options, factors)
    for step in range(steps):
        number = mx.array(step, mx.uint64)
        assert found(number).item() == wanted(number).item()


# ------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_on_in_training_and_differs_from_step_to_step(dropout: float) -> None:
    data = toy()
    given = parts("pairs", data)
    fixed = given["sampler"].draw(0, 0)
    history = train(
        network(dropout=dropout, width=16),
        data=data,
        sampler=Sampler(lambda seed, index: fixed, "pairs"),
        steps=4,
        validate_every=1,
        learning_rate=1e-30,  # nothing else changes
    )
    losses = {record["loss"] for record in history.records}
    assert len(losses) == (4 if dropout else 1)


def test_dropout_is_off_in_embedding_also_amid_training() -> None:
    data = toy()
    dropping, plain = network(dropout=0.5), network()

    def validate() -> dict[str, float]:
        assert all(part.training for part in dropping.modules())
        found = [embed(Embedder(dropping), data) for _ in range(2)]
        plain.load_weights(list(tree_flatten(dropping.parameters())))
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], embed(Embedder(plain), data))
        assert all(part.training for part in dropping.modules())
        return {"score": 0.0}

    history = train(dropping, data=data, steps=2, validate_every=1, validate=validate)
    assert history.steps == 2


# ---------------------------------------------------------------------------------- on a GPU


@pytest.mark.skipif(shutil.which("g++") is None, reason="mx.compile on the CPU wants g++")
@pytest.mark.parametrize(
    ("loss", "miner", "sampled"),
    [
        (fs.contrastive(), fs.Miner(None), "all-pairs"),
        (fs.supcon(), fs.Miner(None), "balanced"),
        (fs.arcface(fs.ArcfaceOptions(scale=8.0)), fs.Miner(None), "proxies"),
        (fs.triplet(), fs.batch_hard(), "balanced"),
        (fs.triplet(), fs.semi_hard(), "balanced"),
        (fs.contrastive(), fs.semi_hard(), "balanced"),
    ],
)
def test_a_compiled_step_trains_as_the_plain_one(
    loss: Loss, miner: fs.Miner, sampled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What GPUs are given; dropout and the learning rate must not be frozen into it."""

    class Tiny(nn.Module):
        embedding_dim = 3

        def __init__(self) -> None:
            super().__init__()
            self.layers = fs.Sequential(fs.Flatten(), nn.Linear(12, 3), nn.Dropout(0.5))

        def __call__(self, images: mx.array) -> mx.array:
            return self.layers(images)

    images = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 3), np.uint8)
    data = fs.ArrayDataset(images, np.arange(40) % 4, list("abcd"))
    entry = REGISTRY.get("sampler", sampled).component
    sampler = entry.factory(entry.options(classes=3, per_class=3), data.labels)
    metric = fs.cosine() if loss.requires else fs.euclidean()
    weights = []
    for compiled in (False, True):
        monkeypatch.setattr(training, "on_cpu", lambda compiled=compiled: not compiled)
        mx.random.seed(0)
        embedder = fs.Embedder(Tiny(), normalize="none")
        options = fs.TrainingOptions(steps=4, warmup=2)
        rate = learning_rate(options, lambda step: mx.cos(step / 2))
        fs.fit(
            embedder, data, sampler, loss, metric, options=options, miner=miner,
            optimizer=optimizers.SGD(rate),
        )  # fmt: skip
        weights.append(np.array(embedder.backbone.layers.layers[1].weight))
    np.testing.assert_allclose(*weights, atol=1e-6)

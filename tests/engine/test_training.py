"""What training promises: the same weights again, and the true gradient."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from scipy.special import log_softmax
from strategies import REGISTRY, make
from trainings import (
    Array,
    Linear,
    Weights,
    described,
    equal,
    layouts,
    network,
    parts,
    state,
    toy,
    train,
)

import fewshot as fs
from fewshot.compute.compiling import compiling
from fewshot.core.draws import Episode, Labelled, Pairs, Triplets
from fewshot.core.interfaces import Loss, Miner, Sampler
from fewshot.core.seeding import mlx_seed
from fewshot.engine import training
from fewshot.engine.embedding import embed
from fewshot.engine.objective import Learned, Objective, proxies_of
from fewshot.engine.training import (
    TrainingOptions,
    fit,
    learning_rate,
    scheduled_steps,
)
from fewshot.parts.embedder import Embedder
from fewshot.parts.losses.scores import prototypical
from fewshot.parts.metrics import euclidean
from fewshot.parts.samplers import (
    ProxiesOptions,
    proxies,
)

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


# ------------------------------------------------------------------------------------ mixers


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
            net, "labelled", steps=3, draws_per_step=2, optimizer=optimizers.SGD(1e-2),
            augment=[colour], mixer=fs.Mixer(mix),
        )  # fmt: skip
        found.append(np.array(net.weight))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-3


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
        with compiling() if compiled else nullcontext():
            fs.fit(
                embedder, data, sampler, loss, metric, options=options, miner=miner,
                optimizer=optimizers.SGD(rate),
            )  # fmt: skip
            weights.append(np.array(embedder.backbone.layers.layers[1].weight))
    np.testing.assert_allclose(*weights, atol=1e-6)

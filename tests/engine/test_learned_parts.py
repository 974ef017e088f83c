"""What is trained beside the backbone, and what is refused."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from trainings import (
    LAYOUTS,
    Linear,
    Script,
    equal,
    network,
    parts,
    state,
    toy,
    train,
)

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import parameter_count
from fewshot.core.components import Component
from fewshot.core.draws import Episode, Labelled
from fewshot.core.errors import ConfigError, TrainingError
from fewshot.core.files import read_json
from fewshot.core.interfaces import Loss, Metric, Sampler
from fewshot.data.datasets import ArrayDataset
from fewshot.engine.objective import Learned, check_fits
from fewshot.engine.training import (
    TrainingOptions,
    fit,
)
from fewshot.engine.weights import WEIGHTS
from fewshot.experiments.assembly import build
from fewshot.experiments.config import resolve
from fewshot.experiments.run import run
from fewshot.parts.embedder import Embedder
from fewshot.parts.heads.nearest import nearest_support
from fewshot.parts.losses.pairs import ContrastiveOptions, contrastive
from fewshot.parts.metrics import cosine, euclidean, manhattan, sqeuclidean
from fewshot.parts.samplers import (
    PairsOptions,
    ProxiesOptions,
    pairs,
    proxies,
)

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
    assert row["untrained"] == (None if frozen else row["accuracy"])


def test_one_part_that_is_not_frozen_is_trained() -> None:
    net, distance = Linear(256, 3), Weighted(3)
    net.freeze()
    before = state(net), state(distance)
    train(net, metric=unlearned(distance), steps=2)
    assert equal(state(net), before[0])
    assert not equal(state(distance), before[1])

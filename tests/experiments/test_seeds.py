"""What a part draws while it is made depends on the run's seed, and on nothing else."""

import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import snapshot
from fewshot.core.components import Component
from fewshot.core.files import read_json
from fewshot.deploy import recipe
from fewshot.experiments.assembly import build
from fewshot.experiments.config import RunConfig, resolve
from fewshot.experiments.run import evaluate_run, run

SHAPE = (16, 16, 1)
BUILT_IN: dict[str, Any] = {
    "backbone": lambda shape: fs.conv4(fs.Conv4Options(4), shape),
    "metric": fs.euclidean,
    "loss": fs.prototypical,
    "head": fs.nearest_prototype,
    "adapter": lambda: lambda embedder, *_: embedder,
    "transform": fs.normalise,
}
# Every generator that a part may draw from.
DRAWN: dict[str, Any] = {
    "mlx": lambda: mx.random.normal((3,)).tolist(),
    "numpy": lambda: np.random.normal(size=3).tolist(),  # noqa: NPY002
    "python": random.random,
}

Made = list[tuple[str, Any]]


def images(_: Any) -> fs.ArrayDataset:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 12)
    noise = rng.integers(0, 160, (72, *SHAPE)) + 15 * labels[:, None, None, None]
    return fs.ArrayDataset(noise.astype(np.uint8), labels, tuple("abcdef"))


def disturb(seed: int) -> None:
    """Another state of every generator, as other work before would leave it."""
    mx.random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def known(made: Made, parts: dict[str, Any] | None = None) -> Registry:
    """The built-ins, and a part `drawn` of every kind that draws a number of each sort."""

    def factory(kind: str) -> Any:
        def make(_: Any, *shape: Any) -> Any:
            made.append((kind, {name: draw() for name, draw in DRAWN.items()}))
            return {**BUILT_IN, **(parts or {})}[kind](*shape)

        return make

    registry = build_registry()[0]
    registry.add(
        [
            Registered("dataset", Component("noise", images), "tried", "1"),
            *(
                Registered(kind, Component("drawn", factory(kind)), "tried", "1")
                for kind in BUILT_IN
            ),
        ]
    )
    return registry


def config(registry: Registry, seed: int = 0) -> RunConfig:
    layer = {
        "seed": seed,
        "dataset": "noise",
        **{kind: "drawn" for kind in BUILT_IN if kind != "transform"},
        "augment": [],
        "preprocess": ["drawn"],
        "sampler": {"name": "episodes", "n_way": 2, "k_shot": 1, "n_query": 1},
        "split": {"val": ["a"], "test": ["b", "c"]},
        "training": {"steps": 2},
        "evaluation": {"k_shot": [1, 3], "repeats": 3, "pairs": 50},
    }
    return resolve(registry, [layer])


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_a_factory_draws_is_keyed_by_the_seed_and_its_kind(kind: str) -> None:
    made: Made = []
    registry = known(made)
    found = []
    for before, seed in ((1, 5), (2, 5), (1, 6)):
        disturb(before)
        chosen = config(registry, seed)
        made.clear()
        build(chosen, registry)
        found.append(dict(made))
    one, again, other = found
    assert one[kind] == again[kind]
    assert all(one[kind][name] != other[kind][name] for name in DRAWN)
    assert all(one[kind] != one[another] for another in BUILT_IN if another != kind)


def test_the_backbone_is_made_first() -> None:
    made: Made = []
    build(config(known(made)), known(made))
    kinds = [kind for kind, _ in made[1:]]  # the loss was looked at before
    assert kinds[0] == "backbone"
    assert {*kinds} == {*BUILT_IN}


def test_global_generators_go_on_as_before() -> None:
    made: Made = []
    registry = known(made)
    chosen = config(registry)
    disturb(3)
    due = {name: draw() for name, draw in DRAWN.items()}
    disturb(3)
    build(chosen, registry)
    assert {name: draw() for name, draw in DRAWN.items()} == due


class Stretched(nn.Module):
    """A distance along axes drawn at random; few of them, so that the network decides."""

    def __init__(self) -> None:
        super().__init__()
        self.axes = mx.random.normal((64, 3))

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return mx.square((x - y) @ self.axes).sum(axis=-1)


class Tempered(nn.Module):
    """Cross-entropy with a temperature drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 1 + mx.random.uniform()

    def __call__(self, scores: mx.array, labels: mx.array) -> mx.array:
        return fs.prototypical().fn(scores / self.temperature, labels)


def learned(made: Made) -> Registry:
    """With a metric and a loss that draw their weights."""
    return known(
        made,
        {
            "backbone": lambda shape: fs.conv4(fs.Conv4Options(64), shape),
            "metric": lambda: fs.Metric(Stretched(), frozenset(), lambda d: float("inf")),
            "loss": lambda: fs.Loss(Tempered(), "episode"),
        },
    )


def test_learned_metrics_and_losses_start_from_the_same_weights() -> None:
    registry = learned([])
    found = []
    for before in (1, 2):
        disturb(before)
        parts = build(config(registry), registry)
        found.append({name: array.tolist() for name, array in snapshot(parts.learned)})
    assert found[0] == found[1]
    assert {"metric.axes", "loss.temperature"} < {*found[0]}
    assert {*found[0]} == {name for name, _ in tree_flatten(parts.learned.parameters())}


def test_the_untrained_network_of_eval_is_that_of_the_run(tmp_path: Path) -> None:
    registry = learned([])
    chosen = config(registry, seed=3)
    disturb(1)
    folder = run(chosen, registry, tmp_path / "run")
    disturb(2)
    again = evaluate_run(folder, chosen, registry)
    one, other = (read_json(each / "results.json")["k_shot"] for each in (folder, again))
    assert [row["untrained"] for row in one] == [row["untrained"] for row in other]
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in other]


def test_what_a_run_drew_beside_its_weights_goes_into_its_classifier(tmp_path: Path) -> None:
    made: Made = []
    registry = known(made)
    folder = run(evolve(config(registry), seed=3), registry, tmp_path / "run")
    due = dict(made)
    for path in (folder, tmp_path / "file.fewshot"):
        made.clear()
        disturb(9)
        classifier = fs.Classifier.load(path, registry, without_adapter=True)
        for kind in ("backbone", "metric", "head"):
            assert dict(made)[kind] == due[kind]
        rows = images(None).images[:2]
        classifier.enrol({"one": rows}).save(tmp_path / "file.fewshot")
    assert recipe.of_run(folder, registry, without_adapter=True).seed == 3

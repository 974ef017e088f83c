"""Outside of training every learned part is in eval mode, and afterwards in its own again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from toys import modes, network, toy

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import evaluating
from fewshot.core import files
from fewshot.core.components import Component
from fewshot.core.interfaces import Head, Loss, Metric
from fewshot.data.split import ClassSplit
from fewshot.engine.adaptation import adapted_embeddings
from fewshot.engine.calibration import answers
from fewshot.engine.evaluation import evaluate, predict
from fewshot.engine.validation import validation
from fewshot.engine.verification import pair_distances
from fewshot.experiments.config import resolve
from fewshot.experiments.run import evaluate_run, run, trained
from fewshot.parts.embedder import Embedder

DATA = toy()
ROWS = np.random.default_rng(0).normal(size=(len(DATA.labels), 8)).astype(np.float32)
TASKS = list(fs.episodes(fs.EpisodesOptions(3, 2, 4), DATA.labels).blocks(0, 5))
PAIRS = fs.pairs(fs.PairsOptions(40), DATA.labels).draw(0, 0)


class Dropping(nn.Module):
    """A squared distance that leaves coordinates out while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.weight = mx.array(1.0)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        return self.weight * mx.square(self.drop(x - y)).sum(axis=-1)


class Noisy(nn.Module):
    """A head's scores, or a loss's values, with noise while it is trained."""

    def __init__(self, of: Callable[..., mx.array]) -> None:
        super().__init__()
        self.drop, self.of = nn.Dropout(0.5), of

    def __call__(self, *given: Any) -> mx.array:
        return self.drop(self.of(*given))


def dropping() -> Metric:
    return Metric(Dropping(), frozenset(), lambda d: float("inf"))


def noisy_head() -> Head:
    head = fs.nearest_prototype()
    noisy = Noisy(head.scores)
    return evolve(head, scores=noisy, module=noisy)


def validated(head: Head, metric: Metric) -> Any:
    split = ClassSplit(train=("a", "b", "c"), val=("d", "e", "f"), test=())
    examine = validation(Embedder(network()), DATA, split, head, metric)
    assert examine is not None
    return examine()


def asked(head: Head, metric: Metric) -> Any:
    found = answers(ROWS, TASKS, head, metric)
    return np.concatenate([found.logits.ravel(), found.known, found.unknown])


def adapted(head: Head, metric: Metric) -> Any:
    """By an adapter that moves along the metric's gradient."""
    given = Embedder(network())
    return adapted_embeddings(
        fs.finetune(fs.FinetuneOptions(steps=2)), given, DATA, TASKS[0].episode(0), metric
    )[0]


def classified(head: Head, metric: Metric) -> Any:
    support = {name: DATA.images[DATA.labels == i][:3] for i, name in enumerate("abc")}
    classifier = fs.Classifier.of(Embedder(network()), support, head, metric)
    told = [prediction.facts() for prediction in classifier.predict(DATA.images[:9])]
    return classifier.scores(DATA.images).tolist(), told


USES: dict[str, Callable[[Head, Metric], Any]] = {
    "evaluate": lambda h, m: evaluate(ROWS, TASKS, h, m, DATA.classes).per_episode,
    "predict": lambda h, m: predict(ROWS, TASKS[0].episode(0), h, m),
    "pairs": lambda h, m: pair_distances(ROWS, PAIRS, m),
    "calibration": asked,
    "validation": validated,
    "adapter": adapted,
    "classifier": classified,
}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("use", USES)
def test_a_metric_and_a_head_with_dropout_are_used_without_it(use: str, mode: bool) -> None:
    head, metric = noisy_head(), dropping()
    found = []
    for training in (mode, False):
        for part in (head.module, metric.fn):
            assert isinstance(part, nn.Module)
            part.train(training)
        mx.random.seed(int(training))
        found.append(USES[use](head, metric))
        for part in (head.module, metric.fn):
            assert isinstance(part, nn.Module)
            assert set(modes(part).values()) == {training}
    assert str(found[0]) == str(found[1])


def test_eval_mode_holds_for_all_modules_given_and_each_part_keeps_its_own() -> None:
    net, metric = network(dropout=0.5), Dropping().eval()
    net.layers.layers[0].eval()
    before = modes(net), modes(metric)
    with evaluating(net, metric, fs.euclidean().fn):
        assert not any({**modes(net), **modes(metric)}.values())
    assert (modes(net), modes(metric)) == before


def test_what_is_frozen_stays_in_eval_mode_and_the_rest_is_trained() -> None:
    def block() -> list[nn.Module]:
        return [nn.Conv2d(1, 1, 1), nn.BatchNorm(1), nn.BatchNorm(1, affine=False), nn.Dropout(0.5)]

    frozen, free = fs.Sequential(*block()), fs.Sequential(*block())
    frozen.freeze()
    learned = fs.Learned(fs.Sequential(frozen, free), dropping())
    learned.train()
    training = {name for name, mode in modes(learned).items() if mode}
    inner = "backbone.layers.1"
    assert training == {
        "", "backbone", inner, *(f"{inner}.layers.{i}" for i in range(4)), "metric", "metric.drop",
    }  # fmt: skip
    learned.eval()
    assert not any(modes(learned).values())
    learned.freeze()
    learned.train()
    assert {name for name, mode in modes(learned).items() if mode} == {""}


def registry() -> Registry:
    def loss() -> Loss:
        return Loss(Noisy(fs.contrastive().fn), "pairs")

    known = build_registry()[0]
    parts = {"metric": dropping, "loss": loss, "dataset": lambda: DATA}
    known.add(
        [
            Registered(kind, Component("tried", lambda _, make=make: make()), "test", "1")
            for kind, make in parts.items()
        ]
    )
    return known


LAYER = {
    "dataset": "tried",
    "metric": "tried",
    "loss": "tried",
    "backbone": {"name": "conv4", "width": 4},
    "split": {"val": ["a", "b"], "test": ["c", "d"]},
    "training": {"steps": 2},
    "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 50},
}


def test_a_run_its_evaluation_and_its_parts_agree_and_drop_nothing(tmp_path: Path) -> None:
    known = registry()
    config = resolve(known, [LAYER])
    folder = run(config, known, tmp_path / "run")
    again = evaluate_run(folder, config, known)
    one, other = (files.read_json(each / "results.json") for each in (folder, again))
    for rows in ("k_shot", "verification", "unknown"):
        assert one[rows] == other[rows]
    parts = trained(folder, known)
    for part in (parts.embedder.backbone, parts.metric.fn, parts.loss.fn):
        assert isinstance(part, nn.Module)
        assert not any(modes(part).values())

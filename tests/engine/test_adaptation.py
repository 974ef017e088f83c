"""Episodes with an adapter: it sees the support alone; its gain is paired, its report whole."""

import json
import tomllib
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner
from numpy.typing import NDArray

from fewshot.catalogue.loading import build_registry
from fewshot.cli import commands
from fewshot.core.draws import EpisodeBlock
from fewshot.data.datasets import ArrayDataset
from fewshot.deploy.classifier import Classifier
from fewshot.engine.adaptation import adapted_embeddings, evaluate_adapted, gain
from fewshot.engine.embedding import embed
from fewshot.engine.evaluation import evaluate
from fewshot.experiments.config import resolve, to_tree
from fewshot.parts.adapters.copies import none
from fewshot.parts.adapters.linear import LinearProbeOptions, learner, linear_probe
from fewshot.parts.adapters.steps import FinetuneOptions, finetune
from fewshot.parts.backbones import Conv4Options, conv4
from fewshot.parts.embedder import Embedder
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.heads.linear import LogisticOptions, logistic
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import anil
from fewshot.parts.metrics import euclidean

Array = NDArray[Any]
REGISTRY = build_registry()[0]


def data() -> ArrayDataset:
    labels = np.repeat(np.arange(5), 8)
    images = np.random.default_rng(0).integers(150, size=(40, 16, 16, 1))
    images += 20 * labels[:, None, None, None]
    return ArrayDataset(images.astype(np.uint8), labels, tuple("abcde"))


def network() -> Embedder:
    mx.random.seed(0)
    return Embedder(conv4(Conv4Options(4), (16, 16, 1)))


def drawn(dataset: ArrayDataset, k_shot: int = 2) -> list[Any]:
    sampler = episodes(EpisodesOptions(3, k_shot, 3), dataset.labels)
    return list(sampler.blocks(0, 6))


def test_without_adaptation_the_figures_are_those_of_the_frozen_embedder() -> None:
    dataset, embedder, tasks = data(), network(), drawn(data())
    head, metric = nearest_prototype(), euclidean()
    names = [f"image {i}" for i in range(40)]
    counted: list[int] = []
    adapted, seconds = evaluate_adapted(
        none(), embedder, dataset, tasks, head, metric, names, progress=counted.append
    )
    frozen = evaluate(embed(embedder, dataset), tasks, head, metric, dataset.classes, names)
    np.testing.assert_array_equal(adapted.per_episode, frozen.per_episode)
    np.testing.assert_array_equal(adapted.confusion, frozen.confusion)
    assert adapted.digest == frozen.digest
    assert adapted.ci95 == frozen.ci95
    assert seconds > 0
    assert counted == [1, 2, 3, 4, 5, 6]


def test_an_adapter_is_given_the_support_of_each_episode_and_never_a_query() -> None:
    dataset, tasks, calls = data(), drawn(data()), []

    def spy(embedder: Embedder, images: Array, labels: Array, metric: Any, seed: int) -> Embedder:
        calls.append((images, labels, seed))
        return embedder

    head, metric = nearest_prototype(), euclidean()
    evaluate_adapted(spy, network(), dataset, tasks, head, metric, seed=7)
    every = [block.episode(i) for block in tasks for i in range(len(block))]
    assert len(calls) == len(every)
    for (images, labels, seed), episode in zip(calls, every, strict=True):
        np.testing.assert_array_equal(images, dataset.images[episode.items[episode.support]])
        np.testing.assert_array_equal(labels, episode.support_labels)
        assert seed == 7


def test_a_head_that_the_adapter_fitted_answers_in_place_of_the_runs() -> None:
    dataset, embedder, tasks = data(), network(), drawn(data())
    head = logistic(LogisticOptions(0.1))
    due = evaluate(embed(embedder, dataset), tasks, head, euclidean(), dataset.classes)
    probe = linear_probe(LinearProbeOptions(0.1))
    for other in (nearest_prototype(), head):
        found, _ = evaluate_adapted(probe, embedder, dataset, tasks, other, euclidean())
        np.testing.assert_array_equal(found.per_episode, due.per_episode)


def test_a_layer_that_the_learner_fits_answers() -> None:
    dataset, embedder, metric = data(), network(), euclidean()
    episode = drawn(dataset)[0].episode(0)
    adapt = learner(learner=anil())
    rows, _, fitted, _ = adapted_embeddings(adapt, embedder, dataset, episode, metric)
    assert fitted is not None
    task = [EpisodeBlock.of([episode])]
    found, _ = evaluate_adapted(adapt, embedder, dataset, task, nearest_prototype(), metric)
    support, query = (mx.array(rows[episode.items[at]]) for at in (episode.support, episode.query))
    scores = np.array(fitted(support, mx.array(episode.support_labels), query, metric, 3))
    assert found.per_episode[0] == (scores.argmax(axis=1) == episode.query_labels).mean()


def test_only_an_episodes_images_are_embedded() -> None:
    dataset = data()
    episode = drawn(dataset)[0].episode(0)
    rows, *_ = adapted_embeddings(none(), network(), dataset, episode, euclidean())
    embedded = ~np.isnan(rows).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(embedded), np.sort(episode.items))


def test_every_episode_starts_from_the_embedder_as_it_was() -> None:
    dataset, embedder, tasks = data(), network(), drawn(data())
    head, metric = nearest_prototype(), euclidean()
    adapt = finetune(FinetuneOptions(steps=3, learning_rate=0.01, layers=0))
    whole, _ = evaluate_adapted(adapt, embedder, dataset, tasks, head, metric)
    last = [EpisodeBlock.of([block.episode(len(block) - 1)]) for block in tasks[-1:]]
    alone, _ = evaluate_adapted(adapt, embedder, dataset, last, head, metric)
    assert alone.per_episode[-1] == whole.per_episode[-1]


def test_the_gain_is_the_paired_test_of_scipy() -> None:
    dataset, embedder, tasks = data(), network(), drawn(data())
    head, metric = nearest_prototype(), euclidean()
    frozen, _ = evaluate_adapted(none(), embedder, dataset, tasks, head, metric)
    adapt = finetune(FinetuneOptions(steps=5, learning_rate=0.01, layers=0))
    adapted, seconds = evaluate_adapted(adapt, embedder, dataset, tasks, head, metric)
    found = gain(frozen, adapted, seconds)
    test = scipy.stats.ttest_rel(adapted.per_episode, frozen.per_episode)
    assert found.gain == pytest.approx(adapted.accuracy - frozen.accuracy)
    assert found.gain_p == pytest.approx(test.pvalue)
    assert found.gain_ci95 == pytest.approx(list(test.confidence_interval()))
    assert found.frozen == frozen.accuracy


def test_an_adapted_embedder_serves_a_classifier() -> None:
    dataset = data()
    support = np.flatnonzero(np.arange(40) % 8 < 3)
    images, labels = dataset.images[support], dataset.labels[support]
    adapted = finetune(FinetuneOptions(steps=2))(network(), images, labels, euclidean(), 0)
    few = {name: images[labels == i] for i, name in enumerate(dataset.classes)}
    classifier = Classifier.of(adapted, few, nearest_prototype(), euclidean())
    assert {found.best for found in classifier.predict(dataset.images)} <= {*dataset.classes}


# ------------------------------------------------------------------------- the command


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(commands, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    names = [f"class {i}" for i in range(7)]
    images = np.random.default_rng(0).integers(150, size=(84, 16, 16, 3))
    images += 15 * np.repeat(np.arange(7), 12)[:, None, None, None]
    np.savez(folder / "data.npz", images=images.astype(np.uint8), labels=np.repeat(names, 12))
    invoke(
        *("run", "--data", folder / "data.npz", "--backbone", "conv4", "--steps", 4),
        *("--set", "backbone.width=16", "--set", "evaluation.repeats=3", "--k-shot", "1,3"),
        *("--out", folder / "run"),
    )
    return folder / "run"


@pytest.mark.parametrize("adapter", ["finetune --set adapter.steps=0", "whiten"])
def test_eval_with_an_adapter_shows_its_gain_and_cost_beside_the_floors(
    adapter: str, run: Path
) -> None:
    out = invoke("eval", run, "--adapter", *adapter.split())
    assert "without adapter" in out
    folder = Path(out.rstrip().rpartition("everything else: ")[2]).parent
    before = json.loads((run / "results.json").read_text())["k_shot"]
    after = json.loads((folder / "results.json").read_text())["k_shot"]
    for plain, row in zip(before, after, strict=True):
        assert row["frozen"] == plain["accuracy"]
        assert row["frozen_ci95"] == plain["ci95"]
        assert (row["floor"], row["untrained"]) == (plain["floor"], plain["untrained"])
        assert row["digest"] == plain["digest"]
        assert row["gain"] == pytest.approx(row["accuracy"] - row["frozen"])
        low, high = row["gain_ci95"]
        assert low <= row["gain"] <= high
        assert row["adapting_seconds"] > 0
        assert "gain" not in plain
    config = tomllib.loads((folder / "config.toml").read_text())["adapter"]
    assert config["name"] == adapter.split()[0]
    if config.get("steps") == 0:
        assert [row["gain"] for row in after] == [0.0, 0.0]
    page = (folder / "report.html").read_text()
    assert "With and without the adapter" in page
    assert "With and without the adapter" not in (run / "report.html").read_text()
    assert "accuracy" in invoke("compare", run, folder)


def test_a_configuration_without_an_adapter_is_one_without_adaptation() -> None:
    tree = to_tree(resolve(REGISTRY, [{"dataset": "arrays", "backbone": "conv4"}]))
    assert tree.pop("adapter") == {"name": "none"}
    assert resolve(REGISTRY, [tree]).adapter.name == "none"

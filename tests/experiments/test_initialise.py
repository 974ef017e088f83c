"""Weights from elsewhere: given once, before training; nothing made later needs them."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve, frozen

import fewshot as fs
from fewshot.catalogue.hooks import hookimpl
from fewshot.catalogue.loading import build_registry, collect
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import snapshot
from fewshot.core.components import Component
from fewshot.core.errors import OutputError, PluginError
from fewshot.core.files import read_json
from fewshot.core.options import NoOptions
from fewshot.deploy.recipe import Recipe, remade
from fewshot.experiments.assembly import build, initialise
from fewshot.experiments.config import Chosen, RunConfig, resolve
from fewshot.experiments.run import evaluate_run, run, trained

SHAPE = (16, 16, 1)


@frozen
class Options:
    weights: str = fs.option("", "a file to start from")


def make(_: Options, shape: tuple[int, int, int]) -> Any:
    return fs.conv4(fs.Conv4Options(4), shape)


def from_file(backbone: Any, options: Options) -> None:
    if options.weights:
        fs.load_weights(backbone, Path(options.weights))


def images(_: Any) -> fs.ArrayDataset:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 12)
    noise = rng.integers(0, 160, (72, *SHAPE)) + 15 * labels[:, None, None, None]
    return fs.ArrayDataset(noise.astype(np.uint8), labels, tuple("abcdef"))


def registry(given: Any = from_file) -> Registry:
    known = build_registry()[0]
    drawn = Component("drawn", make, Options, initialise=given)
    known.add([Registered("backbone", drawn, "tried", "1")])
    known.add([Registered("dataset", Component("noise", images), "tried", "1")])
    return known


def config(known: Registry, path: Path | str, steps: int = 2) -> RunConfig:
    layer = {
        "dataset": "noise",
        "backbone": {"name": "drawn", "weights": str(path)},
        "split": {"val": ["a"], "test": ["b", "c"]},
        "sampler": {"per_class": 2, "classes": 2},
        "training": {"steps": steps},
        "evaluation": {"k_shot": [1], "repeats": 3, "pairs": 50},
    }
    return resolve(known, [layer])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of another network of the same shape."""
    mx.random.seed(77)
    fs.save_weights(make(Options(), SHAPE), tmp_path / "elsewhere.safetensors")
    return tmp_path / "elsewhere.safetensors"


def same(one: Any, other: Any) -> bool:
    return all(bool((a == b).all()) for (_, a), (_, b) in zip(one, other, strict=True))


def test_a_run_begins_with_the_weights_of_the_file_and_then_stands_alone(
    file: Path, tmp_path: Path
):
    known = registry()
    chosen = config(known, file)
    parts = build(chosen, known)
    wanted = make(Options(), SHAPE)
    fs.load_weights(wanted, file)
    assert not same(snapshot(parts.embedder.backbone), snapshot(wanted))
    assert initialise(parts, known)
    assert same(snapshot(parts.embedder.backbone), snapshot(wanted))

    folder = run(chosen, known, tmp_path / "run")
    initial: Any = mx.load(str(folder / "initial.safetensors"))
    assert same(
        [(k, initial[f"backbone.{k}"]) for k, _ in snapshot(wanted)],
        snapshot(wanted),
    )
    file.unlink()
    with pytest.raises(OutputError, match="elsewhere"):
        run(chosen, known, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    weights = mx.load(str(folder / "weights.safetensors"))
    again = snapshot(trained(folder, known).learned)
    assert same([(k, weights[k]) for k, _ in again], again)
    out = evaluate_run(folder, chosen, known)
    one, other = (read_json(each / "results.json")["k_shot"][0] for each in (folder, out))
    assert one["untrained"] == other["untrained"]
    assert one["accuracy"] == other["accuracy"]
    classifier = fs.Classifier.load(folder, known).enrol({"one": images(None).images[:2]})
    classifier.save(tmp_path / "file.fewshot")
    fs.Classifier.load(tmp_path / "file.fewshot", known)


def test_a_run_without_such_parts_keeps_no_second_file(tmp_path: Path):
    known = registry(None)
    folder = run(config(known, ""), known, tmp_path / "run")
    assert not (folder / "initial.safetensors").exists()


def test_a_part_that_changes_its_parameters_is_named(tmp_path: Path):
    def wider(backbone: Any, _: Options) -> None:
        backbone.more = mx.zeros(3)

    known = registry(wider)
    with pytest.raises(PluginError, match=r"tried/drawn.*backbone\.more"):
        run(config(known, ""), known, tmp_path / "run")


def test_a_kind_without_weights_has_none_to_be_given():
    class Plugin:
        @staticmethod
        @hookimpl
        def fewshot_transforms() -> list[Component]:
            return [Component("x", lambda options: None, initialise=from_file)]

    with pytest.raises(PluginError, match="transform 'x' has `initialise`"):
        collect(Plugin, "mine", "1")


def test_a_backbone_is_made_again_by_what_was_saved_of_it():
    """Where its options do not tell its shapes, as those of a file that is gone do not."""

    class Columns(nn.Module):
        def __init__(self, weight: mx.array) -> None:
            super().__init__()
            self.weight = weight
            self.embedding_dim = weight.shape[1]

        def __call__(self, x: mx.array) -> mx.array:
            return x.mean(axis=(1, 2)) @ self.weight

    def factory(_: Any, shape: tuple[int, int, int], saved: Any) -> Any:
        return Columns(mx.zeros((1, saved["weight"].shape[1] if saved else 3)))

    known = registry()
    known.add([Registered("backbone", Component("columns", factory), "tried", "1")])
    chosen = config(known, "")
    chosen = evolve(chosen, backbone=Chosen("tried/columns", NoOptions()))
    assert build(chosen, known).embedder.backbone.embedding_dim == 3
    weights = {"backbone.weight": mx.arange(5, dtype=mx.float32)[None], "metric.weight": mx.ones(2)}
    assert build(chosen, known, saved=weights).embedder.backbone.embedding_dim == 5
    recipe = Recipe(
        SHAPE, chosen.backbone, (), chosen.embedding, chosen.metric, chosen.head, {},
        {"backbone.weight": np.array(weights["backbone.weight"])},
    )  # fmt: skip
    again = remade(recipe, known)[0].backbone
    assert again.weight.tolist() == [[0, 1, 2, 3, 4]]

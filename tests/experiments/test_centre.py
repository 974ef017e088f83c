"""The centre of a run: taken after training, kept with its weights, found again wherever used."""

from pathlib import Path
from shutil import copytree
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from sealing import sealed

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.compute.modules import snapshot
from fewshot.core.files import read_json
from fewshot.core.progress import silent
from fewshot.experiments.assembly import Parts, build, check
from fewshot.experiments.config import resolve
from fewshot.experiments.folder import run_config
from fewshot.experiments.results import examine
from fewshot.experiments.run import evaluate_run, run

REGISTRY = build_registry()[0]


@pytest.fixture(scope="module")
def centred(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layer = run_config(trained) | {"embedding": {"centre": "train"}}
    folder = tmp_path_factory.mktemp("centred") / "run"
    return run(resolve(REGISTRY, [layer]), REGISTRY, folder)


def centre(parts: Parts) -> Any:
    """The mean of its network's own embeddings, in float64."""
    raw = fs.embed(
        fs.Embedder(parts.embedder.backbone, parts.embedder.preprocess, "none"), parts.dataset
    )
    classes = [parts.dataset.classes.index(name) for name in parts.split.train]
    return raw[np.isin(parts.dataset.labels, classes)].mean(axis=0, dtype=np.float64)


def held(parts: Parts) -> Any:
    assert parts.embedder.centre is not None
    return np.array(parts.embedder.centre.mean)


def test_a_run_keeps_the_mean_of_its_training_classes(centred: Path) -> None:
    parts = fs.trained(centred, REGISTRY)
    assert np.allclose(held(parts), centre(parts), atol=1e-5)
    assert np.abs(held(parts)).max() > 0.01
    weights: Any = mx.load(str(centred / "weights.safetensors"))
    assert np.array_equal(weights["centre.mean"], held(parts))


def test_the_untrained_floor_has_a_centre_of_its_own(centred: Path) -> None:
    parts = build(resolve(REGISTRY, [run_config(centred)]), REGISTRY)
    draws, blank = check(parts), snapshot(parts.learned)
    # Trained for no step, a network is its own floor.
    fs.recentre(parts.embedder, parts.dataset, parts.training_images)
    assert np.allclose(held(parts), centre(parts), atol=1e-5)
    rows = examine(parts, draws, blank, silent).results.k_shot
    assert all(row.accuracy == row.untrained for row in rows)


def test_evaluation_is_that_of_the_run(centred: Path, trained: Path) -> None:
    config = resolve(REGISTRY, [run_config(centred)])
    again = evaluate_run(centred, config, REGISTRY)
    one, other = (read_json(folder / "results.json")["k_shot"] for folder in (centred, again))
    assert [row["per_episode"] for row in one] == [row["per_episode"] for row in other]
    assert [row["untrained"] for row in one] == [row["untrained"] for row in other]


def test_evaluation_takes_a_centre_that_the_run_has_not_and_drops_one(
    centred: Path, trained: Path
) -> None:
    # Training is the same; only what is subtracted afterwards differs.
    figures = {}
    for folder in (centred, trained):
        for kind in ("none", "train"):
            layer = run_config(folder) | {"embedding": {"centre": kind}}
            out = evaluate_run(folder, resolve(REGISTRY, [layer]), REGISTRY)
            results = read_json(out / "results.json")
            figures[folder, kind] = [row["per_episode"] for row in results["k_shot"]]
    assert figures[trained, "none"] == [
        row["per_episode"] for row in read_json(trained / "results.json")["k_shot"]
    ]
    weights: Any = [mx.load(str(f / "weights.safetensors")) for f in (centred, trained)]
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[1])
    assert figures[centred, "none"] == figures[trained, "none"]
    assert figures[centred, "train"] == figures[trained, "train"]


def test_a_centre_from_the_midst_of_training_is_taken_anew(centred: Path, tmp_path: Path) -> None:
    # As a run leaves it that was killed: some weights, of which the manifest does not know.
    folder = tmp_path / "run"
    copytree(centred, folder)
    sealed(folder, without=("weights_sha256",))
    weights: Any = mx.load(str(folder / "weights.safetensors"))
    mx.eval(weights)
    wrong = 9 * np.random.default_rng(0).standard_normal(weights["centre.mean"].shape)
    weights["centre.mean"] = mx.array(wrong.astype(np.float32))
    mx.save_safetensors(str(folder / "weights.safetensors"), weights)
    again = evaluate_run(folder, resolve(REGISTRY, [run_config(folder)]), REGISTRY)
    one, other = (read_json(each / "results.json")["k_shot"] for each in (centred, again))
    assert [row["per_episode"] for row in one] == [row["per_episode"] for row in other]


def test_a_classifier_file_and_an_exported_network_are_centred(
    centred: Path, tmp_path: Path
) -> None:
    parts = fs.trained(centred, REGISTRY)
    images = parts.dataset.images[:3]  # type: ignore[attr-defined]
    expected = fs.embed(parts.embedder, parts.dataset)[:3]
    bare = fs.embed(evolve(parts.embedder, centre=None), parts.dataset)[:3]
    assert not np.allclose(expected, bare, atol=1e-2)
    fs.Classifier.load(centred, REGISTRY).enrol({"one": images}).save(tmp_path / "of.fewshot")
    classifier = fs.Classifier.load(tmp_path / "of.fewshot", REGISTRY)
    assert np.allclose(classifier.support.embeddings, expected, atol=1e-3)

    pixels = images.astype(np.float32) / 255
    fs.export(classifier, tmp_path / "net.mlxfn", REGISTRY)
    function: Any = mx.import_function(str(tmp_path / "net.mlxfn"))
    found = np.concatenate([np.array(function(mx.array(x[None]))[0]) for x in pixels])
    assert np.allclose(found, expected, atol=1e-3)
    onnxruntime = pytest.importorskip("onnxruntime")
    fs.export(classifier, tmp_path / "net.onnx", REGISTRY)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert np.allclose(session.run(None, {"images": pixels})[0], expected, atol=1e-3)


def test_a_classifier_has_a_centre_of_its_own() -> None:
    net = fs.conv4(fs.Conv4Options(4), (16, 16, 1))
    embedder = fs.Embedder(net, centre=fs.Centre(net.embedding_dim))
    images = np.random.default_rng(0).integers(256, size=(4, 16, 16, 1)).astype(np.uint8)
    classifier = fs.Classifier.of(
        embedder, {"a": images[:2], "b": images[2:]}, fs.nearest_prototype(), fs.euclidean()
    )
    before = classifier.scores(images)
    assert embedder.centre is not None
    embedder.centre.mean = embedder.centre.mean + 1
    assert np.array_equal(classifier.scores(images), before)

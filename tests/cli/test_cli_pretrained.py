"""A network that comes with weights takes the place of a run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifiers import write_folder
from commands import done, error, json_lines
from plugin_sites import distribution

import fewshot as fs

READY = """
import fewshot as fs
from fewshot.deploy.gallery import gallery
import mlx.core as mx
from mlx.utils import tree_map


def small(options, shape):
    return fs.conv4(fs.Conv4Options(2), shape)


def published(net, options):
    key = mx.random.key(3)
    net.update(tree_map(lambda a: mx.random.normal(a.shape, key=key), net.trainable_parameters()))


@fs.hookimpl
def fewshot_backbones():
    implied = {"dataset": {"size": 20}}
    frozen = fs.Component("still", lambda _, shape: small(_, shape).freeze(), implies=implied)
    return [fs.Component("ready", small, initialise=published, implies=implied), frozen]


@fs.hookimpl
def fewshot_presets():
    values = {"backbone": "ready", "training": {"steps": 0}, "dataset": "arrays"}
    return [fs.Preset("own-photos", values)]
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A plugin is installed whose backbone comes with weights."""
    site = tmp_path_factory.mktemp("site")
    distribution(site, "ready", {"ready": "ready_plugin"}, ready_plugin=READY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"crow": 3, "finch": 3, "owl": 4}
    return write_folder(tmp_path_factory.mktemp("photos") / "birds", counts)


def test_a_network_with_weights_takes_the_place_of_a_run(ready: None, photos: Path, tmp_path: Path):
    said = done("enrol", "--backbone", "ready", photos, "-o", "birds.fewshot", cwd=tmp_path)
    assert "ready/ready on 20x20x3, euclidean, lda" in said.stdout
    assert "from the enrolled classes, K = 3" in said.stdout
    assert "not calibrated" not in said.stderr
    file = tmp_path / "birds.fewshot"
    found = json_lines(done("predict", file, photos, "--json").stdout)
    assert None not in {each["confidence"] for each in found}
    of = {name: sorted((photos / name).iterdir()) for name in ("crow", "finch", "owl")}
    ours = fs.Classifier.of("ready", of)
    expected = ours.predict([each["image"] for each in found])
    distances = [each["distance"] for each in found]
    assert distances == pytest.approx([each.distance for each in expected], abs=1e-5)
    ours.save(tmp_path / "ours.fewshot")
    assert (tmp_path / "ours.fewshot").read_bytes() == file.read_bytes()
    shutil.copytree(photos / "owl", tmp_path / "more" / "barn owl")
    assert "K = 4" in done("enrol", file, tmp_path / "more").stdout
    done("enrol", file, "--remove", "barn owl")
    assert file.read_bytes() == (tmp_path / "ours.fewshot").read_bytes()
    assert "unknown: never" in done("enrol", file, "--remove", "owl").stdout
    done("export", file, "-o", tmp_path / "net.mlxfn")


def test_what_a_network_implies_and_is_overruled_is_told(ready: None, photos: Path, tmp_path: Path):
    line = "backbone 'ready/ready' implies dataset.size = 20, not 16\n"
    enrolled = ("enrol", "--backbone", "ready", photos, "-o")
    assert "implies" not in done(*enrolled, tmp_path / "as.fewshot").stderr
    smaller = ("--set", "dataset.size=16")
    assert line in done(*enrolled, tmp_path / "small.fewshot", *smaller).stderr
    run = ("run", "--backbone", "ready", "--data", photos, "--steps", 0, "--out", tmp_path / "run")
    assert line in done(*run, *smaller, "--k-shot", 1).stderr


def test_the_parts_and_the_size_are_chosen_as_for_a_run(ready: None, photos: Path, tmp_path: Path):
    (tmp_path / "own.toml").write_text('head = "nearest-support"\ndataset = {size = 32}\n')
    for number, (options, expected) in enumerate(
        (
            (("--preset", "own-photos"), "on 20x20x3, euclidean, lda"),
            (
                ("--preset", "own-photos", "--set", "dataset.size=24"),
                "on 24x24x3, euclidean, lda",
            ),
            (("--backbone", "still"), "still on 20x20x3, euclidean, lda"),
            (
                ("--backbone", "ready", "--config", "own.toml", "--metric", "cosine"),
                "on 32x32x3, cosine, nearest-support",
            ),
        )
    ):
        said = done("enrol", *options, photos, "-o", f"{number}.fewshot", cwd=tmp_path)
        assert expected in said.stdout


def test_a_folder_too_small_for_a_run_is_examined(ready: None, photos: Path, tmp_path: Path):
    options = ("--backbone", "ready", "--steps", "0", "--set", "evaluation.repeats=2")
    said = done("run", "--data", photos, *options, "--out", "run", cwd=tmp_path)
    assert "leave-one-out over 10 images of 3 classes" in said.stdout
    assert "from the enrolled" in done("enrol", "run", photos, "-o", "b", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "conv4"), "no weights of its own; take one that has: --backbone "),
        (("--backbone", "redy"), "did you mean 'ready'"),
        (("--backbone", "ready", "--head", "relation"), "head 'relation' has learned parts"),
        (("--backbone", "ready", "--set", "embedding.centre=train"), "embedding.centre=none"),
        (("--preset", "own-photos", "--set", "adapter.name=whiten"), "--without-adapter"),
        (("--head", "lda"), "go with --backbone"),
    ],
)
def test_what_would_have_to_be_trained_is_refused_in_one_line(
    ready: None, photos: Path, tmp_path: Path, options: Any, message: str
):
    assert message in error(2, "enrol", *options, photos, "-o", "new.fewshot", cwd=tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_classifier_of_a_name_says_what_it_cannot_be(ready: None):
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(fs.ConfigError, match="named beside it"):
        fs.Classifier.of("ready", {"cup": image}, fs.lda())
    with pytest.raises(fs.DataError, match="at least one class"):
        fs.Classifier.of("ready", {})
    named = {"backbone": "ready", "head": "nearest-prototype"}
    ours = fs.Classifier.of(named, {"cup": image, "key": [255 - image]})
    assert ours.recipe is not None
    assert ours.recipe.head.name == "nearest-prototype"
    assert ours.calibration() is None

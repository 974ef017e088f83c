"""Classifiers of names, and of names beside images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import done, error
from PIL import Image
from toys import Colours, coloured, with_colours

import fewshot as fs
from fewshot.catalogue.registry import Registry
from fewshot.cli import classifiers, enrolling

NAMES = tuple(Colours.named)
NETWORK = {"backbone": "colours", "preprocess": [], "dataset": {"size": 8}}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return with_colours()


@pytest.fixture(scope="module")
def named(registry: Registry) -> fs.Classifier:
    return fs.Classifier.of(NETWORK, NAMES, registry=registry)


def of_class(name: str, count: int) -> Any:
    images = coloured(6)
    return images.images[images.labels == NAMES.index(name)][:count]


def labels(classifier: fs.Classifier) -> list[str]:
    return [found.best for found in classifier.predict(coloured(6).images)]


DUE = [name for name in NAMES for _ in range(6)]


def test_names_alone_answer_and_nothing_is_unknown_or_near(named: fs.Classifier):
    found = named.predict(coloured(6).images)
    assert [one.label for one in found] == DUE
    assert named.counts() == dict.fromkeys(NAMES, 0)
    assert named.calibration() is None
    assert {one.nearest for one in found} == {()}
    assert named.recipe is not None
    assert named.recipe.head.name == "tip-adapter"


def test_a_file_keeps_names_and_reads_new_ones(
    named: fs.Classifier, registry: Registry, tmp_path: Path
):
    more = named.enrol({"sand": of_class("sand", 2)})
    more.save(tmp_path / "a.fewshot")
    loaded = fs.Classifier.load(tmp_path / "a.fewshot", registry)
    query = coloured(6).images
    np.testing.assert_array_equal(loaded.scores(query), more.scores(query))
    loaded.save(tmp_path / "b.fewshot")
    assert (tmp_path / "a.fewshot").read_bytes() == (tmp_path / "b.fewshot").read_bytes()
    back = loaded.remove("blue").enrol({"blue": []})
    order = [back.classes.index(name) for name in loaded.classes]
    np.testing.assert_array_equal(back.scores(query)[:, order], loaded.scores(query))


def test_names_and_images_are_the_same_in_any_order(registry: Registry):
    images = {name: of_class(name, 3) for name in NAMES}
    layer = {**NETWORK, "head": "tip-adapter"}
    at_once = fs.Classifier.of(layer, images, registry=registry)
    later = fs.Classifier.of(layer, NAMES, registry=registry).enrol(images)
    query = coloured(6).images
    np.testing.assert_allclose(at_once.scores(query), later.scores(query), rtol=1e-5)
    assert labels(later) == DUE
    found = later.calibration()
    assert found is not None
    assert (found.k_shot, found.origin) == (3, "enrolled")


def test_a_head_that_reads_no_names_wants_images(registry: Registry):
    with pytest.raises(fs.DataError, match="'red' has no image"):
        fs.Classifier.of({**NETWORK, "head": "lda"}, NAMES, registry=registry)


def test_names_in_a_file_are_enrolled(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in (classifiers, enrolling):
        monkeypatch.setattr(module, "load_registry", lambda *_, **__: (registry, []))
    names, out = tmp_path / "names.txt", tmp_path / "mine.fewshot"
    names.write_text("red\n\n blue \n", encoding="utf-8")
    network = ("--backbone", "colours", "--set", "dataset.size=8", "--set", "preprocess=[]")
    shown = done("enrol", *network, "--classes", names, "-o", out).stdout
    assert "tip-adapter" in shown
    Image.fromarray(of_class("blue", 1)[0]).save(tmp_path / "x.png")
    assert done("predict", out, tmp_path / "x.png").stdout.splitlines()[1].startswith("blue")
    names.write_text("sand\n", encoding="utf-8")
    assert "sand" in done("enrol", out, "--classes", names).stdout
    names.write_text("\n", encoding="utf-8")
    assert "no name" in error(4, "enrol", out, "--classes", names)
    assert "not readable" in error(4, "enrol", out, "--classes", tmp_path / "none.txt")

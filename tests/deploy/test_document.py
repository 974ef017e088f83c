"""A classifier's file: it gives the same classifier again, and nothing in it is believed unseen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from classifiers import SIZE, equal, photo
from hypothesis import given
from hypothesis import strategies as st
from strategies import REGISTRY

import fewshot as fs
from fewshot.data.corners import CORNERS
from fewshot.deploy import archive
from fewshot.deploy.classifier import _of_recipe

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, name=st.text(min_size=1), threshold=st.none() | st.floats(0, 10))
def test_a_file_gives_the_same_answers_bit_for_bit(
    blank: fs.Classifier, tmp_path_factory: Any, seed: int, name: str, threshold: float | None
):
    rng = np.random.default_rng(seed)
    name = name if name.isprintable() and name.strip() else "cup"
    ours = blank.enrol({name: [photo(rng), photo(rng)], "other": [photo(rng)]})
    ours = evolve(ours, threshold=threshold)
    path = tmp_path_factory.getbasetemp() / "same.fewshot"
    ours.save(path)
    read = fs.Classifier.load(path, REGISTRY)
    assert equal(read, ours)
    assert read.calibrations == ours.calibrations
    images = [photo(rng) for _ in range(5)]
    assert read.predict(images) == ours.predict(images)
    before = path.read_bytes()
    read.save(path)
    assert path.read_bytes() == before


def test_a_file_keeps_the_corners_of_support_images(blank: fs.Classifier, tmp_path: Path):
    assert blank.recipe is not None
    embedding = evolve(blank.recipe.embedding, crops="support")
    ours = _of_recipe(evolve(blank.recipe, embedding=embedding), REGISTRY)
    rng = np.random.default_rng(0)
    ours = ours.enrol({"cup": [photo(rng), photo(rng)], "key": [photo(rng)]})
    ours.save(tmp_path / "ours.fewshot")
    read = fs.Classifier.load(tmp_path / "ours.fewshot", REGISTRY)
    assert read.support.crops.shape == (3, CORNERS, ours.support.embeddings.shape[1])
    np.testing.assert_array_equal(read.support.crops, ours.support.crops)
    images = [photo(rng) for _ in range(3)]
    assert read.predict(images) == ours.predict(images)
    left = read.remove("cup").enrol({"cup": [ours.support.images[0]]})
    np.testing.assert_allclose(left.support.crops, ours.support.crops[[2, 0]], atol=1e-5)


@pytest.fixture(scope="module")
def saved(enrolled: fs.Classifier, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "ours.fewshot"
    enrolled.save(path)
    return path.read_bytes()


def refused(content: bytes, folder: Path) -> str:
    path = folder / "bad.fewshot"
    path.write_bytes(content)
    with pytest.raises(fs.FewshotError) as found:
        fs.Classifier.load(path, REGISTRY)
    assert str(found.value).startswith(f"{path}: ")
    assert "\n" not in str(found.value)
    return str(found.value)


@given(data=st.data())
def test_any_changed_byte_is_found(saved: bytes, tmp_path_factory: Any, data: st.DataObject):
    at = data.draw(st.integers(0, 300) | st.integers(0, len(saved) - 1))
    other = data.draw(st.integers(1, 255))
    changed = bytearray(saved)
    changed[at] ^= other
    refused(bytes(changed), tmp_path_factory.getbasetemp())


@given(data=st.data())
def test_a_file_cut_off_or_continued_is_refused(
    saved: bytes, tmp_path_factory: Any, data: st.DataObject
):
    folder = tmp_path_factory.getbasetemp()
    refused(saved[: data.draw(st.integers(0, len(saved) - 1))], folder)
    refused(saved + data.draw(st.binary(min_size=1, max_size=9)), folder)


def test_it_is_a_safetensors_file(saved: bytes, enrolled: fs.Classifier, tmp_path: Path):
    path = tmp_path / "ours.safetensors"
    path.write_bytes(saved)
    arrays: Any = mx.load(str(path))
    assert np.array_equal(np.array(arrays["support.images"]), enrolled.support.images)
    assert "backbone.layers.layers.0.weight" in arrays
    assert b"pickle" not in saved


def rewritten(saved: bytes, folder: Path, change: Callable[[str, dict[str, Any]], str]) -> bytes:
    """A file with another content and a right checksum, as somebody hostile would write it."""
    path = folder / "rewritten.fewshot"
    path.write_bytes(saved)
    document, arrays, _ = archive.read(path)
    arrays = dict(arrays)
    archive.write(path, change(document, arrays), arrays)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 2", "format = 3", "its format is 3"),
        ('name = "conv4"', 'name = "else/net"', "made with backbone 'else/net' of an unknown"),
        ("width = 4", "width = 8", "the weights do not fit"),
        ("width = 4", "width = 999999999999", ""),
        ("width = 4", "depth = 4", "no option 'depth'"),
        ("    16,\n    16,", "    32,\n    16,", "its support images are"),
        ('"key"', '"cup"', "its classes are not those"),
        ('"key",', "", "its classes are not those"),
        ("format", "[[", "not a classifier file"),
        ("format", "a = " + "[" * 5000, "not a classifier file"),
        ("[recipe]", "[elsewhere]", "not a classifier file"),
        ("k_shot = 1", 'k_shot = "x"', "not a classifier file"),
        ("k_shot = 1", "k_shot = 1e308", "for K images, not 1e+308"),
        ('"key"', f'"{"é" * 128}"', "it has 256 bytes"),
        ('"key"', r'"k\u202eey"', "U+202E in it does not show"),
    ],
)
def test_a_hostile_document_is_refused_in_one_line(
    saved: bytes, tmp_path: Path, old: str, new: str, message: str
):
    def change(document: str, _: dict[str, Any]) -> str:
        assert old in document
        return document.replace(old, new, 1)

    assert message in refused(rewritten(saved, tmp_path, change), tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("support.labels", np.array([0, 1, 1, 7]), "its classes are not those"),
        ("support.labels", np.array([0, 1]), "one entry an image"),
        ("support.embeddings", np.zeros((4, 9), np.float32), "its support embeddings are"),
        ("support.embeddings", np.full((4, 4), np.nan, np.float32), "not finite"),
        ("support.embeddings", np.full((4, 4), 0.5, np.float32), "embed differently now"),
        ("support.images", np.zeros((4, 8, 8, 3), np.uint8), "its support images are"),
        ("backbone.layers.layers.0.weight", np.zeros((1, 1), np.float32), "do not fit"),
    ],
)
def test_hostile_arrays_are_refused_in_one_line(
    saved: bytes, tmp_path: Path, name: str, value: Any, message: str
):
    def change(document: str, arrays: dict[str, Any]) -> str:
        assert name in arrays
        arrays[name] = value
        return document

    assert message in refused(rewritten(saved, tmp_path, change), tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1 << 60, 0, 1 << 60], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [1 << 40, (1 << 40) + 4]},
        {"dtype": "O", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": None, "data_offsets": [0, 4]},
        {"dtype": "F32"},
        [],
        7,
    ],
)
def test_no_offset_or_shape_is_believed(tmp_path: Path, entry: Any):
    header = {"__metadata__": {"sha256": "0" * 64, "document": ""}, "x": entry}
    head = json.dumps(header, separators=(",", ":")).encode()
    content = len(head).to_bytes(8, "little") + head + b"\0" * 16
    at = archive._DIGEST_AT
    content = content[:at] + archive._digest(content).encode() + content[at + 64 :]
    path = tmp_path / "x.fewshot"
    path.write_bytes(content)
    with pytest.raises(fs.OutputError, match="not a classifier file"):
        archive.read(path)


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path: Path, enrolled: fs.Classifier):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "LARGEST", 1000)
        path = tmp_path / "large.fewshot"
        with pytest.raises(fs.OutputError, match="more than the 1000 allowed"):
            enrolled.save(path)
        assert not path.exists()
        path.write_bytes(b"x" * 2000)
        with pytest.raises(fs.OutputError, match="larger than the 1000 bytes"):
            fs.Classifier.load(path, REGISTRY)


def test_a_classifier_of_parts_without_names_cannot_be_saved(tmp_path: Path):
    embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=4), (SIZE, SIZE, 3)))
    images = {"cup": photo(np.random.default_rng(0))[None]}
    ours = fs.Classifier.of(embedder, images, fs.nearest_prototype(), fs.euclidean())
    with pytest.raises(fs.ConfigError, match="parts without names and cannot be saved"):
        ours.save(tmp_path / "ours.fewshot")


def test_a_folder_that_is_no_run_is_said(tmp_path: Path):
    with pytest.raises(fs.OutputError, match="not a run folder"):
        fs.Classifier.load(tmp_path, REGISTRY)
    with pytest.raises(fs.OutputError, match=r"none\.fewshot: cannot be read"):
        fs.Classifier.load(tmp_path / "none.fewshot", REGISTRY)

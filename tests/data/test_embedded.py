"""Embeddings on disk: what was kept is found, and nothing else ever passes for it."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fewshot as fs
from fewshot.data.embedded import Kept, image_digest, kept

seeds = st.integers(0, 2**32 - 1)
counts = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def rows(count: int, dim: int, seed: int) -> tuple[list[bytes], np.ndarray[Any, Any]]:
    """Digests of images, and their embeddings."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 2, 2, 1), np.uint8)
    return [image_digest(image) for image in images], rng.normal(size=(count, dim)).astype("f4")


def made(path: Path) -> tuple[Kept, list[str]]:
    """A file to keep embeddings in, empty, and what it says."""
    said: list[str] = []
    path.unlink(missing_ok=True)
    return Kept(path, said.append), said


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=3), dim=st.integers(1, 5), seed=seeds
)
def test_all_that_was_added_is_found_whoever_asks(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], dim: int, seed: int
):
    one, said = made(tmp_path_factory.getbasetemp() / "kept")
    digests, embeddings = rows(sum(counts), dim, seed)
    assert one.find(digests) == {}
    for start, stop in zip(np.cumsum([0, *counts]), np.cumsum(counts), strict=False):
        one.add(digests[start:stop], embeddings[start:stop])
    found = Kept(one.path, said.append).find([*digests, b"of no image here"])
    assert {*found} == {*digests}
    for digest, row in zip(digests, embeddings, strict=True):
        assert np.array_equal(found[digest], row)
    assert said == []


@settings(max_examples=40)
@given(data=st.data(), seed=seeds)
def test_damage_loses_embeddings_with_a_line_and_invents_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, seed: int
):
    one, said = made(tmp_path_factory.getbasetemp() / "damaged")
    digests, embeddings = rows(4, 3, seed)
    one.add(digests, embeddings)
    content = bytearray(one.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    one.path.write_bytes(content)
    found = one.find(digests)
    for digest, row in found.items():
        assert np.array_equal(row, embeddings[digests.index(digest)])
    assert len(found) < 4
    lost = [digest for digest in digests if digest not in found]
    one.add(lost, embeddings[[digests.index(digest) for digest in lost]])
    again = one.find(digests)
    if at >= 20:  # past the header, all that was sound is still there
        assert len(found) >= 3 or len(content) == at
        assert {*again} == {*digests}
    else:
        assert said
        assert {*again} == {*lost}
    assert all(np.array_equal(again[d], embeddings[digests.index(d)]) for d in again)


def test_where_nothing_can_be_kept_it_is_said_once(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    said: list[str] = []
    one = Kept(tmp_path / "file" / "kept", said.append)
    digests, embeddings = rows(2, 3, 0)
    one.add(digests[:1], embeddings[:1])
    one.add(digests[1:], embeddings[1:])
    (line,) = said
    assert "not kept" in line
    assert "FEWSHOT_CACHE=" in line


def test_nothing_is_kept_where_the_cache_is_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEWSHOT_CACHE", "")
    assert kept("network", print) is None


class Counting(nn.Module):
    """Counts the images it is asked for."""

    embedding_dim = 3

    def __init__(self, factor: float = 1) -> None:
        super().__init__()
        self.factor, self._asked = mx.array(factor), 0

    def __call__(self, images: mx.array) -> mx.array:
        self._asked += len(images)
        return self.factor * images.reshape(len(images), -1)[:, :3] + 1


def test_only_images_that_are_new_are_embedded(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 1), np.uint8)
    data = fs.from_arrays(pixels, np.zeros(9, int))
    network, (store, said) = Counting(), made(tmp_path / "kept")
    embedder = fs.Embedder(network, normalize="none")
    due = fs.embed(embedder, data)
    network._asked = 0
    first = fs.embed(embedder, data, np.arange(5), kept=store)
    assert network._asked == 5
    assert np.array_equal(first[:5], due[:5])
    assert np.isnan(first[5:]).all()
    turned = fs.from_arrays(pixels[::-1].copy(), np.zeros(9, int))  # other indices, same images
    assert np.array_equal(fs.embed(embedder, turned, kept=store), due[::-1])
    assert network._asked == 5 + 4 + 1  # and one, to see that the network is still the same
    assert np.array_equal(fs.embed(embedder, data, kept=store), due)
    assert network._asked == 5 + 4 + 1 + 1
    assert said == []


@pytest.mark.parametrize("seconds", [-1.0, 100.0])
def test_progress_goes_on_from_looking_up_what_is_kept_and_ends_once(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fewshot.engine.embedding._LONG", seconds)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 4, 4, 1), np.uint8)
    data, (store, _) = fs.from_arrays(pixels, np.zeros(90, int)), made(tmp_path / "kept")
    told: list[tuple[int, int]] = []
    for wanted, known in (60, 0), (90, 60), (90, 90):
        told.clear()
        fs.embed(
            fs.Embedder(Counting()), data, np.arange(wanted), 30, kept=store,
            progress=lambda *done: told.append(done),
        )  # fmt: skip
        assert told == sorted(told)
        ends = [done == total for done, total in told].count(True)
        assert ends == (known < wanted or seconds < 0)
        assert (len(told) > 30) == (seconds < 0)


def test_embeddings_of_another_network_are_said_and_made_again(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1), np.uint8)
    data = fs.from_arrays(pixels, np.zeros(4, int))
    store, said = made(tmp_path / "kept")
    fs.embed(fs.Embedder(Counting()), data, kept=store)
    other = fs.Embedder(Counting(-2.0))
    for _ in range(2):
        assert np.array_equal(fs.embed(other, data, kept=store), fs.embed(other, data))
    assert len(said) == 1
    assert "made again" in said[0]

"""Names of classes: what answers at K = 0, and beside a support."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Colours, coloured, with_colours

import fewshot as fs
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import snapshot
from fewshot.core.components import Component
from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import ConfigError
from fewshot.core.progress import silent
from fewshot.engine.calibration import answers, from_enrolled
from fewshot.engine.evaluation import evaluate, predict
from fewshot.engine.protocol import EvaluationOptions, k_shot_episodes
from fewshot.engine.validation import validation
from fewshot.experiments.assembly import build, drawn
from fewshot.experiments.config import resolve
from fewshot.experiments.folder import read_results
from fewshot.experiments.results import examine
from fewshot.experiments.run import run
from fewshot.parts.heads.nearest import TipAdapterOptions, tip_adapter
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.metrics import cosine
from fewshot.reports.run_page import caption, table

HEADS = {"nearest-prototype": nearest_prototype(), "tip-adapter": tip_adapter(has_text=True)}


@pytest.fixture(scope="module")
def registry() -> Registry:
    known = with_colours()
    blank = Component("blank", lambda _, shape: fs.conv4(fs.Conv4Options(2), shape))
    images = Component("coloured", lambda _: coloured(6, 16))
    for kind, part in (("backbone", blank), ("dataset", images)):
        known.add([Registered(kind, part, "tried", "1")])
    return known


def config(known: Registry, **more: Any) -> Any:
    layer = {
        "dataset": "coloured", "backbone": "colours", "head": "tip-adapter", "preprocess": [],
        "training": {"steps": 0}, "evaluation": {"k_shot": [0, 1], "repeats": 2, "pairs": 0},
    }  # fmt: skip
    return resolve(known, [layer, more])


def test_a_run_has_a_row_without_images_that_asks_every_image_once(
    tmp_path: Path, registry: Registry
):
    folder = run(config(registry), registry, tmp_path / "run")
    zero, one = read_results(folder).k_shot
    assert (zero.k_shot, zero.queries, len(zero.per_episode)) == (0, 24, 24)
    assert "2 episodes for each K, each image taken as its own" in caption([zero, one])
    assert zero.accuracy == pytest.approx(np.mean(zero.per_episode)) == 1
    assert zero.ci95[1] == 1 > zero.ci95[0]
    assert zero.floor == 1 / 4  # a name says nothing of pixels
    assert one.accuracy == 1
    assert one.floor > 1 / 4
    assert [cells[0] for cells in table([zero, one])[1]] == ["0", "1"]
    # The same episodes, whatever the head reads: they can be compared.
    other = config(registry, head={"name": "tip-adapter", "names": False})
    parts = build(other, registry)
    plain = examine(parts, drawn(parts), snapshot(parts.learned), silent).results
    assert [row.digest for row in plain.k_shot] == [zero.digest, one.digest]


def test_names_alone_can_be_all_there_is_to_see(tmp_path: Path, registry: Registry):
    """A page and its pictures, of standard episodes, by a head that reads no names itself."""
    options = {"k_shot": [0], "n_way": [3], "n_query": 2, "episodes": 2, "pairs": 0}
    chosen = config(registry, head="nearest-prototype", evaluation=options)
    folder = run(chosen, registry, tmp_path / "run")
    (row,) = read_results(folder).k_shot
    assert (row.k_shot, row.n_way, row.episodes, row.accuracy) == (0, 3, 2, 1)
    assert row.floor == pytest.approx(1 / 3)
    assert "<h2>An episode</h2>" in (folder / "report.html").read_text()


@settings(max_examples=12)
@given(seed=st.integers(0, 9), head=st.sampled_from([*HEADS]), shared=st.booleans())
def test_without_support_the_nearest_name_answers(seed: int, head: str, shared: bool):
    """By dataset ids, in the order of each episode."""
    rng = np.random.default_rng(seed)
    text, images = rng.normal(size=(5, 4)), rng.normal(size=(12, 4))
    ids = np.stack([rng.permutation(5)[:3] for _ in range(4)])
    query = np.stack([rng.permutation(12)[:6] for _ in range(4)])
    nothing, labels = np.empty((4, 0), np.int64), np.tile(np.repeat(np.arange(3), 2), (4, 1))
    block = EpisodeBlock(
        nothing, nothing[0] if shared else nothing, query, labels[0] if shared else labels, ids
    )
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, text)]
    best = np.einsum("eqd,ewd->eqw", unit[0][query], unit[1][ids]).argmax(axis=-1)
    found = evaluate(
        images.astype(np.float32), [block], HEADS[head], cosine(), tuple("abcde"),
        text=text.astype(np.float32),
    )  # fmt: skip
    np.testing.assert_allclose(found.per_episode, (best == labels).mean(axis=1))
    first = block.episode(0)
    alone = predict(
        images.astype(np.float32), first, HEADS[head], cosine(),
        text=text[ids[0]].astype(np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(alone, best[0])


def test_names_count_beside_images():
    """Support images of the wrong classes, which names put right."""
    embeddings = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
    swapped = Episode.of([0, 1, 2], ["b", "a", "c"], [3, 4, 5], ["a", "b", "c"])
    text = np.eye(3, dtype=np.float32)
    names = ("a", "b", "c")
    for scale, accuracy in ((100.0, 1), (0.01, 1 / 3)):
        head = tip_adapter(TipAdapterOptions(scale=scale), has_text=True)
        found = evaluate(embeddings, [swapped], head, cosine(), names, text=text)
        assert found.accuracy == pytest.approx(accuracy)


def test_names_are_asked_for_where_they_are_needed():
    embeddings = np.eye(3, dtype=np.float32)
    task = Episode.of([0, 1], ["a", "b"], [2], ["a"])
    without = evolve(task, support=np.arange(0), support_labels=np.arange(0))
    for head, episode in ((HEADS["tip-adapter"], task), (HEADS["nearest-prototype"], without)):
        with pytest.raises(ConfigError, match="names"):
            evaluate(embeddings, [episode], head, cosine(), ("a", "b"))


def test_standard_episodes_without_support_have_the_queries_of_one_image():
    options = EvaluationOptions(k_shot=(0, 1), n_way=(3,), n_query=2, episodes=4)
    split = fs.ClassSplit((), (), tuple(Colours.named))
    zero, one = k_shot_episodes(coloured(4), split, options).values()
    for a, b in zip(zero, one, strict=True):
        assert a.support.shape == (len(b), 0)
        np.testing.assert_array_equal(a.query, b.query)
        np.testing.assert_array_equal(a.classes, b.classes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"backbone": "blank"}, "blank' does not read"),
        ({"adapter": "whiten"}, "adapter 'whiten'"),
        ({"adapter": "whiten", "evaluation": {"k_shot": [1]}}, "adapter 'whiten'"),
        ({"embedding": {"centre": "train"}}, "embedding.centre=train"),
    ],
)
def test_what_names_cannot_answer_is_refused(change: Any, says: str, registry: Registry):
    parts = build(config(registry, **change), registry)
    with pytest.raises(ConfigError, match=says):
        drawn(parts)


def test_a_head_that_reads_names_is_calibrated_and_validated_by_them():
    """In all of these it is asked with the names of the classes at hand, as in evaluation."""
    dataset, head = coloured(6), HEADS["tip-adapter"]
    embedder = fs.Embedder(Colours(), ())
    rows, text = fs.embed(embedder, dataset), embedder.of_names(dataset.classes)
    split = fs.ClassSplit((), ("sand", "blue"), ("red", "dark_green"))
    options = EvaluationOptions(k_shot=(1,), repeats=3)
    (blocks,) = k_shot_episodes(dataset, split, options).values()
    found = answers(rows, blocks, head, cosine(), text)
    assert (found.logits.argmax(axis=1) == found.labels).all()
    assert (found.known < found.unknown).all()
    calibration = from_enrolled(rows, dataset.labels, head, cosine(), text)
    assert calibration is not None
    assert np.isfinite([calibration.threshold, calibration.temperature]).all()
    examine = validation(
        embedder, dataset, evolve(split, train=split.test, test=()), head, cosine()
    )
    assert examine is not None
    assert examine()["score"] == 1

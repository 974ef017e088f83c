"""Runs that train nothing: a network as it comes, examined on all classes, however few images."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from pages import faults

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import snapshot
from fewshot.core.components import Component, Preset, Study
from fewshot.core.files import read_json
from fewshot.core.progress import silent
from fewshot.data.split import ClassSplit, split_classes
from fewshot.experiments.assembly import build, check, initialise
from fewshot.experiments.compare import compare_runs
from fewshot.experiments.config import read_toml, resolve
from fewshot.experiments.folder import read_results, run_config
from fewshot.experiments.results import examine
from fewshot.experiments.run import evaluate_run, run, trained
from fewshot.experiments.search import SearchOptions, search
from fewshot.experiments.search_space import parameter
from fewshot.experiments.study import _with_images, study_configs
from fewshot.reports.pictures import k_shot_lines
from fewshot.reports.run_page import by_setting, caption, facts, table

SHAPE = (16, 16, 1)
NAMES = ("crow", "finch", "owl")


def small(_: Any, shape: tuple[int, int, int]) -> Any:
    return fs.conv4(fs.Conv4Options(2), shape)


def published(net: Any, _: Any) -> None:
    """Other weights than the factory draws."""
    key = mx.random.key(3)
    net.update(tree_map(lambda a: mx.random.normal(a.shape, key=key), net.trainable_parameters()))


def held(_: Any, shape: tuple[int, int, int]) -> Any:
    return small(_, shape).freeze()


def images(per_class: int) -> fs.ArrayDataset:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), per_class)
    noise = rng.integers(0, 150, (len(labels), *SHAPE)) + 50 * labels[:, None, None, None]
    return fs.ArrayDataset(noise.astype(np.uint8), labels, NAMES)


def registry(per_class: int) -> Registry:
    known = build_registry()[0]
    quick = {
        "backbone": "ready",
        "training": {"steps": 0},
        "evaluation": {"k_shot": [1, 5], "repeats": 2},
    }
    offers = {
        "backbone": [
            Component("ready", small, initialise=published),
            Component("blank", small),
            Component("held", held, initialise=published),
        ],
        "dataset": [Component("birds", lambda options: images(per_class))],
        "preset": [Preset("photos", quick)],
    }
    for kind, parts in offers.items():
        known.add([Registered(kind, part, "tried", "1") for part in parts])
    return known


LAYER = {"preset": "tried/photos", "dataset": "birds"}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run on three classes of five images, and what it said."""
    lines: list[str] = []
    known = registry(5)
    out = tmp_path_factory.mktemp("five") / "run"
    return run(resolve(known, [LAYER]), known, out, progress=lambda *a: lines.append(a[4])), lines


def test_all_classes_are_for_test_and_every_image_is_asked_where_k_is_too_many(
    five: tuple[Path, list[str]],
):
    folder, lines = five
    assert read_json(folder / "manifest.json")["classes"] == {
        "train": [], "val": [], "test": [*NAMES],
    }  # fmt: skip
    results = read_results(folder)
    one, rest = results.k_shot
    assert (one.k_shot, one.n_way, one.protocol) == (1, 3, "episodes")
    assert (rest.k_shot, rest.n_way, rest.protocol) == (4, 3, "leave-one-out")
    assert (rest.queries, len(rest.per_episode)) == (15, 15)
    assert rest.accuracy == np.mean(rest.per_episode)
    said = "leave-one-out over 15 images of 3 classes"
    assert any("K = 5" in line and said in line for line in lines)
    assert said in caption(by_setting(results.k_shot)[1])
    page = (folder / "report.html").read_text()
    assert said in page
    assert faults(page) == []
    assert "nothing was trained" in facts(results)


def test_the_head_is_that_of_a_classifier_of_the_same_network(five: tuple[Path, list[str]]):
    config = resolve(registry(5), [run_config(five[0])])
    assert config.head.name == "lda"
    chosen = resolve(registry(5), [LAYER, {"head": "nearest-support"}])
    assert chosen.head.name == "nearest-support"


def test_the_floor_is_the_network_with_random_weights(five: tuple[Path, list[str]], tmp_path: Path):
    """And of one that has no others, its own accuracy."""
    known = registry(5)
    layer = {**LAYER, "backbone": "blank"}
    blank = read_results(run(resolve(known, [layer]), known, tmp_path / "run")).k_shot
    ours = read_results(five[0]).k_shot
    assert [row.untrained for row in ours] == [row.accuracy for row in blank]
    assert [row.untrained for row in blank] == [row.accuracy for row in blank]
    assert [row.floor for row in ours] == [row.floor for row in blank]
    compared = compare_runs([five[0], tmp_path / "run"])
    assert [each.row.protocol for each in compared] == ["episodes"] * 2 + ["leave-one-out"] * 2
    assert not (five[0] / "initial.safetensors").exists()


def test_a_frozen_network_has_no_other_weights_to_be_compared_with():
    known = registry(5)
    parts = build(resolve(known, [{**LAYER, "backbone": "held"}]), known)
    draws, blank = check(parts), snapshot(parts.learned)
    initialise(parts, known)
    found = examine(parts, draws, blank, silent).results.k_shot
    assert [row.untrained for row in found] == [None, None]
    assert "untrained" not in table(found)[0]
    assert [line for line, *_ in k_shot_lines(found, trained=False)] == ["as it came", "raw pixels"]


def test_its_folder_is_a_run_like_any(five: tuple[Path, list[str]]):
    folder, known = five[0], registry(5)
    again = evaluate_run(folder, resolve(known, [run_config(folder)]), known)
    for place in (folder, again):
        assert "held out of training" not in (place / "report.html").read_text()
    one, other = (read_results(each).k_shot for each in (folder, again))
    assert one == other
    assert trained(folder, known).sampler is None
    mine = fs.Classifier.load(folder, known).enrol(
        dict(zip(NAMES, images(5).images[::5], strict=True))
    )
    assert mine.classes == NAMES
    assert [row.k_shot for row in read_results(folder).unknown] == [1, 4]
    assert mine.calibrations == ()  # the run's are of its classes, no better than one's own


def test_an_adapter_is_compared_image_by_image():
    known = registry(3)
    layer = {**LAYER, "adapter": "whiten", "evaluation": {"k_shot": [9]}}
    parts = build(resolve(known, [layer]), known)
    draws = check(parts)
    initialise(parts, known)
    (row,) = examine(parts, draws, snapshot(parts.learned), silent).results.k_shot
    assert row.adapter is not None
    assert (row.protocol, row.episodes, len(row.per_episode)) == ("leave-one-out", 3, 9)
    assert row.accuracy - row.adapter.frozen == pytest.approx(row.adapter.gain)


def test_a_run_that_trains_or_centres_still_wants_classes_for_that(tmp_path: Path):
    known = registry(5)
    with pytest.raises(fs.DataError, match=r"class '.*not enough for 5 support"):
        run(resolve(known, [LAYER, {"training": {"steps": 1}}]), known, tmp_path / "run")
    centred = resolve(known, [LAYER, {"embedding": {"centre": "train"}}])
    split = build(centred, known).split
    assert (len(split.train), len(split.test)) == (2, 1)


def registry_of_eight() -> tuple[Registry, fs.ArrayDataset]:
    known, rng = registry(3), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, *SHAPE)).astype(np.uint8)
    many = fs.ArrayDataset(pixels, np.repeat(np.arange(8), 3), "abcdefgh")
    known.add([Registered("dataset", Component("many", lambda options: many), "tried", "2")])
    return known, many


def test_what_a_search_has_chosen_is_tested_on_no_class_it_was_chosen_on(tmp_path: Path):
    known, many = registry_of_eight()
    layer = {**LAYER, "dataset": "many"}
    options = SearchOptions(method="grid", folds=1, held_out=2, k_shot=1)
    out = search(
        [layer], known, [parameter("head.shrinkage", "0.3,0.5")], tmp_path / "search", options
    )
    best = resolve(known, [read_toml(out / "best.toml")]).split
    assert {*best.train, *best.val, *best.test} == {*"abcdefgh"}
    assert ClassSplit(best.train, best.val, best.test) == split_classes(many)


def test_rows_of_a_study_are_tested_on_the_same_classes():
    known, many = registry_of_eight()
    rows = {"ready": {}, "taught": {"training": {"steps": 1}, "sampler": {"per_class": 2}}}
    for names, expected in ((("ready",), (*"abcdefgh",)), ((*rows,), split_classes(many).test)):
        study = Study("both", {name: rows[name] for name in names}, {**LAYER, "dataset": "many"})
        runs = _with_images(study_configs(study, known), known, Path(), (), silent)
        for each in runs:
            parts = build(each.config, known, each.images)
            assert parts.split.test == expected


def frozen(_: Any, shape: tuple[int, int, int]) -> Any:
    return small(_, shape).freeze()


def examined(known: Registry, **more: Any) -> tuple[list[Any], bool]:
    """Rows of figures, and whether anything was embedded for them."""
    layer = {**LAYER, "backbone": "still", "evaluation": {"k_shot": [1]}, **more}
    parts = build(resolve(known, [layer]), known)
    draws, stages = check(parts), set()
    initialise(parts, known)
    blank = snapshot(parts.learned)
    results = examine(parts, draws, blank, lambda stage, *_: stages.add(stage)).results
    assert "embedding, trained backbone" not in stages  # nothing was
    return list(results.k_shot), "embedding, backbone" in stages


def test_a_frozen_network_embeds_an_image_once_for_all_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    known = registry(3)
    known.add([Registered("backbone", Component("still", frozen), "tried", "1")])
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))

    def files() -> int:
        return len([*tmp_path.glob("embedded/*")])

    first, embedded = examined(known)
    assert (embedded, files()) == (True, 1)
    assert examined(known) == (first, False)
    assert not examined(known, head="ridge")[1]
    assert files() == 1
    grey = {"name": "normalise", "mean": [0.2], "std": [0.7]}
    for others, more in enumerate(({"preprocess": [grey]}, {"seed": 5}), start=2):
        assert examined(known, **more)[1]
        assert files() == others  # seen otherwise, or other weights
    assert examined(known, backbone="ready")[1]  # training would change it
    assert files() == 3
    monkeypatch.setenv("FEWSHOT_CACHE", "")
    assert examined(known) == (first, True)

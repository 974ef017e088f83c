"""Heads side by side on one embedding, rows that are left out, and the page of a study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from fewshot.catalogue.loading import build_registry
from fewshot.core.components import Study
from fewshot.core.errors import ConfigError, DataError
from fewshot.core.figures import StudyResults
from fewshot.core.options import component_options
from fewshot.experiments.config import resolve
from fewshot.experiments.folder import read_results, run_config
from fewshot.experiments.run import evaluate_run
from fewshot.experiments.study import at_hand, run_study, study_configs
from fewshot.parts.studies import METHODS
from fewshot.reports.run_page import heads_by_setting
from fewshot.reports.study_markdown import MARK, write

REGISTRY, _ = build_registry()
HEADS = ["nearest-prototype", "ridge", "tim"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """One row with other heads and one without, nothing trained."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 9)
    noise = rng.integers(0, 120, (len(labels), 16, 16, 3)) + 15 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, images=noise.astype(np.uint8), labels=labels)
    return Study(
        "small",
        rows={
            "many": {"evaluation": {"heads": HEADS}, "seeds": 1},
            "more": {"evaluation": {"heads": HEADS}, "seeds": 1, "metric": "cosine"},
            "alone": {"backbone": {"width": 3}},
        },
        base={
            "dataset": {"name": "arrays", "path": str(path)},
            "backbone": {"name": "conv4", "width": 2},
            "head": "nearest-prototype",
            "split": {"val_fraction": 0.0, "test_fraction": 0.5},
            "training": {"steps": 0},
            "evaluation": {
                "k_shot": [1, 2], "n_way": [3, 0], "dirichlet": [0, 2], "repeats": 2,
                "episodes": 3, "n_query": 2, "pairs": 0, "untrained": False,
            },
        },
        seeds=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(study: Study, tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return run_study(study, REGISTRY, tmp_path_factory.mktemp("studies"))


def test_other_heads_answer_what_a_run_with_them_does(results: StudyResults):
    (run,) = results.rows["many"].runs
    found = {head: [row for row in run.heads if row.head == head] for head in HEADS}
    own = results.rows["many"].figures
    assert [row.accuracy for row in found["nearest-prototype"]] == [of.accuracy for of in own]
    assert {row.gain for row in found["nearest-prototype"]} == {0}
    folder = Path(run.folder)
    config = resolve(REGISTRY, [run_config(folder) | {"head": "tim"}])
    again = read_results(evaluate_run(folder, config, REGISTRY))
    assert [row.accuracy for row in found["tim"]] == [row.accuracy for row in again.k_shot]
    assert [row.balance for row in found["tim"]] == [row.balance for row in again.k_shot]
    for row, of in zip(found["tim"], own, strict=True):
        assert row.gain == pytest.approx(row.accuracy - of.accuracy)
    assert {row.queries for row in found["tim"]} == {"together"}
    assert all(row.untrained is None for row in again.k_shot)
    assert len(heads_by_setting(again)) == 3
    assert sum(len(cells) for _, (_, cells) in heads_by_setting(again)) == 18


def test_a_learned_head_is_not_one_of_the_others(study: Study, tmp_path: Path):
    rows: dict[str, Any] = {"learned": {"evaluation": {"heads": ["relation"]}}}
    with pytest.raises(ConfigError, match="'relation' has learned parts"):
        run_study(evolve(study, rows=rows), REGISTRY, tmp_path)


def test_a_row_has_seeds_of_its_own(study: Study, results: StudyResults):
    named = [(row, config.seed) for row, config in study_configs(study, REGISTRY)]
    assert named == [("many", 0), ("more", 0), ("alone", 0), ("alone", 1)]
    assert [len(row.runs) for row in results.rows.values()] == [1, 1, 2]
    with pytest.raises(ConfigError, match="row 'a': seeds wants"):
        study_configs(Study("a", rows={"a": {"seeds": 0}}, base=study.base), REGISTRY)


def test_rows_without_their_data_are_left_out_of_an_optional_study_and_named(
    study: Study, monkeypatch: pytest.MonkeyPatch
):
    path = study.base["dataset"]["path"]
    rows = {
        "here": {},
        "set": {"dataset": {"name": "arrays", "path": "$TRIED_DATA"}},
        "unset": {"dataset": {"name": "image-folder", "path": "$TRIED_NOTHING"}},
        "lost": {"dataset": {"name": "image-folder", "path": "/no/such/folder"}},
        "plugin": {"backbone": "of-no-plugin"},
    }
    monkeypatch.setenv("TRIED_DATA", path)
    monkeypatch.delenv("TRIED_NOTHING", raising=False)
    optional = evolve(study, rows=rows, optional=True)
    said: list[str] = []
    found = at_hand(optional, REGISTRY, progress=lambda *told: said.append(told[-1]))
    assert list(found.rows) == ["here", "set"]
    assert [line.split("'")[1] for line in said] == ["unset", "lost", "plugin"]
    assert "TRIED_NOTHING is not set" in said[0]
    assert "/no/such/folder" in said[1]
    (_, config), *_ = study_configs(found, REGISTRY)
    assert config.dataset.options.path == path
    with pytest.raises(DataError, match="row 'unset'"):
        study_configs(evolve(study, rows=rows), REGISTRY)
    with pytest.raises(ConfigError, match=r"row 'wrong'.*metric"):
        at_hand(evolve(optional, rows={"wrong": {"metric": {"nme": 1}}}), REGISTRY)
    with pytest.raises(ConfigError, match="no row can be run here: row 'plugin'"):
        at_hand(evolve(optional, rows={"plugin": rows["plugin"]}), REGISTRY)


def test_a_page_keeps_what_is_written_by_hand(results: StudyResults, tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Mine\n\nby hand\n")
    write(page, results)
    first = page.read_text()
    write(page, results)
    assert page.read_text() == first
    assert first.startswith(f"# Mine\n\nby hand\n{MARK}\n")
    for row in (*results.rows, *HEADS):
        assert f"`{row}`" in first
    (line,) = [line for line in first.splitlines() if line.startswith("| `alone` | 2 |")]
    floors = first.partition("Floors")[2].partition("\n\n")[2].partition("\n\n")[0]
    (floor,) = [line for line in floors.splitlines() if line.startswith("| `alone` |")]
    for of in results.rows["alone"].figures:
        assert f" {100 * of.accuracy:.1f}" in line
        assert f" {100 * of.floor:.1f}" in floor
    width = {len(line.split(" | ")) for line in first.splitlines() if line.startswith("| `tim`")}
    assert len(width) <= 2


def test_every_head_and_loss_is_in_the_study_of_methods():
    entries = {kind: {entry.name for entry in REGISTRY.all(kind) if entry.provider == "builtin"}
               for kind in ("head", "loss")}  # fmt: skip
    heads, losses = set(), set()
    for row in METHODS.rows.values():
        heads |= {*row["evaluation"].get("heads", ())} | {row["head"]}
        losses |= {row["loss"]["name"]} if "loss" in row else set()
    assert heads == entries["head"]
    around = {entry.name for entry in REGISTRY.all("loss")  # another loss
              if component_options(entry.component.options)}  # fmt: skip
    assert losses == entries["loss"] - around - {"cross-entropy"}  # the same as prototypical

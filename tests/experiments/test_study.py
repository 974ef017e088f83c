"""A study's runs are done once each, whatever ends it, and its figures are those of its runs."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from pages import faults
from scipy import stats

from fewshot.catalogue.loading import build_registry
from fewshot.core.components import Study
from fewshot.core.errors import ConfigError, DataError, OutputError, TrainingError
from fewshot.core.figures import StudyResults
from fewshot.core.locks import held
from fewshot.engine.statistics import lower_next
from fewshot.experiments.config import partial_to_toml, read_study
from fewshot.experiments.folder import from_json, read_results, read_run, to_json
from fewshot.experiments.manifest import hashes, read_manifest, verify
from fewshot.experiments.study import is_absent, rows_name_path, run_study, study_configs
from fewshot.reports import study_page

REGISTRY, _ = build_registry()
CLASSES, PER_CLASS = 9, 14
COSINE = {"metric": "cosine", "loss": {"name": "contrastive", "margin": 0.5}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two rows on noise with a tint of the class; groups of two images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    noise = rng.integers(0, 120, (len(labels), 16, 16, 3)) + 15 * labels[:, None, None, None]
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, images=noise.astype(np.uint8), labels=labels, groups=np.arange(len(labels)) // 2)
    return Study(
        "small",
        rows={"plain": {}, "cosine": COSINE},
        base={
            "dataset": {"name": "arrays", "path": str(path)},
            "backbone": {"name": "conv4", "width": 4},
            "split": {"val_fraction": 0.25, "test_fraction": 0.34},
            "training": {"steps": 2, "validate_every": 1},
            "evaluation": {
                "k_shot": [1, 3],
                "n_way": [0, 3],
                "groups": ["mixed", "separate"],
                "repeats": 4,
                "episodes": 5,
                "n_query": 3,
                "pairs": 20,
            },
        },
        seeds=2,
        published={"plain": {1: 0.4753, 3: 0.5136}},
        notes=("Theirs let support images be <queries>.",),
        summary="two rows & more",
    )


@pytest.fixture(scope="module")
def out(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "small"
    run_study(study, REGISTRY, folder)
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "study.json").read_text())


def started(out: Path) -> dict[str, tuple[int, int]]:
    """The identity of every run's results, which doing it again would change."""
    paths = (out / "runs").glob("*/results.json")
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def with_first_run(results: dict[str, Any], row: str, out: Path) -> Path:
    """A study's folder in which a row's first run is done already."""
    folder = Path(results["rows"][row]["runs"][0]["folder"])
    shutil.copytree(folder, out / "runs" / folder.name)
    return out


def telling(said: list[str]) -> Callable[..., None]:
    return lambda stage, done, total, status, line: said.append(line)


def figures(results: dict[str, Any] | StudyResults) -> Any:
    """What another machine's clock would not change."""
    tree = to_json(results) if isinstance(results, StudyResults) else results
    return json.loads(json.dumps({name: row["figures"] for name, row in tree["rows"].items()}))


# ------------------------------------------------------------------------------------ figures


def test_rows_are_means_over_seeds_of_their_runs_own_results(out: Path, results: dict[str, Any]):
    assert list(results["rows"]) == ["plain", "cosine"]
    for row in results["rows"].values():
        runs = [json.loads((Path(r["folder"]) / "results.json").read_text()) for r in row["runs"]]
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert len(row["figures"]) == 8  # two n_way, two groupings, two K
        for i, of in enumerate(row["figures"]):
            same = [run["k_shot"][i] for run in runs]
            for key in ("k_shot", "n_way", "groups", "digest"):
                assert {one[key] for one in same} == {of[key]}
            for key in ("accuracy", "floor", "untrained"):
                assert of[key] == pytest.approx(np.mean([one[key] for one in same]))
            draws = np.array([one["per_episode"] for one in same])
            assert of["per_draw"] == draws.tolist()
            assert of["draw_std"] == pytest.approx(np.sqrt(np.var(draws, axis=1, ddof=1).mean()))
            for key, values in (
                ("ci95_seeds", draws.mean(axis=1)),
                ("ci95_draws", draws.mean(axis=0)),
            ):
                if np.ptp(values) > 1e-12:
                    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
                    assert of[key] == pytest.approx(tuple(np.clip(theirs, 0, 1)))
            assert of["confusion"].keys() == of["per_class"].keys()
            asked = sum(sum(row.values()) for row in of["confusion"].values())
            assert asked == sum(one["queries"] for one in same)


def test_figures_come_back_from_json_as_they_went(out: Path, results: dict[str, Any]):
    assert json.loads(json.dumps(to_json(from_json(StudyResults, results, "")))) == results
    for path in (out / "runs").glob("*/results.json"):
        assert json.loads(json.dumps(to_json(read_results(path.parent)))) == json.loads(
            path.read_text()
        )


def test_every_two_rows_are_tested_on_the_same_episodes(results: dict[str, Any]):
    plain, cosine = (row["figures"] for row in results["rows"].values())
    assert [pair["rows"] for pair in results["paired"]] == [["plain", "cosine"]] * 8
    for pair, a, b in zip(results["paired"], plain, cosine, strict=True):
        assert a["digest"] == b["digest"]
        means = [np.mean(of["per_draw"], axis=0) for of in (b, a)]
        classes = [[of["per_class"][name] for name in sorted(a["per_class"])] for of in (b, a)]
        for found, values in ((pair["draws"], means), (pair["classes"], classes)):
            theirs = stats.ttest_rel(*values)
            assert found["n"] == len(values[0])
            assert found["difference"] == pytest.approx(np.subtract(*values).mean())
            if np.ptp(np.subtract(*values)) > 1e-12:
                assert found["p"] == pytest.approx(theirs.pvalue, rel=1e-6)
                assert found["ci95"] == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_published_figures_stand_beside_the_first_setting_only(results: dict[str, Any]):
    for name, row in results["rows"].items():
        for i, of in enumerate(row["figures"]):
            expected = {1: 0.4753, 3: 0.5136}[of["k_shot"]] if i < 2 and name == "plain" else None
            assert of["published"] == expected


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=6),
)
def test_how_often_one_draw_is_lower_is_counted_over_all_pairs(a: list[int], b: list[int]):
    counted = np.mean([(y < x) + (y == x) / 2 for x in a for y in b])
    assert lower_next([a, a], [b, b]) == pytest.approx(counted)
    assert lower_next([a], [b]) + lower_next([b], [a]) == pytest.approx(1)


def test_one_seed_has_no_interval_over_seeds(study: Study, results: dict[str, Any], tmp_path: Path):
    with_first_run(results, "cosine", tmp_path)
    elsewhere = {"dataset": {"name": "arrays", "path": str(tmp_path / "not here.npz")}}
    asked = evolve(study, seeds=1, rows={**study.rows, "elsewhere": elsewhere})
    found = run_study(asked, REGISTRY, tmp_path, only=["cosine"])
    assert list(found.rows) == ["cosine"]  # the others have not been run, nor their images read
    assert found.rows["cosine"].figures[0].ci95_seeds is None
    assert found.paired == ()
    assert "plain: no finished run" in (tmp_path / "report.html").read_text()


# -------------------------------------------------------------------------------------- report


def test_two_seeds_are_shown_and_no_interval_of_two(results: dict[str, Any]):
    found = from_json(StudyResults, results, "study.json")
    for rows in study_page.settings(found):
        _, cells = study_page.table(rows)
        labels = [line[0].strip() for line in cells]
        counts = {len(of.per_draw) for figures in rows.values() for of in figures}
        assert ("each seed" in labels) == (2 in counts)
        assert ("95 % over seeds" in labels) == any(n > 2 for n in counts)
        for name, figures in rows.items():
            start = next(i for i, label in enumerate(labels) if label.startswith(f"{name}, "))
            if len(figures[0].per_draw) == 2:
                shown = [float(each.rstrip(" %")) for each in cells[start + 1][1].split(", ")]
                means = [100 * np.mean(draws) for draws in figures[0].per_draw]
                assert shown == pytest.approx(means, abs=0.051)


def test_without_validation_classes_the_report_has_no_empty_curves(
    study: Study, results: dict[str, Any], tmp_path: Path
):
    bare = copy.deepcopy(results)
    for row in bare["rows"].values():
        for run in row["runs"]:
            run["records"] = [{"step": r["step"], "loss": r["loss"]} for r in run["records"]]
    study_page.page(
        tmp_path, study, partial_to_toml(study), from_json(StudyResults, bare, "study.json")
    )
    assert (tmp_path / "k_shot.svg").exists()
    assert not (tmp_path / "curves.svg").exists()
    assert "<h2>Training</h2>" not in (tmp_path / "report.html").read_text()


def test_the_report_has_every_part(study: Study, out: Path, results: dict[str, Any]):
    text = (out / "report.html").read_text()
    assert faults(text) == []
    for part in (
        "two rows &amp; more", "each seed", "95 % over draws", "95 % over classes",
        "untrained", "raw pixels", "published", "47.5 %", "support images be &lt;queries&gt;",
        "Draws", "standard deviation of a single draw", "Other settings",
        "Rows against each other", "p over classes", "parameters", "training images/s", "Cost",
        "Confusion", "Made by",
    ):  # fmt: skip
        assert part in text, part
    for way in ("9-way", "3-way"):
        for groups in ("groups mixed", "groups separate"):
            assert re.search(rf"{way}[^<]*{groups}", text)
    for row in results["rows"].values():
        for of in row["figures"]:
            assert f"{100 * of['accuracy']:.1f} %" in text
    pictures = sorted(path.name for path in out.glob("*.svg"))
    assert pictures == ["curves.svg", "draws.svg", "k_shot.svg"]
    assert {*hashes(read_manifest(out))} == {"study.json", "report.html", *pictures}
    assert not any(fault for _, fault in verify(out))
    assert text.count("data:image/svg+xml;base64,") == len(pictures)
    assert "src=" not in re.sub(r'src="data:image/svg\+xml;base64,[^"]*"', "", text)


def test_every_training_record_has_the_pair_accuracies(results: dict[str, Any]):
    for row in results["rows"].values():
        for run in row["runs"]:
            assert [record["step"] for record in run["records"]] == [1, 2]
            for record in run["records"]:
                assert 0 <= record["pair_accuracy"] <= 1
                assert 0 <= record["train_pair_accuracy"] <= 1


def test_a_row_has_options_of_its_own_of_the_data_set_that_all_are_given(study: Study):
    rows = {"plain": {}, "small": {"dataset": {"size": 8}}}
    folder = {"dataset": {"name": "image-folder", "path": "x"}}
    configs = dict(study_configs(evolve(study, rows=rows, seeds=1), REGISTRY, below=[folder]))
    found = {row: config.dataset.options for row, config in configs.items()}
    assert (found["plain"].path, found["small"].path) == ("x", "x")
    assert (found["plain"].size, found["small"].size) == (64, 8)
    named = evolve(study, rows={"plain": {"dataset": "asl-synthetic"}})
    for layer in (folder, {"dataset": {"path": "x"}}):
        with pytest.raises(ConfigError, match="a data set of its own"):
            study_configs(named, REGISTRY, below=[layer])


@pytest.mark.parametrize(
    ("base", "rows", "expected"),
    [
        ({}, {"a": {}}, False),
        ({"dataset": "image-folder"}, {"a": {}, "b": {"dataset": {"size": 8}}}, True),
        ({"dataset": "image-folder"}, {"a": {}, "b": {"dataset": "asl-synthetic"}}, False),
        ({}, {"a": {"dataset": "image-folder"}}, True),
    ],
)
def test_a_path_is_for_the_data_set_that_every_row_names(
    study: Study, base: dict[str, Any], rows: dict[str, Any], expected: bool
):
    assert rows_name_path(evolve(study, base=base, rows=rows, published={}), REGISTRY) is expected


def test_a_row_that_cannot_name_a_data_set_is_named(study: Study):
    with pytest.raises(ConfigError, match=r"row 'b'.*3"):
        rows_name_path(evolve(study, rows={"a": {}, "b": {"dataset": 3}}, published={}), REGISTRY)


# ------------------------------------------------------------------- done once, whatever happens


def test_what_is_done_is_not_done_again(study: Study, out: Path, results: dict[str, Any]):
    before, said = started(out), []
    again = run_study(
        study, REGISTRY, out, [{"evaluation": {"memory": 64}}], progress=telling(said)
    )
    assert started(out) == before
    assert figures(again) == figures(results)
    assert not [line for line in said if line]


def test_a_changed_row_is_done_again_alone_and_the_others_stay(study: Study, out: Path):
    before = started(out)
    rows = {**study.rows, "cosine": {**COSINE, "embedding": {"normalize": "none"}}}
    changed = run_study(evolve(study, rows=rows, seeds=1), REGISTRY, out)
    new = started(out).keys() - before.keys()
    assert [name.rpartition("-")[0] for name in new] == ["cosine-0"]
    assert {name: value for name, value in started(out).items() if name in before} == before
    assert {Path(run.folder).name for run in changed.rows["cosine"].runs} == new
    run_study(study, REGISTRY, out)  # and back, from what is there
    assert started(out).keys() == before.keys() | new


@pytest.mark.parametrize("damage", ["results", "weights", "half-done", "empty"])
def test_a_run_that_is_not_whole_is_known(results: dict[str, Any], damage: str, tmp_path: Path):
    folder = shutil.copytree(results["rows"]["plain"]["runs"][1]["folder"], tmp_path / "run")
    assert read_run(folder).manifest["seed"] == 1
    if damage == "results":
        (folder / "results.json").write_text('{"k_shot": [')
    elif damage == "weights":
        weights = (folder / "weights.safetensors").read_bytes()
        (folder / "weights.safetensors").write_bytes(weights[:-1] + b"?")
    elif damage == "half-done":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "training"}))
    else:
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(OutputError, match=re.escape(str(folder))):
        read_run(folder)


def test_a_damaged_run_is_named_and_done_again_to_the_same_figures(
    study: Study, out: Path, results: dict[str, Any]
):
    before = started(out)
    folder = Path(results["rows"]["plain"]["runs"][1]["folder"])
    (folder / "results.json").write_text('{"k_shot": [')
    said: list[str] = []
    again = run_study(study, REGISTRY, out, progress=telling(said))
    assert [line for line in said if str(folder) in line and "done again" in line]
    assert figures(again) == figures(results)
    after = started(out)
    assert {name for name in before if after[name] != before[name]} == {folder.name}


def command(study: Study, out: Path) -> list[str]:
    path = out.with_suffix(".toml")
    path.write_text(partial_to_toml(study))
    return [sys.executable, "-m", "fewshot", "study", str(path), "--out", str(out)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_study_cut_off_goes_on_where_it_stopped(
    study: Study, results: dict[str, Any], tmp_path: Path, how: signal.Signals
):
    out = with_first_run(results, "plain", tmp_path / "small")
    steady = {"training": {"steps": 40, "validate_every": 1, "patience": 0}}
    longer = evolve(study, seeds=1, rows={"plain": {}, "cosine": {**COSINE, **steady}})
    log = (tmp_path / "log").open("w")
    with subprocess.Popen(command(longer, out), stdout=log, stderr=log, env=os.environ) as child:
        deadline = time.monotonic() + 90
        while not list(out.glob("runs/cosine-*/metrics.jsonl")):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            assert child.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        child.send_signal(how)
        code = child.wait(60)
    log.close()
    if how == signal.SIGINT:
        assert code == 130
        line = (tmp_path / "log").read_text().splitlines()[-1]
        assert "cosine, seed 0" in line
        assert "1 of 2 runs are done: the same command goes on" in line
    assert not (out / "study.json").exists()
    before = started(out)
    assert [name.rpartition("-")[0] for name in before] == ["plain-0"]
    if how == signal.SIGINT:
        return  # both go on alike
    found = run_study(longer, REGISTRY, out)
    assert {name: started(out)[name] for name in before} == before
    assert sorted(name.rpartition("-")[0] for name in started(out)) == ["cosine-0", "plain-0"]
    assert len(found.rows["cosine"].runs) == 1


def test_training_that_cannot_go_on_ends_its_run_and_not_the_study(
    study: Study, results: dict[str, Any], tmp_path: Path
):
    with_first_run(results, "plain", tmp_path)
    wild = {"learning_rate": 1e38, "steps": 3, "validate_every": 9}
    rows = {
        "wild": {"training": wild, "optimizer": "sgd", "embedding": {"normalize": "none"}},
        "plain": {},
    }
    broken = evolve(study, seeds=1, rows=rows, published={})
    found = run_study(broken, REGISTRY, tmp_path)
    assert list(found.rows) == ["plain"]
    assert list(found.failed) == ["wild, seed 0"]
    assert "wild, seed 0: " in (tmp_path / "report.html").read_text()
    done = subprocess.run(command(broken, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "wild, seed 0" in done.stderr.splitlines()[-1]
    assert "plain, 1 seed" in done.stdout
    with pytest.raises(TrainingError, match="wild, seed 0"):
        run_study(evolve(broken, rows={"wild": rows["wild"]}), REGISTRY, tmp_path / "alone")


def test_two_at_once_do_not_meet(study: Study, tmp_path: Path):
    with held(tmp_path / ".lock", "it"), pytest.raises(OutputError, match=f"process {os.getpid()}"):
        run_study(study, REGISTRY, tmp_path)


# -------------------------------------------------------------------------------------- mistakes


def test_all_rows_are_checked_before_the_first_run(study: Study, tmp_path: Path):
    wrong = {
        "margin": (ConfigError, {"loss": {"name": "contrastive", "margin": 9.0}}),
        "option": (ConfigError, {"training": {"stepz": 3}}),
        "images": (DataError, {"evaluation": {"k_shot": [1, 99]}}),
        "data": (DataError, {"dataset": {"path": "nowhere.npz"}}),
    }
    for row, (kind, layer) in wrong.items():
        with pytest.raises(kind, match=f"row '{row}': "):
            run_study(evolve(study, rows={**study.rows, row: layer}), REGISTRY, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_rows_of_the_same_settings_are_named(study: Study, tmp_path: Path):
    alike = evolve(study, rows={**study.rows, "also": COSINE | {"evaluation": {"memory": 9}}})
    with pytest.raises(ConfigError, match="'cosine' and 'also' are the same"):
        run_study(alike, REGISTRY, tmp_path)


def test_an_unknown_row_is_met_with_the_nearest(study: Study, tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        run_study(study, REGISTRY, tmp_path, only=["cosin"])
    with pytest.raises(ConfigError, match="published figures for 'cosin'"):
        evolve(study, published={"cosin": {1: 0.5}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = 2", "mine.toml: study wants 'rows', a table of tables"),
        ("rows = {}", "no rows"),
        ("rows.a = 3", "mine.toml: study.rows wants a table of tables, got {'a': 3}"),
        ("seeds = nan\nrows.a = {}", "mine.toml: study.seeds wants a whole number, got nan"),
        ('rows."a/b" = {}', "a/b"),
        ("seedz = 2\nrows.a = {}", "did you mean 'seeds'"),
        ("seeds = 0\nrows.a = {}", "seeds"),
        ("rows.a = {}\npublished.a.one = 0.5", "one"),
        ("rows.a = {", "not TOML"),
    ],
)
def test_a_file_that_is_no_study_is_named_with_the_way_out(text: str, said: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="mine") as caught:
        read_study(path)
    assert said in str(caught.value)


def test_a_study_comes_back_from_its_file(study: Study, tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(partial_to_toml(study))
    assert read_study(path) == study


def _is_at_hand(study: Study, row: str) -> bool:
    """Whether a row is not one that an optional study leaves out."""
    try:
        study_configs(evolve(study, rows={row: study.rows[row]}, published={}), REGISTRY)
    except (ConfigError, DataError) as error:
        if study.optional and is_absent(error):
            return False
        raise
    return True


@pytest.mark.parametrize(
    "study",
    [
        *(REGISTRY.get("study", name).study for name in REGISTRY.names("study")),
        *map(read_study, sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))),
    ],
    ids=lambda study: study.name,
)
def test_every_study_at_hand_names_what_there_is(study: Study):
    rows = {row: layer for row, layer in study.rows.items() if _is_at_hand(study, row)}
    configs = study_configs(evolve(study, rows=rows), REGISTRY) if rows else []
    assert len(configs) == sum(layer.get("seeds", study.seeds) for layer in rows.values())
    for row, config in configs[: len(rows)]:
        margin = getattr(config.loss.options, "margin", None)
        upper = REGISTRY.get("metric", config.metric.name).component.factory(config.metric.options)
        assert row in study.rows
        assert margin is None or margin < upper.upper(336)

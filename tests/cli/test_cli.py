"""The command as its users meet it: what a run leaves, eval and compare, what Ctrl-C keeps."""

import hashlib
import html
import json
import re
import shutil
import signal
import subprocess
import time
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command, done, error, fewshot
from hypothesis import given
from hypothesis import strategies as st
from sealing import sealed
from small_runs import CLASSES, PER_CLASS, QUICK, SMALL, write_images

from fewshot.reports import pictures
from fewshot.reports.page import plain


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def output(work: Path, data: Path) -> subprocess.CompletedProcess[str]:
    out = work / "run & <i>one</i>"
    return done("run", "--data", data, *SMALL, *QUICK, "--out", out, start=fewshot)


@pytest.fixture(scope="module")
def run(work: Path, output: subprocess.CompletedProcess[str]) -> Path:
    return work / "run & <i>one</i>"


@pytest.fixture(scope="module")
def evaluated(run: Path) -> Path:
    """A second evaluation of the run, with another head and metric, and other K."""
    done("eval", run, "--k-shot", "3", "--head", "nearest-prototype", "--metric", "cosine")
    return run / "eval-0001"


# ---------------------------------------------------------------------------- what a run leaves


def test_the_run_folder_holds_everything(run: Path):
    names = {path.name for path in run.iterdir() if path.is_file() and path.name != ".lock"}
    assert names == {
        "config.toml", "manifest.json", "weights.safetensors", "metrics.jsonl", "results.json",
        "curves.svg", "k_shot.svg", "episodes.json", "calibration.svg", "report.html",
    }  # fmt: skip
    for path in run.glob("*.svg"):
        assert len(path.read_text().split("<path ")) > 20, f"{path} is blank"


def test_the_results_are_those_of_the_examination_asked_for(run: Path, data: Path):
    results = read(run / "results.json")
    assert [row["k_shot"] for row in results["k_shot"]] == [1, 3]
    split = read(run / "manifest.json")["classes"]
    for row in results["k_shot"]:
        assert row["n_way"] == CLASSES
        assert row["episodes"] == len(row["per_episode"]) == 2
        assert row["queries"] == 2 * len(split["test"]) * (PER_CLASS - row["k_shot"])
        assert set(row["per_class"]) == set(split["test"])
        assert row["accuracy"] == pytest.approx(np.mean(row["per_episode"]))
        assert row["groups"] == "none"
        for name in ("accuracy", "floor", "untrained"):
            assert 0 <= row[name] <= 1
        for name in ("ci95", "floor_ci95", "untrained_ci95", "ci95_classes"):
            assert 0 <= row[name][0] <= row[name][1] <= 1
        assert row["ci95"][0] <= row["accuracy"] <= row["ci95"][1]
        asked = sum(sum(answers.values()) for answers in row["confusion"].values())
        assert asked == row["queries"]
        right = sum(answers.get(name, 0) for name, answers in row["confusion"].items())
        assert right / asked == pytest.approx(row["accuracy"])
    assert results["verification"]["pairs"] == 50
    assert 0 <= results["verification"]["auc"] <= 1
    assert all(value > 0 for value in results["speed"].values())
    assert results["training"]["steps"] == 4


def test_the_manifest_says_what_the_figures_depend_on(run: Path):
    manifest = read(run / "manifest.json")
    assert manifest["status"] == "finished"
    assert manifest["data"]["images"] == CLASSES * PER_CLASS
    assert manifest["data"]["shape"] == [16, 16, 3]
    assert len(manifest["data"]["files_sha256"]) == 64
    assert Path(manifest["data"]["decoded"]).suffix == ".images"
    digest = hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
    assert manifest["weights_sha256"] == digest
    parts = [name for classes in manifest["classes"].values() for name in classes]
    assert sorted(parts) == [f"class {i}" for i in range(CLASSES)]
    assert {"python", "fewshot", "mlx", "numpy"} <= set(manifest["versions"])
    assert manifest["components"]["backbone conv4"].startswith("builtin ")
    # 3x3 kernels 3 -> 4 -> 4 -> 4 -> 4 without bias, and scale and shift of four batch norms
    assert manifest["parameters"] == 9 * 4 * (3 + 4 + 4 + 4) + 4 * 2 * 4


def test_the_metrics_are_a_line_for_every_validation(run: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line["loss"] >= 0
        assert 0 <= line["score"] <= 1
        assert 0 <= line["auc"] <= 1


def test_the_configuration_says_all_that_was_asked_for(run: Path, data: Path):
    tree = tomllib.loads((run / "config.toml").read_text())
    assert tree["backbone"] == {"name": "conv4", "width": 4}
    assert tree["dataset"]["path"] == str(data)
    assert tree["training"]["steps"] == 4
    assert tree["evaluation"]["k_shot"] == [1, 3]


class Page(HTMLParser):
    """Tags with their attributes, and the text of the title."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data: str) -> None:
        self.texts[self.open] = self.texts.get(self.open, "") + data


def test_the_report_says_in_words_what_it_was_made_by(run: Path):
    text = html.unescape((run / "report.html").read_text())
    made = text.partition(">Made by</h2>")[2].partition("<script")[0]
    manifest = read(run / "manifest.json")
    for part in (
        f"images: {CLASSES * PER_CLASS} of 16x16x3<", f"parameters: {manifest['parameters']}<",
        "device: ", f"python {manifest['versions']['python']}, fewshot ",
    ):  # fmt: skip
        assert part in made, part
    assert not re.search(r"[{}\[\]]|None|True|False|Device\(|: '", made)


facts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(categories=["L"])),
    lambda inner: st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1), inner),
)


@given(facts)
def test_no_fact_is_printed_as_python(fact: Any):
    assert not re.search(r"[{}:'\"]", plain(fact))


def width_of(records: list[dict[str, float]], path: Path) -> float:
    pictures.curves(records, path)
    return float(re.findall(r'viewBox="0 0 ([\d.]+)', path.read_text())[0])


def test_a_picture_of_curves_has_no_empty_panel(tmp_path: Path):
    loss = {"step": 1, "loss": 0.5}
    one, two, three = (
        width_of([loss, {**loss, "step": 2, **more}], tmp_path / "curves.svg")
        for more in ({}, {"score": 0.5}, {"score": 0.5, "auc": 0.5})
    )
    assert width_of([], tmp_path / "curves.svg") < 1.2 * one
    assert 1.7 * one < two < 2.3 * one
    assert 2.7 * one < three < 3.3 * one


def test_the_report_needs_no_other_file(run: Path):
    text = (run / "report.html").read_text()
    page = Page()
    page.feed(text)
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "data", "srcset")
    ]
    inside = [value for value in references if str(value).startswith("data:image/")]
    assert len(inside) >= len(list(run.glob("*.svg")))
    assert all(str(value).startswith("#") for value in references if value not in inside)
    assert not {"link", "iframe"} & {tag for tag, _ in page.tags}
    policy = next(of["content"] for tag, of in page.tags if "http-equiv" in of)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "url(" not in text
    assert "@import" not in text
    for row in read(run / "results.json")["k_shot"]:
        assert f"{100 * row['accuracy']:.1f} %" in text


def test_the_report_takes_names_for_text(run: Path):
    page = Page()
    page.feed((run / "report.html").read_text())
    assert "i" not in {tag for tag, _ in page.tags}
    points = json.loads(page.texts["script"].partition('"use strict"')[0])
    per_class = read(run / "results.json")["k_shot"][0]["per_class"]
    assert {name for name, _, _ in points} == {*per_class}
    assert page.texts["title"].startswith(f"Run {run.name}")  # then those of drawings
    assert page.texts["h1"] == f"Run {run.name}"


def test_a_pipe_gets_the_table_on_stdout_and_progress_on_stderr(output, run: Path):
    assert "\x1b" not in output.stdout + output.stderr
    rows = [line.split() for line in output.stdout.splitlines()]
    for row in read(run / "results.json")["k_shot"]:
        assert [str(row["k_shot"]), f"{100 * row['accuracy']:.1f}", "%"] in [r[:3] for r in rows]
    assert str(run / "report.html") in output.stdout
    assert "training 2/4" in output.stderr
    assert "training 4/4" in output.stderr
    assert "training 2/4" not in output.stdout
    assert "accuracy" not in output.stderr


def same_figures(one: Path, other: Path) -> bool:
    wanted = ("k_shot", "per_episode", "floor", "untrained", "confusion", "digest")
    a, b = (
        [{key: row[key] for key in wanted} for row in read(folder / "results.json")["k_shot"]]
        for folder in (one, other)
    )
    return a == b


def test_the_same_configuration_gives_the_same_figures_in_the_next_numbered_folder(
    run: Path, tmp_path: Path
):
    (tmp_path / "runs" / "0001").mkdir(parents=True)
    result = done("run", "--config", run / "config.toml", cwd=tmp_path, start=fewshot)
    again = tmp_path / "runs" / "0002"
    assert str(Path("runs") / "0002" / "report.html") in result.stdout
    assert same_figures(run, again)
    one, two = (read(folder / "manifest.json") for folder in (run, again))
    assert one["weights_sha256"] == two["weights_sha256"]
    assert one["data"] == two["data"]


# -------------------------------------------------------------------------------- eval, compare


def test_eval_examines_the_same_weights_anew(evaluated: Path, run: Path):
    results = read(evaluated / "results.json")
    assert [row["k_shot"] for row in results["k_shot"]] == [3]
    assert "training" not in results
    first = read(run / "results.json")["k_shot"][1]
    assert results["k_shot"][0]["digest"] == first["digest"]  # the same episodes
    assert results["k_shot"][0]["per_episode"] != first["per_episode"]  # another head and metric
    tree = tomllib.loads((evaluated / "config.toml").read_text())
    assert (tree["head"]["name"], tree["metric"]["name"]) == ("nearest-prototype", "cosine")
    assert (evaluated / "report.html").is_file()


def test_eval_of_the_runs_own_examination_gives_the_runs_figures(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("eval-*"))
    done("eval", copy)
    assert same_figures(run, copy / "eval-0001")


def test_compare_with_itself_finds_no_difference(run: Path):
    rows = [line.split() for line in done("compare", run, run).stdout.splitlines()]
    for row in read(run / "results.json")["k_shot"]:
        first, second = (r for r in rows if r[:1] == [str(row["k_shot"])])
        assert f"{100 * row['accuracy']:.1f}" in first
        assert f"{100 * row['accuracy']:.1f}" in second
        assert "+0.0" in second
        assert second[-1] == "1"  # the p-value


def test_compare_takes_the_k_that_both_runs_share(run: Path, evaluated: Path):
    rows = [line.split() for line in done("compare", run, evaluated).stdout.splitlines()]
    assert {row[0] for row in rows if row and row[0].isdigit()} == {"3"}


@pytest.mark.parametrize("count", [0, 1])
def test_compare_wants_two_runs(count: int, tmp_path: Path):
    assert "two" in error(2, "compare", *[tmp_path] * count)


@pytest.mark.parametrize("what", ["missing", "empty", "damaged"])
def test_compare_names_a_folder_without_results(what: str, run: Path, tmp_path: Path):
    folder = tmp_path / what
    if what != "missing":
        folder.mkdir()
    if what == "damaged":
        (folder / "results.json").write_text('{"k_shot": [')
    assert str(folder) in error(5, "compare", run, folder)


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "other", "unsigned"])
def test_eval_of_damaged_weights_is_refused(damage: str, run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("eval-*"))
    weights = copy / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "missing":
        weights.unlink()
    elif damage == "other":  # of a wider backbone
        config = (copy / "config.toml").read_text()
        (copy / "config.toml").write_text(re.sub("width = 4", "width = 5", config))
        sealed(copy)
    elif damage == "flipped":
        content[-1] ^= 1
        weights.write_bytes(content)
    else:
        weights.write_bytes(content[: len(content) // 2])
    if damage == "unsigned":  # as left by a run that was killed
        sealed(copy, without=("weights_sha256",))
    line = error(5, "eval", copy)
    assert str(copy) in line
    assert "weights" in line
    assert not list(copy.glob("eval-*"))


# -------------------------------------------------------------- what a run and its figures keep


def test_a_folder_that_exists_is_not_overwritten(run: Path, data: Path):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert str(run) in error(5, "run", "--data", data, *SMALL, *QUICK, "--out", run)
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_run_keeps_its_split_and_eval_refuses_classes_it_was_trained_on(run: Path):
    classes = read(run / "manifest.json")["classes"]
    kept = tomllib.loads((run / "config.toml").read_text())["split"]
    assert {part: kept[part] for part in ("train", "val", "test")} == classes
    seen = json.dumps(classes["train"][:1])
    rest = json.dumps([*classes["train"][1:], *classes["val"], *classes["test"]])
    line = error(
        4, "eval", run, "--set", f"split.test={seen}", "--set", f"split.train={rest}"
    )  # fmt: skip
    assert classes["train"][0] in line


def test_a_class_that_a_run_left_out_stays_out_when_it_is_evaluated(tmp_path: Path):
    counts = {f"class {i}": PER_CLASS for i in range(CLASSES)} | {"lone": 1}
    data = write_images(tmp_path / "data", counts)
    words = ("--set", "split.too_small=leave-out", "--set", "split.test_fraction=0.3")
    quick = ("--steps", "1", "--k-shot", "1", "--set", "evaluation.repeats=2")
    done("run", "--data", data, *SMALL, *quick, *words, "--out", tmp_path / "run")
    done("eval", tmp_path / "run", "--k-shot", "2")


def test_a_cache_that_cannot_be_written_to_is_one_line_and_no_obstacle(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    result = done("run", "--data", data, *SMALL, *QUICK, "--out", tmp_path / "run", start=fewshot)
    (line,) = (line for line in result.stderr.splitlines() if "cache" in line.lower())
    assert "not kept" in line
    assert read(tmp_path / "run" / "manifest.json")["data"]["decoded"] == "memory"


# --------------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_training_keeps_the_best_weights_so_far(run: Path, data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    arguments = (*SMALL, *QUICK, "--steps", "1000000", "--set", "training.patience=0")
    process = subprocess.Popen(
        **command("run", "--data", data, *arguments, "--out", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no validation within a minute"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    line = stderr.splitlines()[-1]
    assert "interrupted at step" in line
    assert f"fewshot eval {folder}" in line
    manifest = read(folder / "manifest.json")
    assert manifest["status"] == "interrupted"
    assert manifest["training"]["stopped"] == "interrupted"
    assert 2 <= manifest["training"]["best_step"] <= manifest["training"]["steps"] < 1000000
    assert not (folder / "results.json").exists()
    assert f"fewshot eval {folder}" in error(5, "compare", run, folder)
    # They can be examined, here in standard episodes, which are others than those of the run.
    few = ("--set", "evaluation.episodes=3", "--set", "evaluation.n_query=5")
    done("eval", folder, "--k-shot", "3", "--n-way", "2", *few)
    (row,) = read(folder / "eval-0001" / "results.json")["k_shot"]
    assert (row["k_shot"], row["n_way"], row["episodes"]) == (3, 2, 3)
    assert row["queries"] == 3 * 2 * 5
    assert "same episodes" in error(2, "compare", run, folder / "eval-0001")
    assert "an evaluation, not a run" in error(5, "status", folder / "eval-0001")

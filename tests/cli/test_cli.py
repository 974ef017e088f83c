"""The command as its users meet it: what a run leaves, what a mistake says, what Ctrl-C keeps."""

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

import attrs
import numpy as np
import pytest
from click.testing import CliRunner
from commands import command, done, error, fewshot, here
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sealing import sealed

from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import build_registry
from fewshot.cli import commands
from fewshot.experiments.config import read_study
from fewshot.reports import pictures
from fewshot.reports.page import plain

CLASSES, PER_CLASS = 7, 12
SMALL = (
    *("--set", "backbone.name=conv4", "--set", "backbone.width=4"),
    *("--set", "dataset.name=image-folder", "--set", "dataset.size=16"),
)
QUICK = (
    *("--steps", "4", "--k-shot", "1,3", "--set", "training.validate_every=2"),
    *("--set", "evaluation.repeats=2", "--set", "evaluation.pairs=50"),
    *("--set", "split.test_fraction=0.3", "--set", "split.val_fraction=0.3"),
)
REGISTRY = build_registry()[0]


def write_images(root: Path, counts: dict[str, int]) -> Path:
    """Noise with a tint of the class, hard enough that accuracies lie between 0 and 1."""
    rng = np.random.default_rng(0)
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        tint = np.array([12 * i, 80 - 12 * i, 40])
        for j in range(count):
            noise = rng.integers(0, 160, (32, 32, 3)) + rng.integers(0, 40, 3)
            Image.fromarray(np.clip(noise + tint, 0, 255).astype(np.uint8)).save(
                root / name / f"{j}.png"
            )
    return root


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def data(work: Path) -> Path:
    return write_images(work / "data", {f"class {i}": PER_CLASS for i in range(CLASSES)})


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


# ------------------------------------------------------------------------------- what a run leaves


def test_the_run_folder_holds_everything(run: Path):
    names = {path.name for path in run.iterdir() if path.is_file() and path.name != ".lock"}
    assert names == {
        "config.toml", "manifest.json", "weights.safetensors", "metrics.jsonl", "results.json",
        "curves.png", "k_shot.png", "episodes.png", "episodes.json", "calibration.png",
        "report.html",
    }  # fmt: skip
    for path in run.glob("*.png"):
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 0, f"{path} is blank"


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


def width_of(records: list[dict[str, float]], path: Path) -> int:
    pictures.curves(records, path)
    with Image.open(path) as image:
        return image.width


def test_a_picture_of_curves_has_no_empty_panel(tmp_path: Path):
    loss = {"step": 1, "loss": 0.5}
    one, two, three = (
        width_of([loss, {**loss, "step": 2, **more}], tmp_path / "curves.png")
        for more in ({}, {"score": 0.5}, {"score": 0.5, "auc": 0.5})
    )
    assert width_of([], tmp_path / "curves.png") < 1.2 * one
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
    assert len(inside) >= len(list(run.glob("*.png")))
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


# --------------------------------------------------------------------------------- eval, compare


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
        first, second = (r for r in rows if r[:2] == [str(row["k_shot"]), str(CLASSES)])
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


# ------------------------------------------------------------------------------------ list, show


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_every_component_of_a_kind(kind: str):
    result = CliRunner().invoke(commands, ["list", kind])
    assert result.exit_code == 0
    listed = [line.split()[1] for line in result.stdout.splitlines() if line[1:].startswith(kind)]
    assert listed == REGISTRY.names(kind)


def test_list_names_every_kind():
    lines = done("list").stdout.splitlines()
    counts = {k: sum(line.split()[:1] == [k] for line in lines) for k in KINDS}
    counts["kind"] = 0  # the header
    assert {k: counts[k] for k in KINDS} == {k: len(REGISTRY.names(k)) for k in KINDS}


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in REGISTRY.names(k)])
def test_show_tells_the_options_of_every_component(kind: str, name: str, tmp_path: Path):
    entry = REGISTRY.get(kind, name)
    result = CliRunner().invoke(commands, ["show", kind, name])
    assert result.exit_code == 0, result.stderr
    assert f"{kind} {entry.qualified}" in result.stdout
    assert entry.part.summary
    assert entry.part.summary in result.stdout
    if kind == "preset":
        text = result.stdout.partition(entry.part.summary)[2]
        assert tomllib.loads(text) == dict(entry.preset.values)
    elif kind == "study":
        path = tmp_path / f"{name}.toml"
        path.write_text(result.stdout.partition(entry.part.summary)[2])
        assert read_study(path) == entry.study
    else:
        rows = [line.split() for line in result.stdout.splitlines()]
        for field in attrs.fields(entry.component.options):
            assert field.metadata["help"]
            assert field.name in [row[0] for row in rows if row]


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("backbone", "conv4", ["width=4"]),
        ("backbone", "simplecnn", ["channels=[4, 8]"]),
        ("dataset", "asl-synthetic", ["images=2", "size=32"]),
        ("dataset", "image-folder", ["path=DATA"]),
    ],
)
def test_show_saves_a_picture(kind: str, name: str, settings: list[str], data: Path, tmp_path):
    path = tmp_path / "picture.png"
    chosen = [
        text for setting in settings for text in ("--set", setting.replace("DATA", str(data)))
    ]
    result = done("show", kind, name, "--save", path, *chosen)
    assert f"saved {path}" in result.stdout
    with Image.open(path) as image:
        assert np.asarray(image.convert("L")).std() > 0


def test_show_saves_a_picture_of_classes_of_any_name(tmp_path: Path):
    root = write_images(tmp_path / "data", {"$^$": 2, "a_b^c": 2, "50% & <b>": 2, "\\frac": 2})
    path = tmp_path / "picture.png"
    done("show", "dataset", "image-folder", "--set", f"path={root}", "--save", path)
    assert path.is_file()


@pytest.mark.parametrize(
    ("code", "arguments", "wanted"),
    [
        (2, ["backbone", "conv5"], "did you mean 'conv4'"),
        (2, ["backbones", "conv4"], "backbone"),
        (2, ["metric", "cosine", "--save", "x.png"], "backbone or a dataset"),
        (2, ["backbone", "conv4", "--save", "x.png", "--set", "widht=3"], "did you mean 'width'"),
        (2, ["backbone", "conv4", "--set", "widht=3"], "did you mean 'width'"),
        (2, ["backbone", "conv4", "--save", "x.png", "--size", "8"], "16x16"),
        (5, ["backbone", "conv4", "--save", "not/there/x.png"], "x.png"),
        (5, ["backbone", "conv4", "--save", "x.nonsense"], "x.nonsense"),
        (4, ["dataset", "image-folder", "--save", "x.png"], "--data"),
    ],
)
def test_show_refuses_in_one_line(code: int, arguments: list[str], wanted: str, tmp_path: Path):
    assert wanted in error(code, "show", *arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- mistakes

MISTAKES = {
    "unknown backbone": (2, ["--backbone", "conv5"], ["conv5", "did you mean 'conv4'"]),
    "a flag of other tools": (2, ["--lr", "0.1"], ["--lr", "--set training.learning_rate="]),
    "unknown preset": (2, ["--preset", "asl-model-9"], ["asl-model-9", "asl-model-1"]),
    "unknown option": (2, ["--set", "backbone.widht=4"], ["widht", "did you mean 'width'"]),
    "unknown section": (2, ["--set", "trainig.steps=4"], ["trainig", "did you mean 'training'"]),
    "wrong type": (
        2,
        ["--set", 'training.patience="3"'],
        ["training.patience", "whole number", "'3'"],
    ),
    "no value": (2, ["--set", "training.steps"], ["KEY=VALUE"]),
    "out of range": (2, ["--set", "backbone.width=0"], ["backbone", "width"]),
    "negative seed": (2, ["--seed", "-1"], ["seed", "-1"]),
    "no such flag": (2, ["--backbnoe", "conv4"], ["--backbnoe"]),
    "k-shot of words": (2, ["--k-shot", "one"], ["--k-shot", "one"]),
    "k-shot of zero": (2, ["--k-shot", "0"], ["K = 0", "--k-shot"]),
    "one-way": (2, ["--n-way", "1"], ["n_way"]),
    "more ways than classes": (4, ["--n-way", "5"], ["5", "classes"]),
    "sampler of another loss": (
        2,
        ["--loss", "triplet", "--sampler", "pairs"],
        ["triplet", "sampler 'pairs'"],
    ),
    "head without gradient": (
        2,
        [
            "--loss",
            "prototypical",
            "--head",
            "nearest-support",
            "--set",
            "sampler.n_way=2",
            "--set",
            "sampler.n_query=2",
        ],
        ["prototypical", "nearest-prototype"],
    ),
    "margin beyond the bound": (2, ["--set", "loss.margin=2.5"], ["margin", "2.5", "euclidean"]),
    "K beyond the class": (4, ["--k-shot", "12"], ["class 'class ", "12"]),
    "overlapping split": (
        4,
        ["--set", 'split.train=["class 0", "class 1"]', "--set", 'split.test=["class 1"]'],
        ["'class 1'", "train", "test"],
    ),
    "unknown class": (
        4,
        ["--set", 'split.train=["class 0", "clas 1"]', "--set", 'split.test=["class 2"]'],
        ["'clas 1'", "did you mean 'class"],
    ),
    "missing configuration": (2, ["--config", "nowhere.toml"], ["nowhere.toml"]),
    "missing folder": (4, ["--data", "nowhere"], ["nowhere"]),
    "image too small": (2, ["--set", "dataset.size=8"], ["conv4", "8x8"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_its_exit_code(mistake: str, data: Path, tmp_path: Path):
    code, arguments, wanted = MISTAKES[mistake]
    line = error(code, "run", "--data", data, *SMALL, *QUICK, *arguments, cwd=tmp_path)
    for text in wanted:
        assert text in line
    assert not list(tmp_path.iterdir()), "a run that was refused leaves nothing"


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ["run", "--backbone", "conv5"]),
        (2, ["run", "--no-such-flag"]),
        (4, ["run", "--backbone", "conv4", "--data", "nowhere"]),
        (5, ["eval", "nowhere"]),
    ],
)
def test_the_process_ends_with_the_exit_code(code: int, arguments: list[str], tmp_path: Path):
    assert error(code, *arguments, cwd=tmp_path, start=fewshot) == error(
        code, *arguments, cwd=tmp_path
    )


def test_a_class_too_small_is_named_with_its_counts(tmp_path: Path):
    counts = {f"class {i}": PER_CLASS for i in range(CLASSES)} | {"rare": 3}
    data = write_images(tmp_path / "data", counts)
    split = ("--set", 'split.train=["class 0", "rare"]', "--set", 'split.test=["class 1"]')
    line = error(4, "run", "--data", data, *SMALL, *split, cwd=tmp_path)
    assert "class 'rare' has 3 images" in line
    assert "class 'class" not in line
    line = error(4, "run", "--data", data, *SMALL, "--set", "split.min_images=5", cwd=tmp_path)
    assert "'rare' (3)" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", ["empty", "one class", "unreadable"])
def test_images_that_cannot_be_used_are_named(what: str, tmp_path: Path):
    data = tmp_path / "data"
    data.mkdir()
    if what == "one class":
        write_images(data, {"only": 3})
    if what == "unreadable":
        write_images(data, {f"c{i}": PER_CLASS for i in range(CLASSES)})
        (data / "c3" / "0.png").write_bytes(b"")
        (data / "c5" / "7.jpg").write_text("no image")
    line = error(4, "run", "--data", data, *SMALL, *QUICK, cwd=tmp_path)
    assert str(data) in line
    if what == "one class":
        assert "only" in line
    if what == "unreadable":
        assert "c3/0.png" in line
        assert "c5/7.jpg" in line
        assert "c0/0.png" not in line


def test_a_folder_that_exists_is_not_overwritten(run: Path, data: Path):
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert str(run) in error(5, "run", "--data", data, *SMALL, *QUICK, "--out", run)
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(data: Path, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("in the way")
    out = file / "run"
    assert str(out) in error(5, "run", "--data", data, *SMALL, *QUICK, "--out", out)
    (tmp_path / "runs").write_text("in the way, too")
    assert "runs" in error(5, "run", "--data", data, *SMALL, *QUICK, cwd=tmp_path)


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_eval_of_what_is_no_run_is_refused(what: str, tmp_path: Path):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    if what == "file":
        folder.write_text("")
    assert str(folder) in error(5, "eval", folder)


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


# -------------------------------------------------------------------- flags and --set together


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--backbone", "conv4", "--set", "backbone.width=4"], 4),
        (["--backbone", "conv4", "--set", "backbone.widht=4"], 2),
        (["--backbone", "conv4", "--set", "backbone.width=0"], 2),
        (["--loss", "triplet", "--set", "loss.margin=0"], 2),
        (["--augment", "blur", "--set", "augment.blur.sigma=0.5"], 4),
        (["--augment", "blur", "--set", "augment.blur.sigma=-1"], 2),
        (["--set", "dataset.size=4"], 2),
    ],
)
def test_a_setting_is_for_the_part_that_a_flag_names(
    arguments: list[str], code: int, tmp_path: Path
):
    """The folder does not exist (4), so a setting that is taken into account shows by its 2."""
    line = error(code, "run", "--data", tmp_path / "nowhere", "--backbone", "conv4", *arguments)
    assert ("nowhere" in line) == (code == 4)


def test_a_single_pair_of_verification_is_refused_or_works(data: Path, tmp_path: Path):
    """Half of it is of one class: none, where there is one pair."""
    arguments = (*SMALL, *QUICK, "--steps", "0", "--set", "evaluation.pairs=1")
    result = here("run", "--data", data, *arguments, "--out", tmp_path / "run")
    assert "Traceback" not in result.stderr
    assert result.returncode in (0, 2)


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


# ----------------------------------------------------------------- what a run and its figures keep


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


def test_transforms_in_the_wrong_list_are_refused(data: Path, tmp_path: Path):
    for words, other in (
        (["--augment", "normalise"], "preprocess"),
        (["--set", 'preprocess=[{name="crop"}]'], "augment"),
    ):
        line = error(2, "run", "--data", data, *SMALL, *QUICK, *words, cwd=tmp_path)
        assert f"belongs in {other}" in line


def test_a_misspelt_plugin_in_the_variable_is_said(tmp_path: Path):
    call = command("list", "head")
    call["env"]["FEWSHOT_PLUGINS"] = "asll"
    result = subprocess.run(**call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "'asll'" in result.stderr


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

"""What a mistake says: one line that names the way out, and its exit code."""

import subprocess
from pathlib import Path

import pytest
from commands import command, error, fewshot, here
from small_runs import CLASSES, PER_CLASS, QUICK, SMALL, write_images

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


# --------------------------------------------------------------------- flags and --set together


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

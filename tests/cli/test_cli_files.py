"""What commands say of files that are damaged, malformed, in use or of no use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import done, error, here
from PIL import Image

import fewshot as fs


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / "0001"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        image = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(image).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.fixture
def mine(run: Path, photos: Path, tmp_path: Path) -> Path:
    file = tmp_path / "mine.fewshot"
    fs.Classifier.load(run).enrol({"a": [*(photos / "a").iterdir()]}).save(file)
    return file


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_tells_what_is_whole_and_what_is_not(run: Path, mine: Path, tmp_path: Path) -> None:
    for path in (run, mine, tmp_path):
        assert "all whole" in done("verify", path).stdout
    (run / "k_shot.svg").unlink()
    flip(run / "results.json")
    flip(mine)
    line = error(5, "verify", tmp_path)
    assert "3 of " in line
    said = here("verify", tmp_path).stdout.splitlines()
    assert sorted(each.partition(": ")[0] for each in said) == sorted(
        map(str, (run / "k_shot.svg", run / "results.json", mine))
    )
    assert "mine.fewshot: damaged" in error(5, "verify", mine)
    flip(run / "manifest.json")
    assert "not whole" in error(5, "verify", run)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no run, evaluation, study, search or classifier" in error(5, "verify", empty)
    assert "compare" not in error(5, "compare", run, run)


def test_what_is_kept_is_shown_verified_and_pruned(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FEWSHOT_CACHE", "~/kept")
    here_now = Path(shutil.copytree(photos, tmp_path / "now"))
    from fewshot.data.datasets import decode
    from fewshot.data.folders import ImageFolderOptions, image_folder

    decode(image_folder(ImageFolderOptions(path="~/now", size=8)))
    assert (tmp_path / "kept").is_dir()
    shown = done("cache").stdout
    assert str(here_now) in shown
    assert shown.endswith(" in 1 folder\n")
    assert "1 file, all whole" in done("cache", "verify").stdout
    assert "0.0 MB are free again" in done("cache", "prune").stdout
    assert [*(tmp_path / "kept").iterdir()]
    (file,) = (tmp_path / "kept").rglob("*.images")
    flip(file)
    assert "1 of 1 files are not whole" in error(5, "cache", "verify")
    shutil.rmtree(here_now)
    assert f"removed: {here_now}" in done("cache", "prune").stdout
    assert not [*(tmp_path / "kept").iterdir()]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"training = 3", "'training'"),
        (b"[training]\nsteps = 'x'", "training.steps"),
        (b"[training]\nlearning_rate = nan", "training.learning_rate"),
        (b"[training]\nsteps = 99999999999999999999", "training.steps"),
        (b"seed = " + b"9" * 5000, "digits"),
        (b"[training]\nstep = 1", "'step'"),
        (b"a = " + b"[" * 3000, "nested too deep"),
        (b"\xff\xfes\x00", "UTF-16"),
        (b"[[split]]\nval = 1", "'split'"),
        (b"backbone = 3", "'backbone'"),
        (b"augment = 3", "'augment'"),
    ],
)
def test_a_configuration_file_is_named_with_the_key(
    content: bytes, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"" + content)
    line = error(2, "run", "--config", path, "--backbone", "conv4", "--data", tmp_path)
    if key == "'backbone'":  # a flag names another: what is below is not even looked at
        line = error(2, "run", "--config", path, "--data", tmp_path)
    assert str(path) in line
    assert key in line
    assert len(line) < 500


def test_a_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nsteps = 3")
    words = ("--config", path, "--backbone", "conv4", "--data", tmp_path)
    assert str(path) not in error(2, "run", *words, "--set", "training.steps=-1")


def test_what_is_read_is_not_written_over(mine: Path, photos: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(photos, tmp_path / "photos"))
    image = next(copy.rglob("*.png"))
    for out in (image, mine):
        before = out.read_bytes()
        for asked in (copy, image):
            if out == image or asked == image:
                assert "read here, too" in error(5, "predict", mine, asked, "--save-html", out)
        assert out.read_bytes() == before
    assert "no regular file" in error(5, "predict", mine, image, "--save-html", "/dev/null")
    onnx = mine.with_suffix(".onnx")
    mine.rename(onnx)
    assert "read here, too" in error(5, "export", onnx, "-o", onnx)


def test_a_threshold_that_is_no_number_is_refused(mine: Path) -> None:
    assert "nan" in error(2, "enrol", mine, "--threshold", "nan")


def test_a_new_classifier_does_not_replace_one_that_came_meanwhile(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, enrol = tmp_path / "new.fewshot", fs.Classifier.enrol

    def slow(self: fs.Classifier, images: object) -> fs.Classifier:
        if not out.exists():
            out.write_text("another's")
        return enrol(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(fs.Classifier, "enrol", slow)
    assert "exists" in error(5, "enrol", run, photos, "-o", out)
    assert out.read_text() == "another's"


def test_what_another_enrols_meanwhile_stays(
    mine: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol, asked = fs.Classifier.enrol, []

    def slow(self: fs.Classifier, images: object) -> fs.Classifier:
        made = enrol(self, images)  # type: ignore[arg-type]
        if not asked:
            asked.append(1)
            other = fs.Classifier.load(mine)
            enrol(other, {"theirs": [*(photos / "b").iterdir()]}).save(mine)
        return made

    monkeypatch.setattr(fs.Classifier, "enrol", slow)
    done("enrol", mine, photos)
    assert fs.Classifier.load(mine).counts() == {"a": 2, "theirs": 2, "b": 2}

"""`fewshot enrol`, `predict` and `export` as their users meet them."""

import io
import json
import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifiers import write_folder
from commands import done, error, fewshot, here, json_lines
from PIL import Image
from sealing import sealed

import fewshot as fs


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("mine"), {"cup": 3, "große Schüssel": 2})


@pytest.fixture(scope="module")
def file(trained: Path, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "mine.fewshot"
    result = done("enrol", trained, mine, "-o", path)
    assert "große Schüssel" in result.stdout
    assert "calibrated for K = 3" in result.stdout
    return path


@pytest.mark.parametrize("command", ["enrol", "predict", "export"])
def test_mlx_is_made_fast_before_it_is_loaded(command: str, file: Path, mine: Path, tmp_path: Path):
    more = {"enrol": ["--show"], "predict": [mine], "export": ["-o", tmp_path / "net.mlxfn"]}
    assert "Warning" not in done(command, file, *more[command], start=fewshot).stderr


# ------------------------------------------------------------------------------------ enrol


def test_a_file_stands_alone(trained: Path, mine: Path, file: Path, tmp_path: Path):
    moved = Path(shutil.copy(file, tmp_path / "else.fewshot"))
    found = json_lines(done("predict", moved, mine, "--json", cwd=tmp_path).stdout)
    ours = fs.Classifier.load(trained).enrol(
        {folder.name: sorted(folder.iterdir()) for folder in sorted(mine.iterdir())}
    )
    expected = ours.predict([each["image"] for each in found])
    assert [each["best"] for each in found] == [each.best for each in expected]
    distances = [each["distance"] for each in found]
    assert distances == pytest.approx([each.distance for each in expected], abs=1e-5)


def test_the_engine_can_be_named(
    file: Path, trained: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    answers = [
        json_lines(done("predict", file, mine, "--json", "--engine", name).stdout)
        for name in ("mlx", "onnx")
    ]
    by_mlx, by_onnx = ([each["label"] for each in found] for found in answers)
    assert by_mlx == by_onnx
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert done("predict", file, mine).stderr == ""
    for words in (("predict", file, mine), ("enrol", trained, mine, "-o", tmp_path / "x.fewshot")):
        assert "pip install 'fewshot[onnx]'" in error(2, *words, "--engine", "onnx")


def test_a_file_is_changed_in_place_or_copied(file: Path, tmp_path: Path):
    more = write_folder(tmp_path / "more", {"owl": 1})
    copy = Path(shutil.copy(file, tmp_path / "copy.fewshot"))
    done("enrol", copy, more)
    assert fs.Classifier.load(copy).counts() == {"cup": 3, "große Schüssel": 2, "owl": 1}
    before = copy.read_bytes()
    done("enrol", copy, more)
    assert copy.read_bytes() == before, "the same images again change nothing"
    done("enrol", copy, "--remove", "owl", "--remove", "cup", "-o", tmp_path / "less.fewshot")
    assert copy.read_bytes() == before
    assert fs.Classifier.load(tmp_path / "less.fewshot").counts() == {"große Schüssel": 2}
    done("enrol", copy, "--remove", "owl")
    assert copy.read_bytes() == file.read_bytes()
    shown = done("enrol", copy, "--show").stdout
    assert "conv4 on 16x16x3" in shown
    assert copy.read_bytes() == file.read_bytes()


def test_a_threshold_of_ones_own_is_kept_in_the_file(file: Path, mine: Path, tmp_path: Path):
    strict = tmp_path / "strict.fewshot"
    done("enrol", file, "--threshold", "-1", "-o", strict)
    assert "-1, as set" in done("enrol", strict, "--show").stdout
    for options, known in (((), False), (("--threshold", "inf"), True)):
        found = json_lines(done("predict", strict, mine, "--json", *options).stdout)
        assert all((each["label"] is not None) == known for each in found)


def test_images_that_cannot_be_used_are_told_and_the_rest_is_enrolled(
    trained: Path, tmp_path: Path
):
    folder = write_folder(tmp_path / "some", {"cup": 2, "key": 1})
    (folder / "cup" / "bad.png").write_bytes(b"no image")
    (folder / "key" / "0.png").write_bytes(b"")
    out = tmp_path / "some.fewshot"
    result = here("enrol", trained, folder, "-o", out)
    assert result.returncode == 4
    assert "bad.png: not an image" in result.stderr
    assert (
        result.stderr.splitlines()[-1] == "Error: 2 images could not be used; the rest is enrolled"
    )
    assert fs.Classifier.load(out).counts() == {"cup": 2}


def test_an_uncalibrated_run_still_enrols_and_says_so(trained: Path, mine: Path, tmp_path: Path):
    old = Path(shutil.copytree(trained, tmp_path / "old"))
    results = json.loads((old / "results.json").read_text())
    del results["unknown"]
    for i, write in enumerate((lambda p: p.write_text(json.dumps(results)), Path.unlink)):
        write(old / "results.json")
        sealed(old)
        out = tmp_path / f"{i}.fewshot"
        assert "not calibrated" in done("enrol", old, mine, "-o", out).stderr
        found = json_lines(done("predict", out, mine, "--json").stdout)
        assert {each["confidence"] for each in found} == {None}
        assert None not in {each["label"] for each in found}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("enrol", "FILE"), 2, "nothing to do"),
        (("enrol", "MINE", "-o", "new"), 2, "wants a network before it, --preset"),
        (("enrol", "RUN", "MINE"), 2, "wants a file: -o"),
        (("enrol", "RUN", "MINE", "-o", "FILE"), 5, "exists: name another"),
        (
            ("enrol", "FILE", "--remove", "cap", "-o", "new"),
            4,
            "no class 'cap': did you mean 'cup'",
        ),
        (("enrol", "FILE", "none", "-o", "new"), 4, "none: no such file or folder"),
        (("enrol", "MINE", "MINE", "-o", "new"), 5, "not a run folder"),
        (("enrol", "RUN", "MINE", "-o", "none/new"), 5, "cannot be written"),
        (("enrol", "FILE", "MINE", "--backbone", "conv4", "-o", "new"), 2, "not both"),
        (("predict", "none", "MINE"), 5, "none: cannot be read"),
        (("predict", "RUN", "MINE"), 4, "FOLDER -o my.fewshot"),
        (("predict", "FILE", "EMPTY"), 4, "no image in"),
        (("predict", "FILE"), 2, "Missing argument"),
        (("predict", "MINE/cup/0.png", "MINE"), 5, "not a classifier file"),
        (("predict", "FILE", "MINE", "--save-html", "none/x.html"), 5, "cannot be written"),
        (("serve", "none"), 5, "none: no such file; --from RUN makes it"),
        (("export", "FILE", "-o", "net.pt"), 2, "no format '.pt'"),
    ],
)
def test_a_mistake_is_one_line(
    trained: Path, mine: Path, file: Path, tmp_path: Path, arguments: Any, code: int, message: str
):
    (tmp_path / "empty").mkdir()
    places = {"RUN": trained, "MINE": mine, "FILE": file, "EMPTY": tmp_path / "empty"}
    before = file.read_bytes()
    words = [
        str(places[first]) + slash + rest if first in places else word
        for word in arguments
        for first, slash, rest in [word.partition("/")]
    ]
    assert message in error(code, *words, cwd=tmp_path)
    assert file.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "empty"]


@pytest.fixture(scope="module")
def adapted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, whose weights are those of the run without."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("adapted") / "run"))
    config = (run / "config.toml").read_text()
    assert '[adapter]\nname = "none"' in config
    (run / "config.toml").write_text(
        config.replace('[adapter]\nname = "none"', '[adapter]\nname = "whiten"')
    )
    return sealed(run)


@pytest.mark.parametrize("command", ["enrol", "serve", "export"])
def test_no_command_drops_an_adapter_without_a_word(
    command: str, adapted: Path, mine: Path, tmp_path: Path
):
    words = {
        "enrol": ("enrol", adapted, mine, "-o", "new.fewshot"),
        "serve": ("serve", "new.fewshot", "--from", adapted, "--port", 0),
        "export": ("export", adapted, "-o", "new.mlxfn"),
    }[command]
    line = error(2, *words, cwd=tmp_path)
    assert "adapter 'whiten'" in line
    assert "--without-adapter" in line
    assert not [*tmp_path.iterdir()]


def test_a_runs_network_is_had_without_its_adapter_where_that_is_asked_for(
    adapted: Path, file: Path, mine: Path, tmp_path: Path
):
    new = tmp_path / "new.fewshot"
    done("enrol", adapted, mine, "-o", new, "--without-adapter")
    assert new.read_bytes() == file.read_bytes()
    done("enrol", new, mine)
    done("export", adapted, "-o", tmp_path / "net.mlxfn", "--without-adapter")


# ---------------------------------------------------------------------------------- predict


def spoilt(folder: Path) -> list[Path]:
    """Files that are no images, in many ways."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    made = []
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        whole = io.BytesIO()
        image.save(whole, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        content = whole.getvalue()
        for name, bad in (
            ("cut", content[: len(content) // 3]),
            ("header", content[:12]),
            ("zeros", content[:4] + bytes(500)),
        ):
            made.append(folder / f"{name}.{suffix}")
            made[-1].write_bytes(bad)
    huge = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    for name, bad in (("text.png", b"hello"), ("empty.jpg", b""), ("huge.png", huge)):
        made.append(folder / name)
        made[-1].write_bytes(bad)
    (folder / "folder.png").mkdir()
    return [*made, folder / "folder.png", folder / "missing.png"]


def test_bad_images_are_told_in_their_place_and_the_rest_is_answered(
    file: Path, mine: Path, tmp_path: Path
):
    bad = spoilt(tmp_path)
    good = sorted((mine / "cup").iterdir())
    asked = [path for pair in zip(bad, good * len(bad), strict=False) for path in pair]
    asked = [path for path in asked if not path.is_dir()]
    result = here("predict", file, *asked, "--json")
    assert result.returncode == 4
    found = json_lines(result.stdout)
    assert [each["image"] for each in found] == [str(path) for path in asked]
    for path, each in zip(asked, found, strict=True):
        assert ("error" in each) == (path in bad), path
        if path in bad:
            assert str(path) in each["error"]
    count = sum(path in bad for path in asked)
    last = f"Error: {count} of {len(asked)} images could not be used; the rest is answered"
    assert result.stderr.splitlines()[-1] == last
    table = here("predict", file, *asked)
    assert table.returncode == 4
    assert len(table.stdout.splitlines()) == 1 + len(asked) - count
    assert table.stderr.count("\n") == 1 + count


def test_a_path_that_cannot_be_looked_at_costs_no_other_image(
    file: Path, mine: Path, tmp_path: Path
):
    asked = [mine / "cup" / "0.png", "x" * 300]  # for root no folder is closed
    result = here("predict", file, *asked, "--json", "--save-html", tmp_path / "page.html")
    assert result.returncode == 4
    assert ["error" in each for each in json_lines(result.stdout)] == [False, True]


def test_folders_and_names_from_stdin_are_the_same_images(
    file: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
):
    from_folder = done("predict", file, mine, "--json").stdout
    names = [each["image"] for each in json_lines(from_folder)]
    assert names == [str(p) for folder in sorted(mine.iterdir()) for p in sorted(folder.iterdir())]
    text = io.TextIOWrapper(io.BytesIO("\r\n\n".join(names).encode()))
    monkeypatch.setattr(sys, "stdin", text)
    assert done("predict", file, "-", "--json").stdout == from_folder
    assert done("predict", file, *names, "--json").stdout == from_folder


def test_file_names_cannot_steer_the_terminal(file: Path, mine: Path, tmp_path: Path):
    path = tmp_path / "\x1b[31mred.png"
    shutil.copy(mine / "cup" / "0.png", path)
    for options in ((), ("--json",), ("--save-html", tmp_path / "page.html")):
        assert "\x1b" not in done("predict", file, tmp_path, *options).stdout
    (found,) = json_lines(done("predict", file, tmp_path, "--json").stdout)
    assert found["image"] == str(path)


def test_a_file_whose_name_is_no_text_is_refused_by_name(file: Path, mine: Path, tmp_path: Path):
    for name in ("a\udcffb.png", "c.png"):
        shutil.copy(mine / "cup" / "0.png", tmp_path / name)
    for options in ((), ("--json",), ("--save-html", tmp_path / "page.html")):
        result = here("predict", file, tmp_path, *options)
        assert result.returncode == 4
        assert "1 of 2 images could not be used; the rest is answered" in result.stderr
        told = "\\xffb.png: a name that is no text in UTF-8; rename it"
        assert told in (result.stderr + result.stdout).replace("\\\\", "\\")
    for line in here("predict", file, tmp_path, "--json").stdout.splitlines():
        str(json.loads(line)).encode()  # a strict reader takes no lone surrogate
    assert "no text in UTF-8; rename it" in (tmp_path / "page.html").read_text()


class Page(HTMLParser):
    """What a page shows and where it would get it from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))


def test_an_answer_is_a_line_that_fits_whoever_reads_it(
    file: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
):
    def shown(width: int | None, *more: str) -> list[str]:
        monkeypatch.setattr("fewshot.cli.predicting.columns", lambda: width)
        return done("predict", file, mine, *more).stdout.splitlines()[1:]

    whole = shown(10_000)
    assert all(str(mine) in line for line in whole)
    for line, full in zip(shown(None), whole, strict=True):  # where nobody watches
        assert Path(full).name in line
    facts = [json.loads(line) for line in done("predict", file, mine, "--json").stdout.splitlines()]
    near = [f"{n['label']}/{n['name']} {n['distance']:.3g}" for of in facts for n in of["nearest"]]
    for width in (20, 60, 80, 500, None):  # every one that is asked for is there, whole
        below = [line for line in shown(width, "--nearest", "3") if line.startswith("    ")]
        assert ", ".join(below).replace("    ", "").replace(",,", ",").split(", ") == near
        assert all(len(line) <= (width or 80) + 1 or ", " not in line for line in below)
    for width in (20, 60, 80, max(map(len, whole)) - 1, 500):
        for line, full in zip(shown(width), whole, strict=True):
            figures, path = full.split(str(mine))
            path = f"{mine}{path}"
            assert line.startswith(figures)
            assert len(line) <= max(width, len(figures) + 12)
            assert line == full or len(full) > width
            if str(mine) not in line:  # as much of the path as fits
                assert line.startswith(f"{figures}…")
                assert path.endswith(line.removeprefix(f"{figures}…"))
                assert len(line) == max(width, len(figures) + 12)


def test_the_page_shows_every_image_and_needs_no_other_file(file: Path, mine: Path, tmp_path: Path):
    bad = tmp_path / "<script>.png"
    bad.write_bytes(b"x")
    page = tmp_path / "page.html"
    result = here("predict", file, mine, bad, "--save-html", page)
    assert result.returncode == 4
    tags = Page(page.read_text()).tags
    sources = [a["src"] for tag, a in tags if tag == "img"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/") for source in sources)
    assert [a.get("class") for tag, a in tags if tag == "li"].count("bad") == 1
    assert [tag for tag, _ in tags].count("script") == 1  # its own
    assert "http" not in page.read_text()
    assert f">{mine}" not in page.read_text()  # names are told below the folder asked about


def test_the_order_of_many_images_is_kept(file: Path, tmp_path: Path, mine: Path):
    for i in range(300):
        shutil.copy(mine / "cup" / f"{i % 3}.png", tmp_path / f"{i}.png")
    result = done("predict", file, tmp_path, "--json")
    found = json_lines(result.stdout)
    assert [Path(each["image"]).stem for each in found] == [str(i) for i in range(300)]
    assert "predicting: " in result.stderr
    for i, each in enumerate(found[3:]):
        assert each["distance"] == pytest.approx(found[i % 3]["distance"], abs=1e-5)


def test_an_exported_network_is_written(file: Path, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    for suffix in ("onnx", "mlxfn"):
        out = tmp_path / f"net.{suffix}"
        assert "16x16x3, float32 in [0, 1]" in done("export", file, "-o", out).stdout
        assert out.stat().st_size > 1000


# ------------------------------------------------------------------- folders as they are


def test_what_cannot_be_walked_is_said_and_the_rest_is_answered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = write_folder(tmp_path / "x", {"cup": 2, "closed": 1})
    (folder / "cup" / "up").symlink_to("..")
    (folder / "self").symlink_to("self")
    (folder / "cup" / "1.heic").touch()
    honest = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", refusing)  # root may read everything
    result = here("predict", file, folder, "--json")
    assert (result.returncode, len(json_lines(result.stdout))) == (4, 2)
    for said in ("left out: 1 (closed)", "passed over: 2 (cup/up …)", "(.heic 1)"):
        assert said in result.stderr
    result = here("enrol", file, folder, "-o", tmp_path / "more.fewshot")
    assert result.returncode == 4
    assert "left out: 1 (closed)" in result.stderr


def test_the_limit_of_pixels_is_an_option_wherever_images_are_read(
    file: Path, trained: Path, tmp_path: Path
):
    folder = write_folder(tmp_path / "x", {"cup": 1})  # 20 x 24
    assert "max_pixels 479" in here("predict", file, folder, "--max-pixels", 479).stderr
    done("predict", file, folder, "--max-pixels", 480)
    out = tmp_path / "new.fewshot"
    assert "max_pixels 479" in here("enrol", trained, folder, "-o", out, "--max-pixels", 479).stderr
    done("enrol", trained, folder, "-o", out, "--max-pixels", 480)


def test_folders_named_for_classes_are_the_truth(file: Path, mine: Path, tmp_path: Path):
    asked = tmp_path / "asked"
    shutil.copytree(mine, asked)
    shutil.copytree(mine / "cup", asked / "moth")  # not enrolled, and sure to be taken for a cup
    plain = json_lines(done("predict", file, asked, "--json").stdout)
    *answers, last = json_lines(done("predict", file, asked, "--json", "--labelled").stdout)
    assert [{k: v for k, v in each.items() if k not in ("truth", "right")} for each in answers] == (
        plain
    )
    assert [each["truth"] for each in answers] == [Path(e["image"]).parent.name for e in answers]
    assert last["labelled"]["asked"] == len(answers)
    right = sum(each["right"] for each in answers)
    assert last["labelled"]["right"] == right
    for each in answers:
        assert each["right"] == (
            each["label"] == (None if each["truth"] == "moth" else each["truth"])
        )
    table = done("predict", file, asked, "--labelled")
    unknown = sum(each["label"] is None for each in answers)
    assert table.stdout.splitlines()[-1] == f"{right} of {len(answers)} right, {unknown} unknown"
    assert table.stdout.count("\nwrong ") == len(answers) - right
    assert "moth (not enrolled)" in table.stdout


def test_leaves_are_enrolled_and_asked_by_their_paths(trained: Path, tmp_path: Path):
    folder = write_folder(tmp_path / "x", {"kitchen/cup": 2, "kitchen/old/cup": 2, "moth": 2})
    path = tmp_path / "leaves.fewshot"
    shown = done("enrol", trained, folder, "--leaves", "-o", path).stdout
    names = ["kitchen/cup", "kitchen/old/cup", "moth"]
    rows = [line.split() for line in shown.splitlines()]
    assert [row[0] for row in rows if row[1:] == ["2"]] == names
    *answers, _ = json_lines(done("predict", path, folder, "--json", "--labelled").stdout)
    assert {each["truth"] for each in answers} == {*names}


def test_nothing_is_said_to_be_sure_of_an_unknown(file: Path, tmp_path: Path):
    new = write_folder(tmp_path / "new", {"moth": 2}, seed=1)
    answers = json_lines(done("predict", file, new, "--json", "--threshold", -1).stdout)
    shown = done("predict", file, new, "--threshold", -1).stdout.splitlines()[1:]
    unknown = [line for line, each in zip(shown, answers, strict=True) if each["label"] is None]
    assert unknown
    for line in unknown:
        assert line.startswith("unknown, nearest ")
        assert "%" not in line

"""`fewshot list` and `show`: every kind, every component, pictures of networks and data sets."""

import tomllib
from pathlib import Path

import attrs
import numpy as np
import pytest
from click.testing import CliRunner
from commands import done, error
from PIL import Image
from small_runs import write_images

from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import build_registry
from fewshot.cli import commands
from fewshot.experiments.config import read_study

REGISTRY = build_registry()[0]


# ----------------------------------------------------------------------------------- list, show


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_in_the_plural_is_suggested_in_the_singular(kind: str):
    assert f"did you mean '{kind}'?" in error(2, "list", f"{kind}s")


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
        implied = result.stdout.partition("implies, where nothing else is said:")[2]
        assert tomllib.loads(implied) == dict(entry.component.implies)


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

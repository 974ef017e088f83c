"""What the documents say is so: links lead somewhere, commands and blocks of code run."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from commands import here
from PIL import Image

from docs.blocks import Block, blocks, commands
from fewshot import DataError, split_classes
from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import build_registry
from fewshot.cli import commands as group

ROOT = Path(__file__).parents[1]
GENERATED = {"commands", "components", "configuration", "hooks", "errors", "api", "laws"}
PAGES = [
    page
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "plugins/*/*.md", "examples/**/*.md")
    for page in sorted(ROOT.glob(pattern))
]
WRITTEN = [p for p in PAGES if not (p.parent.name == "reference" and p.stem in GENERATED)]

# Commands that other tests run as they stand, or that change the machine.
ELSEWHERE = ("python3 -m venv", "uv ", "pip ", "ruff ", "python -m pytest", "HYPOTHESIS_PROFILE",
             "python -m tests.faults")  # fmt: skip


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), target


# What that page names, test_broken_plugins.py installs.
@pytest.mark.parametrize("page", [p for p in WRITTEN if p.name != "broken-plugins.md"], ids=title)
def test_every_component_named_by_a_flag_exists(page: Path) -> None:
    registry, _ = build_registry()
    own = {"topk", "birds"}  # plugins that pages make
    if importlib.util.find_spec("fewshot_omniglot") is None:
        own |= {"omniglot", "omniglot-prototypical", "omniglot-best"}
    if importlib.util.find_spec("fewshot_benchmarks") is None:
        own |= {"cifar-fs-cosine", "mini-imagenet-resnet12"}
    if importlib.util.find_spec("fewshot_pretrained") is None:
        own |= {
            "asl-people", "clip-base-32", "efficientnet-lite0", "efficientnet-lite2",
            "mobilenet-v2", "onnx", "photos",
        }  # fmt: skip
    for kind, name in re.findall(r"--(\w+) ([a-z0-9-]+)\b", page.read_text(encoding="utf-8")):
        if kind in KINDS and name not in own:
            registry.get(kind, name)


# ----------------------------------------------------------------------- the blocks run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of fourteen photos each, as a user may have them."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for name in ("crow", "finch", "gull", "jay", "owl", "robin", "tern", "wren"):
        (folder / name).mkdir(parents=True)
        tint = rng.integers(0, 200, 3)
        for i in range(14):
            pixels = np.clip(rng.normal(tint, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A folder with photos and two finished runs."""
    place = tmp_path_factory.mktemp("workshop")
    shutil.copytree(photos, place / "photos")
    for seed in (0, 1):
        done = here(
            *("run", "--data", "photos", "--backbone", "conv4", "--seed", seed, "--steps", 4),
            *("--set", "backbone.width=8", "--set", "dataset.size=32", "--k-shot", "1,2,5"),
            *("--set", "training.validate_every=2", "--set", "evaluation.repeats=3"),
            *("--set", "evaluation.pairs=50"),
            cwd=place,
        )
        assert done.returncode == 0, done.stderr
    return place


def shell(line: str, place: Path) -> None:
    """One line as a user types it; the command itself in this process, where it stands alone."""
    words = shlex.split(line)
    if words[0] == "fewshot" and not set("|<>&;$") & set(line):
        done = here(*words[1:], cwd=place)
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-ec", line], cwd=place, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def parsed(line: str) -> None:
    """A `fewshot` line's words are options and arguments that exist; nothing is run."""
    words = shlex.split(line)
    if words[0].rpartition("/")[2] != "fewshot":
        return
    command, name = group, "fewshot"
    rest = words[1:]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, name, rest = command.commands[rest[0]], rest[0], rest[1:]
    command.make_context(name, rest, resilient_parsing=False)


def what_a_reader_has() -> dict[str, object]:
    """Images and labels, for blocks that go on from there."""
    rng = np.random.default_rng(0)
    images, cups, keys, more = (
        rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for n in (160, 3, 2, 4)
    )
    labels = np.repeat(np.arange(8), 20)
    return {"images": images, "labels": labels, "cups": cups, "keys": keys, "more": more}


def is_run(block: Block) -> bool:
    """Whether a block is run here: what it wants may be a plugin that is installed."""
    plugin = re.fullmatch(r"wants (fewshot-\w+)", block.untested)
    if plugin is not None:
        return importlib.util.find_spec(plugin[1].replace("-", "_")) is not None
    return not block.untested


def run_block(block: Block, place: Path, names: dict[str, object]) -> None:
    if block.file is not None:
        (place / block.file).parent.mkdir(parents=True, exist_ok=True)
        (place / block.file).write_text(block.code, encoding="utf-8")
    if block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "python":
        code = compile("\n" * block.line + block.code, block.page.name, "exec")
        if block.file is None and is_run(block):
            exec(code, names)
    elif block.language == "sh":
        for line in commands(block):
            if not is_run(block):
                parsed(line)
            elif not line.startswith(ELSEWHERE):
                shell(line, place)


# That page installs a plugin: test_first_plugin.py does what it says.
PAGES_WITH_CODE = [p for p in WRITTEN if any(blocks(p)) and p.name != "first-plugin.md"]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=title)
def test_every_block_of_the_page_runs_in_order(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    begins = page.parent.name == "tutorial" or page.name == "README.md"
    if begins:  # a reader who has nothing but photos
        shutil.copytree(request.getfixturevalue("photos"), place / "photos")
    else:
        shutil.copytree(request.getfixturevalue("workshop"), place)
    monkeypatch.chdir(place)
    names = what_a_reader_has()
    for block in blocks(page):
        try:
            run_block(block, place, names)
        except Exception as error:
            raise AssertionError(f"{title(page)}:{block.line}: {error}") from error


# --------------------------------------------------------------------- what must be there


def test_the_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs", "--check"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_data_set_of_the_how_to_is_found_where_it_would_be_fetched_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-to/dataset-plugin.md").read_text(), re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    (component,) = namespace["fewshot_datasets"]()
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="fewshot data fetch birds"):
        component.factory(component.options())
    names = ("crow", "finch", "jay", "owl", "robin", "wren")
    (tmp_path / "birds").mkdir()
    with zipfile.ZipFile(tmp_path / "birds" / "birds.zip", "w") as archive:
        for name in names:
            for nest in (1, 2):
                archive.writestr(f"{name}/{nest}_1.png", b"")  # not decoded here
    dataset = component.factory(component.options())
    assert dataset.classes == names
    assert split_classes(dataset).test == ("owl", "wren")
    assert len(set(dataset.groups)) == 12
    assert callable(component.fetch)


def test_the_readme_has_its_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(found) == 2
    assert "fewshot run --backbone simplecnn --metric euclidean" in found[0]
    assert found[1].endswith("-m pytest -n auto --dist worksteal")


def test_the_readme_lists_every_part_built_in() -> None:
    table = dict(
        re.findall(r"^\| (\w[\w ]*) \|(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    registry, _ = build_registry()
    for kind in KINDS:
        names = {n for n in registry.names(kind) if registry.get(kind, n).provider == "builtin"}
        listed = table["data set" if kind == "dataset" else kind].partition("|")[0]
        assert set(re.findall(r"`([\w-]+)`", listed)) == names, kind


def test_every_command_answers_to_help() -> None:
    for name in group.commands:
        assert CliRunner().invoke(group, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize("page", WRITTEN, ids=title)
def test_a_block_of_commands_says_that_it_is_one(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("", "sh", "python", "toml"), f"{title(page)}:{block.line}"
        if block.language == "":
            assert not re.search(r"^(\S*/)?(fewshot|python3?|pip) ", block.code, re.MULTILINE)


def test_a_block_that_is_only_parsed_still_names_real_options() -> None:
    parsed("fewshot run --metric cosine")
    with pytest.raises(Exception, match="metrik"):
        parsed("fewshot run --metrik cosine")

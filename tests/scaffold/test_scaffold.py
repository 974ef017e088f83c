"""`fewshot new-plugin`: what it writes installs, keeps every law, and runs at once."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_sites import distribution, fewshot, names, one_by_one, small_images

from fewshot.catalogue.kinds import KINDS
from fewshot.core.errors import ConfigError, OutputError
from fewshot.scaffold import plugin

SELECTED = "B,C4,D1,E,F,I,N,NPY,PT,PTH,RET,RUF,SIM,TRY,UP,W"
IGNORED = "D1,B008,RUF001,RUF002,RUF009"  # as for the project itself; and not all is documented


def python(*arguments: object, cwd: Path, site: Path | None = None) -> str:
    env = dict(os.environ) if site is None else {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin of every kind, `my-metric` and so on."""
    folder = tmp_path_factory.mktemp("made")
    for kind in plugin.KINDS:
        plugin.new_plugin(f"my-{kind}", kind, folder, {})
    return folder


@pytest.fixture(scope="module")
def site(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them installed: the metric by pip, the others as pip would, which takes less long."""
    place = tmp_path_factory.mktemp("site")
    python(
        *("-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"),
        *("--no-build-isolation", "--target", place, made / "fewshot-my-metric"),
        cwd=made,
    )
    for kind in set(plugin.KINDS) - {"metric"}:
        folder = made / f"fewshot-my-{kind}"
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        distribution(place, project["name"], project["entry-points"]["fewshot"])
        shutil.copytree(folder / "src", place, dirs_exist_ok=True)
    return place


def test_every_kind_that_is_code_has_a_template():
    assert set(plugin.KINDS) == set(KINDS) - {"preset", "study"}


def test_what_is_made_is_a_small_distribution_without_a_gap(made: Path):
    for kind in plugin.KINDS:
        folder = made / f"fewshot-my-{kind}"
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
        module, tests = f"src/fewshot_my_{kind}/__init__.py", f"tests/test_my_{kind}.py"
        assert files == ["README.md", "pyproject.toml", module, tests]
        assert (folder / "LICENSE").read_text().startswith("MIT License")
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert project["name"] == folder.name
        assert project["dependencies"] == ["fewshot>=0.1,<0.2"]
        for path in folder.rglob("*"):
            assert path.is_dir() or "PLUGIN_" not in path.read_text(encoding="utf-8"), path
    assert not list(made.glob(".*"))


def test_what_is_made_passes_the_linter_and_is_formatted(made: Path):
    for kind in plugin.KINDS:
        folder = made / f"fewshot-my-{kind}"
        rules = ("--select", SELECTED, "--ignore", IGNORED)
        python("-m", "ruff", "check", "--no-cache", "--isolated", *rules, ".", cwd=folder)
        python("-m", "ruff", "format", "--no-cache", "--isolated", "--check", ".", cwd=folder)


def test_the_tests_that_are_made_pass(made: Path, site: Path):
    shutil.copy(Path(__file__).parents[1] / "conftest.py", made)  # as quick as the project's own
    tests = [made / f"fewshot-my-{kind}" / "tests" for kind in plugin.KINDS]
    plain = ("-q", "-W", "error", "-p", "no:cacheprovider", "--confcutdir", made)
    out = python("-m", "pytest", *plain, *tests, cwd=made, site=site)
    assert f"{2 * len(tests)} passed" in out


def test_what_is_made_is_listed_at_once(site: Path):
    done = fewshot("list", site=site)
    assert (done.returncode, done.stderr) == (0, "")
    for kind in plugin.KINDS:
        assert f"my-{kind}" in names(done.stdout, kind)


def test_what_is_made_runs(site: Path):
    plain = small_images(site)
    of_pairs = set(plugin.KINDS) - {"sampler", "mixer"}
    pairs = [plugin.use(f"my-{kind}", kind) for kind in sorted(of_pairs)]
    episodes = [
        "--metric cosine",
        plugin.use("my-head", "head"),
        plugin.use("my-sampler", "sampler"),
    ]
    quick = plain[3:]
    commands = [
        ["run", *quick, *" ".join(pairs).split(), "--out", "pairs"],
        [*plain, "--backbone", "conv4", *" ".join(episodes).split(), "--out", "episodes"],
        [*plain, "--backbone", "conv4", *plugin.use("my-mixer", "mixer").split(), "--out", "mixed"],
    ]
    for done in one_by_one(commands, site):
        assert done.returncode == 0, done.stderr
    for run, kinds in (
        ("pairs", of_pairs),
        ("mixed", {"mixer"}),
        ("episodes", {"head", "sampler"}),
    ):
        config = (site / run / "config.toml").read_text()
        assert set(re.findall(r'"my-[a-z]+/(my-[a-z]+)"', config)) == {
            f"my-{kind}" for kind in kinds
        }


# ------------------------------------------------------------------------------ the command


def test_the_command_says_what_to_type_next(tmp_path: Path):
    done = fewshot("new-plugin", "snow", "--kind", "transform", site=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "fewshot-snow" / "src" / "fewshot_snow" / "__init__.py").is_file()
    first, second, third = re.findall("^  (.*)$", done.stdout, re.MULTILINE)
    assert first.endswith("pip install -e 'fewshot-snow[test]'")
    assert second.endswith("python -m pytest fewshot-snow")
    assert third.endswith("fewshot run --augment snow")
    for command in (first, second, third):  # this Python's own, whatever the shell finds
        program = shutil.which(command.split()[0], path=os.environ["PATH"])
        assert program is not None
        assert Path(program).parent == Path(sys.executable).parent


REFUSED = [
    ("euclidean", "metric", "'euclidean' is a metric already, builtin's"),
    ("simplecnn", "backbone", "'simplecnn' is a backbone already, asl's"),
    ("asl", "metric", "'asl' is a plugin already, fewshot-asl"),
    ("builtin", "metric", "'builtin' is what the built-ins are called"),
    ("none", "transform", "'none' is"),
    ("My Metric", "metric", "such as 'my-metric'"),
    ("fewshot-snow", "metric", "such as 'snow'"),
    ("2d", "metric", "such as 'd'"),
    ("snow_flake", "metric", "such as 'snow-flake'"),
    ("../x", "metric", "such as 'x'"),
    ("é", "metric", "must begin with a letter"),
]


def test_a_name_that_cannot_be_used_gets_a_reason(tmp_path: Path):
    asked = [["new-plugin", name, "--kind", kind] for name, kind, _ in REFUSED]
    for done, (_, _, reason) in zip(one_by_one(asked, tmp_path), REFUSED, strict=True):
        assert done.returncode == 2
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
        assert reason in done.stderr
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=12) | st.from_regex("[A-Z0-9 _./-]{1,12}", fullmatch=True))
def test_every_name_is_taken_or_met_with_one_that_is(name: str):
    try:
        plugin._check_name(name, {})
    except ConfigError as error:
        for guess in re.findall("such as '(.*)'", str(error)):
            plugin._check_name(guess, {})
    else:
        assert re.fullmatch("[a-z][a-z0-9-]*", name)


def test_nothing_is_written_over(tmp_path: Path):
    (tmp_path / "fewshot-snow").mkdir()
    (tmp_path / "fewshot-snow" / "mine.txt").write_text("mine")
    done = fewshot("new-plugin", "snow", site=tmp_path)
    assert done.returncode == 5
    assert "fewshot-snow exists: nothing was written" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["fewshot-snow", "mine.txt"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk is full at the third file."""
    write, written = Path.write_text, []

    def full(path: Path, *arguments: object, **options: object) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        plugin.new_plugin("snow", "metric", tmp_path, {})
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_kind_without_a_template_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'metric'"):
        plugin.new_plugin("snow", "metrik", tmp_path, {})
    assert list(tmp_path.iterdir()) == []

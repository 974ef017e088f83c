"""A broken plugin is told of in one line and stops nothing: a real distribution, fresh processes.

`broken_plugin/` is put on the path as an installed distribution looks to `importlib.metadata`:
its package beside a `.dist-info` folder.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

BROKEN = Path(__file__).parent / "broken_plugin"
PROJECT = tomllib.loads((BROKEN / "pyproject.toml").read_text())["project"]
ENTRY_POINTS = PROJECT["entry-points"]["fewshot"]
SOUND = {"clash", "good"}

# What each failure must say, so that its author knows what to mend.
REASONS = {
    "import-error": "No module named 'surely_not_installed'",
    "exits": "SystemExit: this plugin wants to leave",
    "misspelt": "fewshot_metrix",
    "wrong-type": "fewshot_metrics must return Components, not 'chebyshev'",
    "not-a-list": "Component",
    "forgetful": "hook",
    "raising": "RuntimeError: raised in the hook",
    "no-hooks": "hook",
    "half-way": "ValueError: raised half-way",
    "missing-module": "No module named 'fewshot_broken.not_there'",
}


def distribution(site: Path, name: str, points: dict[str, str], **modules: str) -> None:
    """An installed distribution, as `importlib.metadata` finds it, and its modules."""
    info = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[fewshot]\n{lines}")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


def fewshot(
    *arguments: str, site: Path, plugins: str | None = None, code: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`fewshot` (or other code) in a fresh process that finds the distributions in `site`."""
    unset = ("FEWSHOT_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), env.get("PYTHONPATH")]))
    if plugins is not None:
        env["FEWSHOT_PLUGINS"] = plugins
    command = ["-m", "fewshot"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        env=env, cwd=site, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(BROKEN / "src" / "fewshot_broken", place / "fewshot_broken")
    distribution(place, PROJECT["name"], ENTRY_POINTS)
    return place


@pytest.fixture(scope="module")
def listed(site: Path) -> subprocess.CompletedProcess[str]:
    return fewshot("list", site=site)


@pytest.fixture(scope="module")
def told(site: Path) -> subprocess.CompletedProcess[str]:
    return fewshot("plugins", "-v", site=site)


def names(output: str, kind: str) -> list[str]:
    """The names that `fewshot list` gives for a kind."""
    rows = [line.split() for line in output.splitlines()]
    return [row[1] for row in rows if len(row) > 2 and row[0] == kind]


def test_every_entry_is_sound_or_has_its_reason():
    assert set(ENTRY_POINTS) == SOUND | set(REASONS)


@pytest.mark.parametrize("name", sorted(REASONS))
def test_a_broken_plugin_is_one_line_on_stderr(name: str, listed):
    lines = [line for line in listed.stderr.splitlines() if f"plugin '{name}'" in line]
    assert len(lines) == 1
    assert "fewshot-broken" in lines[0]
    assert ENTRY_POINTS[name] in lines[0]
    assert "failed" in lines[0]
    assert REASONS[name] in lines[0]


def test_nothing_else_is_said_and_all_else_is_listed(listed):
    assert listed.returncode == 0
    assert len(listed.stderr.splitlines()) == len(REASONS)
    assert {"euclidean", "cosine", "minkowski"} <= set(names(listed.stdout, "metric"))
    assert "conv4" in names(listed.stdout, "backbone")
    assert "good-preset" in names(listed.stdout, "preset")


def test_a_plugin_that_fails_half_way_adds_nothing(listed):
    assert "half-way" not in listed.stdout
    for name in ("misspelt-metric", "lonely-metric", "forgotten-metric", "unmarked-metric"):
        assert name not in listed.stdout


def test_a_built_in_keeps_its_name_and_the_plugins_is_found_by_its_qualified_one(listed, site):
    metrics = names(listed.stdout, "metric")
    assert "euclidean" in metrics
    assert "clash/euclidean" in metrics
    shown = fewshot("show", "metric", "euclidean", site=site)
    assert "builtin" in shown.stdout
    shown = fewshot("show", "metric", "clash/euclidean", site=site)
    assert shown.returncode == 0
    assert "a cosine that says euclidean" in shown.stdout


def test_a_name_of_two_plugins_is_an_error_that_lists_both(listed, site):
    assert {"clash/shared-metric", "good/shared-metric"} <= set(names(listed.stdout, "metric"))
    assert "shared-metric" not in names(listed.stdout, "metric")
    asked = fewshot("show", "metric", "shared-metric", site=site)
    assert asked.returncode == 2
    error = asked.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert "clash/shared-metric" in error
    assert "good/shared-metric" in error


@pytest.mark.parametrize("flag", ["--help", "-h", "--version"])
def test_help_and_version_are_silent_and_load_no_plugin(flag: str, site: Path):
    code = (
        "import sys\nfrom fewshot.cli import main\n"
        "try:\n    main()\nfinally:\n    print('LOADED', *sorted(sys.modules))"
    )
    done = fewshot(flag, site=site, code=code)
    assert done.returncode == 0
    assert done.stderr == ""
    text, _, loaded = done.stdout.partition("LOADED")
    assert "fewshot" in text
    tops = {module.partition(".")[0] for module in loaded.split()}
    assert not tops & {"fewshot_broken", "fewshot_asl", "mlx", "numpy", "scipy", "matplotlib"}
    assert not tops & {"PIL", "pluggy"}
    assert "fewshot.cli" in loaded.split()  # the probe sees what is loaded


def test_each_commands_help_works_beside_broken_plugins(site: Path):
    for command in ("run", "eval", "compare", "list", "show", "plugins"):
        done = fewshot(command, "--help", site=site)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "Usage:" in done.stdout


def test_plugins_tells_what_became_of_each(told):
    assert told.returncode == 0
    for name in REASONS:
        assert re.search(rf"^ {name} +fewshot-broken .*failed: ", told.stdout, re.MULTILINE), name
    assert re.search(r"^ good +fewshot-broken .* 3 parts", told.stdout, re.MULTILINE)
    assert re.search(r"^ clash +fewshot-broken .* 2 parts", told.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(REASONS))
def test_plugins_v_shows_the_traceback(name: str, told):
    _, _, story = told.stdout.partition(f"\n{name}:\n")
    assert story.startswith("Traceback (most recent call last)")
    assert REASONS[name] in re.split(r"\n[a-z-]+:\n", story)[0]


def test_without_v_there_is_no_traceback(site: Path):
    done = fewshot("plugins", site=site)
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr


def test_without_plugins_there_is_a_word_on_the_bundle(site: Path):
    done = fewshot("plugins", site=site, plugins="")
    assert done.returncode == 0
    assert "no plugins" in done.stdout


def test_the_variable_restricts_what_is_loaded(site: Path):
    done = fewshot("list", site=site, plugins="good, raising")
    assert "minkowski" in names(done.stdout, "metric")
    assert "clash/euclidean" not in names(done.stdout, "metric")
    assert len(done.stderr.splitlines()) == 1
    assert "plugin 'raising'" in done.stderr
    # No second offer any more, so the bare name is unique.
    assert "shared-metric" in names(done.stdout, "metric")


def test_the_empty_variable_leaves_the_built_ins(site: Path):
    done = fewshot("list", site=site, plugins="")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {row[2] for row in rows if len(row) > 2 and row[0] != "kind"} == {"builtin"}


def test_strict_stops_at_a_broken_plugin(site: Path):
    done = fewshot("run", "--strict-plugins", site=site, plugins="good,half-way")
    assert done.returncode == 3
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: plugin 'half-way' from fewshot-broken")
    assert "raised half-way" in error
    assert "Traceback" not in done.stderr


def test_strict_lets_sound_plugins_pass(site: Path):
    done = fewshot(
        "run", "--strict-plugins", "--data", "nowhere", "--backbone", "conv4",
        "--metric", "minkowski", site=site, plugins="good,clash",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr  # past the plugins, stopped by the missing data


def test_an_unknown_component_says_which_plugins_failed(site: Path):
    done = fewshot("show", "metric", "chebyshev", site=site, plugins="good,wrong-type,misspelt")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: unknown metric 'chebyshev'")
    assert "failed to load" in error
    assert "wrong-type" in error
    assert "misspelt" in error


def test_a_run_without_the_bundle_says_what_to_install(site: Path):
    done = fewshot("run", site=site, plugins="")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: unknown dataset 'asl-synthetic'")
    assert "install" in error
    assert "fewshot-asl" in error
    assert not (site / "runs").exists()


SMALL = """
from fewshot import Component, cosine, hookimpl

@hookimpl
def fewshot_metrics():
    return [Component("{name}", lambda options: cosine())]
"""


def test_of_two_equal_entry_point_names_the_second_is_skipped_and_both_are_named(tmp_path: Path):
    for letter in "ba":  # not the order of their names
        distribution(
            tmp_path,
            f"fewshot-{letter}",
            {"same": f"module_{letter}"},
            **{f"module_{letter}": SMALL.format(name=f"of-{letter}")},
        )
    done = fewshot("list", site=tmp_path)
    assert done.returncode == 0
    assert "of-a" in names(done.stdout, "metric")
    assert "of-b" not in names(done.stdout, "metric")
    assert len(done.stderr.splitlines()) == 1
    assert "fewshot-a (module_a)" in done.stderr
    assert "fewshot-b (module_b)" in done.stderr


def test_no_plugin_passes_for_the_built_ins(tmp_path: Path):
    distribution(tmp_path, "fewshot-x", {"builtin": "mx"}, mx=SMALL.format(name="chebyshev"))
    distribution(tmp_path, "fewshot-y", {"other": "my"}, my=SMALL.format(name="chebyshev"))
    done = fewshot("show", "metric", "chebyshev", site=tmp_path, plugins="builtin,other")
    # Either the impostor was refused, or the bare name is ambiguous: never the built-in's right.
    assert "(builtin " not in done.stdout


def test_an_error_that_cannot_even_be_printed_stops_no_other(tmp_path: Path):
    distribution(
        tmp_path,
        "fewshot-x",
        {"mute": "mute", "sound": "sound"},
        mute="class Mute(Exception):\n    def __str__(self):\n        raise ValueError\n\n"
        "raise Mute",
        sound=SMALL.format(name="sound-metric"),
    )
    done = fewshot("list", site=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]
    assert "sound-metric" in names(done.stdout, "metric")
    assert "plugin 'mute'" in done.stderr

"""Every broken plugin of the collection does what docs/explanation/broken-plugins.md says it does.

The page is the specification: its rows are the cases, its last column is what must be said. The
plugins are modules of one real distribution, `broken_plugin/`, all of them installed at once.
"""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from plugin_sites import distribution, fewshot, names, one_by_one, small_images

HERE = Path(__file__).parents[1]
PROJECT = tomllib.loads((HERE / "broken_plugin" / "pyproject.toml").read_text())["project"]
ENTRY_POINTS = PROJECT["entry-points"]["fewshot"]
PACKAGE = HERE / "broken_plugin" / "src" / "fewshot_broken"
PAGE = (HERE.parent / "docs" / "explanation" / "broken-plugins.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table; an empty one has what stands above it."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    found: list[list[str]] = []
    for line in re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]:
        cells = [cell.strip().strip("`") for cell in line.split("|")]
        found.append([cell or found[-1][i] for i, cell in enumerate(cells)])
    return found


SKIPPED = {name: said for name, _, said in rows("Skipped while loading")}
UNFIT = {asked: (name, said) for name, _, asked, said in rows("Loaded, but not fit for use")}
KEPT = {name for name, *_ in rows("Loaded, and kept from harm")}
ENDS = {name: said for name, _, said in rows("Not contained")}
# What replaces a built-in for good does so for the next command of one process: none is like that.
UNPATCHED = ",".join(name for name in ENTRY_POINTS if name not in {*ENDS, "patches"})
OTHERS = {"good", "builtin", "fewshot-damaged"}  # of distributions made below


def says(text: str, line: str) -> bool:
    """Whether the line has the text in it, "…" standing for anything."""
    return re.search(".*".join(re.escape(part) for part in text.split("…")), line) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, place / PACKAGE.name)
    points = {name: value for name, value in ENTRY_POINTS.items() if name not in ENDS}
    distribution(place, PROJECT["name"], points)
    distribution(place, "fewshot-copy", {"good": "fewshot_broken.good"})
    distribution(place, "fewshot-impostor", {"builtin": "fewshot_broken.good"})
    distribution(place, "fewshot-damaged", {}).write_bytes(b"[fewshot]\nRen\xe9 = fewshot_broken\n")
    return place


@pytest.fixture(scope="module")
def listed(site: Path):
    return fewshot("list", site=site)


@pytest.fixture(scope="module")
def used(site: Path):
    """What came of using each part that is not fit for use."""
    quick = [*small_images(site), "--backbone", "conv4"]
    commands = {}
    for asked in UNFIT:
        plain = quick[:1] + quick[3:] if "--dataset" in asked else quick
        commands[asked] = [*plain, *asked.split(), "--out", asked.replace("/", "-")]
    return dict(zip(UNFIT, one_by_one(list(commands.values()), site, UNPATCHED), strict=True))


# ------------------------------------------------------------------------------- the page


def test_the_page_has_every_plugin_and_what_its_module_says_of_itself():
    described = {
        (name, what)
        for heading in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
        for name, what, *_ in rows(heading)
    }
    assert {name for name, _ in described} == {*ENTRY_POINTS} | OTHERS
    for name, value in ENTRY_POINTS.items():
        module = PACKAGE / f"{value.rpartition('.')[2]}.py"
        if name != "good" and module.exists():
            text = re.match('"""(.*?)"""', module.read_text(encoding="latin-1"), re.DOTALL)
            assert text is not None
            assert (name, " ".join(text[1].split())) in described


def test_there_are_at_least_25_cases():
    assert len(SKIPPED) + len(UNFIT) + len(KEPT) + len(ENDS) >= 25


# --------------------------------------------------------------------------- while loading


@pytest.mark.parametrize("name", SKIPPED)
def test_a_plugin_that_fails_to_load_is_one_line_on_stderr(name: str, listed):
    lines = [line for line in listed.stderr.splitlines() if line.startswith(f"plugin '{name}'")]
    assert len(lines) == 1
    assert "failed to load: " in lines[0]
    assert says(SKIPPED[name], lines[0]), lines[0]
    assert len(lines[0]) < 500
    assert lines[0].isprintable()


def test_nothing_else_is_said_and_all_else_is_listed(listed):
    assert listed.returncode == 0
    lines = [line for line in listed.stderr.splitlines() if not line.startswith("plugin '")]
    assert lines[0] == "hello from a plugin"  # of `prints`
    assert all("this plugin is old" in line for line in lines[1:])  # of `warns`
    assert {"euclidean", "cosine", "minkowski"} <= set(names(listed.stdout, "metric"))
    assert {f"{name}-metric" for name in KEPT - {"clash"}} <= set(names(listed.stdout, "metric"))
    assert "conv4" in names(listed.stdout, "backbone")
    assert "simplecnn" in names(listed.stdout, "backbone")
    assert "good-preset" in names(listed.stdout, "preset")


def test_a_plugin_that_fails_adds_nothing(listed):
    providers = {line.split()[2] for line in listed.stdout.splitlines() if len(line.split()) > 2}
    assert not providers & (set(SKIPPED) - {"builtin", "good"})
    assert "half-way" not in listed.stdout


def test_plugins_tells_what_became_of_each_and_the_traceback_when_asked(site: Path):
    plain, verbose = fewshot("plugins", site=site), fewshot("plugins", "-v", site=site)
    assert plain.returncode == verbose.returncode == 0
    assert "Traceback" not in plain.stdout + plain.stderr
    stories = dict(
        re.findall(r"^([\w-]+):\n(Traceback .*?)(?=^[\w-]+:$|\Z)", verbose.stdout, re.M | re.S)
    )
    for name, said in SKIPPED.items():
        assert re.search(rf"^ {name} .*failed: ", plain.stdout, re.MULTILINE), name
        assert name in stories
        assert says(said.split(":")[0], stories[name]), name
    for name in {asked for asked, _ in UNFIT.values()} | KEPT:
        assert re.search(rf"^ {name} .* \d parts?", plain.stdout, re.MULTILINE), name


@pytest.mark.parametrize("flag", ["--help", "-h", "--version"])
def test_help_and_version_are_silent_and_load_no_plugin(flag: str, site: Path):
    code = (
        "import sys\nfrom fewshot.cli import main\n"
        "try:\n    main()\nfinally:\n    print('LOADED', *sorted(sys.modules))"
    )
    done = fewshot(flag, site=site, code=code)
    assert (done.returncode, done.stderr) == (0, "")
    text, _, loaded = done.stdout.partition("LOADED")
    assert "fewshot" in text
    tops = {module.partition(".")[0] for module in loaded.split()}
    assert not tops & {"fewshot_broken", "fewshot_asl", "mlx", "numpy", "scipy", "matplotlib"}
    assert not tops & {"PIL", "pluggy"}
    assert "fewshot.cli" in loaded.split()  # the probe sees what is loaded


def test_each_commands_help_works_beside_broken_plugins(site: Path):
    from fewshot.cli import commands

    for done in one_by_one([[name, "--help"] for name in commands.commands], site, UNPATCHED):
        assert (done.returncode, done.stderr) == (0, ""), done.args
        assert "Usage:" in done.stdout


# --------------------------------------------------------------------------------- in use


@pytest.mark.parametrize("asked", UNFIT)
def test_a_part_that_is_not_fit_for_use_ends_its_command_in_one_line(asked: str, used):
    name, said = UNFIT[asked]
    done = used[asked]
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert says(said, error), error
    assert name in error
    assert "Traceback" not in done.stderr
    assert done.returncode in (2, 3)


def test_a_run_that_had_begun_says_why_it_ended(used, site: Path):
    manifest = json.loads((site / "--metric fails-late" / "manifest.json").read_text())
    assert manifest["status"].startswith("ended early: AttributeError")


def test_a_run_with_other_parts_goes_on_beside_all_of_them(site: Path):
    where = site / "elsewhere"
    where.mkdir()
    command = [*small_images(site), "--backbone", "conv4", "--metric", "minkowski", "--out"]
    done = fewshot(*command, str(where / "run"), site=site)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    manifest = json.loads((where / "run" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    # A plugin that imports MLX itself, and one that leaves the folder, have changed nothing.
    alone = fewshot(*command, "alone", site=site, plugins="good")
    assert alone.returncode == 0, alone.stderr
    assert (
        json.loads((site / "alone" / "manifest.json").read_text())["runtime"] == manifest["runtime"]
    )
    figures = [
        json.loads((folder / "results.json").read_text())["k_shot"]
        for folder in (where / "run", site / "alone")
    ]
    assert figures[0] == figures[1]


def test_a_built_in_keeps_its_name_and_the_plugins_is_found_by_its_qualified_one(listed, site):
    metrics = names(listed.stdout, "metric")
    assert {"euclidean", "clash/euclidean", "clash/shared-metric", "good/shared-metric"} <= {
        *metrics
    }
    assert "shared-metric" not in metrics
    own, others = one_by_one(
        [["show", "metric", "euclidean"], ["show", "metric", "clash/euclidean"]], site, UNPATCHED
    )
    assert own.returncode == others.returncode == 0
    assert "(builtin " in own.stdout
    assert "a cosine that says euclidean" in others.stdout


def test_what_interrupts_is_named_and_can_be_left_out(tmp_path: Path):
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name)
    points = {name: ENTRY_POINTS[name] for name in ("interrupts", "good")}
    distribution(tmp_path, PROJECT["name"], points)
    for name, said in ENDS.items():
        done = fewshot("list", site=tmp_path)
        assert done.returncode == 130
        assert [line for line in done.stderr.splitlines() if line] == [said]
        assert name in said
    assert fewshot("--help", site=tmp_path).returncode == 0
    assert fewshot("list", site=tmp_path, plugins="good").returncode == 0

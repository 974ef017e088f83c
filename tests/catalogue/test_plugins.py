"""Which plugins are loaded, what each hook brings, and what is said where something is missing."""

import ast
import inspect
import re
import shutil
from pathlib import Path

import pytest
from plugin_sites import distribution, fewshot, names

from fewshot.catalogue import hooks
from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import collect
from fewshot.core import interfaces
from fewshot.core.components import Component, Preset, Study
from fewshot.core.errors import PluginError

BROKEN = Path(__file__).parents[1] / "broken_plugin" / "src" / "fewshot_broken"
HOOKS = sorted(name for name in vars(hooks) if name.startswith("fewshot_"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound plugins and three broken ones; `test_broken_plugins.py` has them all."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(BROKEN, place / BROKEN.name)
    chosen = ("good", "clash", "half_way", "misspelt", "raising")
    points = {name.replace("_", "-"): f"fewshot_broken.{name}" for name in chosen}
    distribution(place, "fewshot-broken", points)
    return place


# -------------------------------------------------------------------------------- hooks


def plugin_of(hook: str, parts: list[Component] | list[Preset]) -> object:
    """An object that implements one hook."""

    def implementation() -> list[Component] | list[Preset]:
        return parts

    return type("Plugin", (), {hook: staticmethod(hooks.hookimpl(implementation))})()


def kind_of(hook: str) -> str:
    return {"losses": "loss", "studies": "study"}.get(
        hook.removeprefix("fewshot_"), hook[len("fewshot_") : -1]
    )


def test_there_is_one_hook_for_each_kind():
    assert sorted(kind_of(hook) for hook in HOOKS) == sorted(KINDS)


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_returns_is_found_under_its_kind(hook: str):
    kind = kind_of(hook)
    takes = ", ".join(KINDS[kind].takes)
    if kind in ("preset", "study"):
        part = Preset("x", {}) if kind == "preset" else Study("x", {"row": {}})
    else:
        part = Component("x", eval(f"lambda {takes}: None"))
    (entry,) = collect(plugin_of(hook, [part]), "mine", "1.0")
    assert (entry.kind, entry.qualified, entry.part) == (kind, "mine/x", part)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_refuses_another_kind_of_record(hook: str):
    wrong = Component("x", lambda _: None) if kind_of(hook) == "preset" else Preset("x", {})
    with pytest.raises(PluginError, match=hook):
        collect(plugin_of(hook, [wrong]), "mine", "1.0")


@pytest.mark.parametrize("hook", sorted(set(HOOKS) - {"fewshot_presets", "fewshot_studies"}))
def test_a_hook_documents_its_factory_and_refuses_one_that_takes_other_arguments(hook: str):
    text = inspect.getdoc(getattr(hooks, hook)) or ""
    takes = KINDS[kind_of(hook)].takes
    documented = re.search(r"`factory\((.*?)\)` -> `(\w+)`", text)
    assert documented is not None
    assert documented[1].split(", ") == list(takes)
    assert hasattr(interfaces, documented[2])
    wrong = Component("x", lambda: None)
    with pytest.raises(PluginError, match=re.escape(f"must take ({', '.join(takes)})")):
        collect(plugin_of(hook, [wrong]), "mine", "1.0")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_has_a_signature_without_arguments_and_an_example_that_is_python(hook: str):
    function = getattr(hooks, hook)
    assert not inspect.signature(function).parameters
    record = {"preset": "Preset", "study": "Study"}.get(kind_of(hook), "Component")
    assert record in str(inspect.signature(function).return_annotation)
    (example,) = re.findall(r"^return .*$", inspect.getdoc(function) or "", re.MULTILINE)
    (call,) = ast.parse(f"def hook():\n    {example}").body[0].body[0].value.elts
    assert call.func.id == record


# --------------------------------------------------------------------- which are loaded


def test_without_plugins_it_says_so(site: Path):
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


def test_the_variable_names_only_what_is_installed(site: Path):
    done = fewshot("list", site=site, plugins="good,absent")
    assert done.returncode == 0
    assert done.stderr.startswith("plugin 'absent' from FEWSHOT_PLUGINS failed to load: no plugin")


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
    done = fewshot("show", "metric", "chebishov", site=site, plugins="good,half-way,misspelt")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: unknown metric 'chebishov'")
    assert "failed to load: half-way, misspelt" in error


def test_a_run_without_the_bundle_says_what_to_install(site: Path):
    done = fewshot("run", site=site, plugins="")
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: no dataset named, and no plugin offers one to start with")
    assert "--dataset NAME; valid: arrays, image-folder" in error
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


def test_an_older_distribution_further_down_the_path_is_hidden(tmp_path: Path):
    near, far = tmp_path / "near", tmp_path / "far"
    distribution(near, "fewshot-x", {"new": "of_near"}, of_near=SMALL.format(name="of-near"))
    distribution(far, "fewshot-x", {"old": "of_far"}, of_far=SMALL.format(name="of-far"))
    code = f"import sys; sys.path.append({str(far)!r}); from fewshot.cli import main; main()"
    done = fewshot("list", site=near, code=code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "of-near" in names(done.stdout, "metric")
    assert "of-far" not in names(done.stdout, "metric")

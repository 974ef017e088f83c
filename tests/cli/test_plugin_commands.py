"""Subcommands that installed distributions add."""

from pathlib import Path

import pytest
from plugin_sites import distribution, fewshot, one_by_one

GREET = """
import click, sys
print("imported")
@click.command()
@click.argument("name")
def greet(name):
    "Say hello."
    click.echo(f"hello {name}")
    if name == "nobody":
        raise RuntimeError("there is nobody")
    if name == "missing":
        from fewshot import DataError
        raise DataError("nobody is missing")
"""
BROKEN = {
    "absent": ("fewshot_absent:command", "ModuleNotFoundError"),
    "nameless": ("greeting:no_such", "AttributeError"),
    "leaves": ("leaving:command", "SystemExit"),
    "number": ("numbers_only:NUMBER", "is no click command: 3"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    points = {"greet": "greeting:greet", "run": "greeting:greet"}
    points |= {name: point for name, (point, _) in BROKEN.items()}
    modules = {"greeting": GREET, "leaving": "raise SystemExit('gone')", "numbers_only": "NUMBER=3"}
    distribution(place, "fewshot-greeting", points, "fewshot.commands", **modules)
    distribution(place, "fewshot-late", {"greet": "late:greet"}, "fewshot.commands")
    return place


def test_a_command_is_listed_with_its_help_and_loaded_when_called(site: Path):
    listed = fewshot("--help", site=site)
    assert listed.returncode == 0
    assert "imported" not in listed.stdout
    lines = [" ".join(line.split()) for line in listed.stdout.splitlines()]
    assert "greet Say hello. (from fewshot-greeting)" in lines
    for name in BROKEN:
        assert f"{name} It fails to load. (from fewshot-greeting)" in lines
    done = fewshot("greet", "you", site=site)
    assert (done.returncode, done.stdout) == (0, "hello you\n")
    assert done.stderr == "imported\n"  # what it prints on import does not reach standard output


def test_nothing_else_imports_a_command(site: Path):
    for done in one_by_one([["list"], ["plugins"], ["show", "metric", "cosine"]], site):
        assert done.returncode == 0
        assert "imported" not in done.stderr


def test_a_built_in_name_wins_and_plugins_tells(site: Path):
    helped, told = one_by_one([["run", "--help"], ["plugins"]], site)
    assert "Train and evaluate" in helped.stdout
    rows = [line for line in told.stdout.splitlines() if "(greeting:greet)" in line]
    assert any(line.split()[0] == "greet" and "a command" in line for line in rows)
    assert any(line.split()[0] == "run" and "is fewshot's already" in line for line in rows)
    (late,) = [line for line in told.stdout.splitlines() if "late:greet" in line]
    assert "'greet' is fewshot-greeting's already" in late


@pytest.mark.parametrize("name", BROKEN)
def test_a_command_that_cannot_be_loaded_is_one_line(site: Path, name: str):
    done = fewshot(name, site=site)
    assert done.returncode == 3
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"Error: command '{name}' from fewshot-greeting ({BROKEN[name][0]})")
    assert BROKEN[name][1] in line
    assert "Traceback" not in done.stderr


def test_errors_of_a_command_are_one_line_with_their_exit_code(site: Path):
    raised, refused, unknown = one_by_one(
        [["greet", "nobody"], ["greet", "missing"], ["gret"]], site
    )
    assert raised.returncode == 3
    assert "Error: plugin 'greet' failed: RuntimeError: there is nobody" in raised.stderr
    assert refused.returncode == 4
    assert refused.stderr.endswith("Error: nobody is missing\n")
    assert unknown.returncode == 2
    assert "gret" in unknown.stderr


def test_the_variable_names_commands_too(site: Path):
    for chosen, present in (("greet", True), ("asl", False), ("", False)):
        done = fewshot("greet", "you", site=site, plugins=chosen)
        assert (done.returncode == 0) is present
        assert (
            "(from fewshot-greeting)" in fewshot("--help", site=site, plugins=chosen).stdout
        ) is (present)
    assert fewshot("list", site=site, plugins="greet").stderr == ""  # a name that is installed

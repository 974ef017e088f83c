"""Commands for those who write plugins."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from ..scaffold import KINDS, new_plugin, use
from .terminal import load_registry


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default="metric", show_default=True)
def new(name: str, kind: str) -> None:
    """Start a plugin: the folder fewshot-NAME with a component that works, and its tests."""
    registry, statuses = load_registry(strict=False)
    taken = {"builtin": "what the built-ins are called", "none": "no component's name"}
    taken |= {status.name: f"a plugin already, {status.origin}" for status in statuses}
    for entry in registry.all(kind):
        taken[entry.name] = f"a {kind} already, {entry.provider}'s"
    folder = new_plugin(name, kind, Path(), taken)
    bin = _installed_in()
    click.echo(f"{folder}: a {kind}, its tests, README.md and LICENSE. Next:\n")
    click.echo(f"  {bin}pip install -e '{folder}[test]'")
    click.echo(f"  {bin}python -m pytest {folder}")
    click.echo(f"  {bin}fewshot run {use(name, kind)}")


def _installed_in() -> str:
    """What to write before a command for this Python's own: nothing where the shell finds it."""
    own = Path(sys.executable).parent
    found = shutil.which("fewshot")
    if found and Path(found).parent == own:
        return ""
    return f"{own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own}/"


COMMANDS = (new,)

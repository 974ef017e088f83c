"""Commands for those who write plugins."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..scaffold.plugin import KINDS, first_run, new_plugin
from .options import OneOf, own_options
from .terminal import echo, fast_mlx, load_registry, print_table, showing_progress

if TYPE_CHECKING:
    from ..catalogue.registry import Registered, Registry
    from ..testing import Outcome


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=OneOf(KINDS), default="metric", show_default=True)
def new(name: str, kind: str) -> None:
    """Start a plugin: the folder fewshot-NAME with a component that works, and its tests."""
    registry, statuses = load_registry(strict=False)
    taken = {"builtin": "what the built-ins are called", "none": "no component's name"}
    taken |= {status.name: f"a plugin already, {status.origin}" for status in statuses}
    for entry in registry.all(kind):
        taken[entry.name] = f"a {kind} already, {entry.provider}'s"
    folder = new_plugin(name, kind, Path(), taken)
    bin = _installed_in()
    echo(f"{folder}: a {kind}, its tests, README.md and LICENSE. Next:", "")
    echo(f"  {bin}pip install -e '{folder}[test]'")
    echo(f"  {bin}python -m pytest {folder}")
    echo(f"  {bin}fewshot run {first_run(name, kind)}")


def _installed_in() -> str:
    """What to write before a command for this Python's own: nothing where the shell finds it."""
    own = Path(sys.executable).parent
    found = shutil.which("fewshot")
    if found and Path(found).parent == own:
        return ""
    return f"{own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own}/"


@click.command()
@click.argument("names", metavar="NAME|PLUGIN|KIND/NAME...", nargs=-1, required=True)
@own_options
def check(names: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Try the laws of its kind on a component, or on everything that a plugin offers.

    `builtin` is the plugin of the built-ins. Options are the default ones, or those of --set.
    """
    fast_mlx()
    registry, _ = load_registry(strict=False)
    from ..core.errors import FewshotError, LawError
    from ..experiments.config import settings_layer
    from ..experiments.schema import options
    from ..testing import STEADY, leaving_no_files, try_part

    asked = [entry for name in names for entry in _named(registry, name)]
    entries = [*{(e.kind, e.qualified): e for e in asked}.values()]  # each once
    chosen: Any = None
    if settings:
        if len(entries) != 1 or entries[0].kind in ("preset", "study"):
            raise click.UsageError("--set wants one component: KIND/NAME")
        values = settings_layer(settings)
        if isinstance(values.get(entries[0].kind), dict):  # metric.floor=2, as `run` wants it
            values |= values.pop(entries[0].kind)
        chosen = options(entries[0].component.options, values, entries[0].name, registry)
    rows, stories, broken = [], [], 0
    with leaving_no_files(), showing_progress() as progress:
        for done, entry in enumerate(entries):
            name = f"{entry.kind}/{entry.qualified}"
            progress("laws", done, len(entries), name, "")
            outcomes: list[Outcome] = []
            result = "good"
            try:
                for outcome in try_part(entry, registry, chosen, STEADY):
                    outcomes.append(outcome)
            except FewshotError as error:
                if settings:
                    raise  # the options are the user's
                result = f"not checked: {error}"
            found = [outcome for outcome in outcomes if outcome.example is not None]
            broken += len(found)
            if found:
                result = f"breaks {', '.join(outcome.law.name for outcome in found)}"
            rows.append([name, str(len(outcomes)), result])
            stories += [
                f"{name} breaks '{o.law.name}': {o.law.says}\n    {o.example}\n\n" for o in found
            ]
        progress("laws", len(entries), len(entries), "", "")
    print_table(["component", "laws", "result"], rows)
    for story in stories:
        echo(*story.splitlines())
    if broken:
        laws = "a law is" if broken == 1 else f"{broken} laws are"
        raise LawError(f"{laws} broken; the page 'Laws' of the reference has them all")


def _named(registry: Registry, name: str) -> Sequence[Registered]:
    """Everything of a plugin, else every component of a bare or qualified name.

    Raises UnknownComponentError with the nearest name, PluginError for a plugin that did not load.
    """
    from ..catalogue.kinds import KINDS
    from ..core.errors import PluginError, UnknownComponentError, choose_from

    everything = [entry for kind in KINDS for entry in registry.all(kind)]
    kind, _, rest = name.partition("/")
    if kind in KINDS and rest:
        return [registry.get(kind, rest)]
    found = [entry for entry in everything if entry.provider == name]
    found = found or [entry for entry in everything if name in (entry.name, entry.qualified)]
    if not found and name in registry.failed:
        raise PluginError(f"plugin '{name}' failed to load: {registry.failed[name]}")
    if not found:
        valid = {entry.provider for entry in everything} | {entry.name for entry in everything}
        raise UnknownComponentError(
            f"no plugin or component is called '{name}': {choose_from(name, valid)}"
        )
    return found


COMMANDS = (new, check)

"""Commands that show what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue.kinds import KINDS
from ..core.wording import counted
from .options import OneOf, own_options
from .terminal import echo, fast_mlx, load_registry, print_table

if TYPE_CHECKING:
    from ..catalogue.loading import PluginStatus
    from ..catalogue.registry import Registered


@click.command("list")
@click.argument("kind", required=False, type=OneOf(list(KINDS)))
def list_components(kind: str | None) -> None:
    """What there is to choose from."""
    registry, _ = load_registry(strict=False)
    rows = [
        [entry.kind, name, entry.provider, entry.part.summary]
        for each in ([kind] if kind else KINDS)
        for name in registry.names(each)
        for entry in [registry.get(each, name)]
    ]
    print_table(["kind", "name", "from", "what"], rows)


@click.command()
@click.argument("kind", type=OneOf(list(KINDS)))
@click.argument("name")
@own_options
@click.option(
    "--save", type=click.Path(path_type=Path), help="PNG: a backbone's layers, a data set's images."
)
@click.option("--size", default=64, show_default=True, help="Image size for a backbone's layers.")
def show(kind: str, name: str, settings: tuple[str, ...], save: Path | None, size: int) -> None:
    """A component's options; --save draws a backbone's layers or a data set's examples."""
    import tomli_w

    from ..core.components import Component
    from ..experiments.config import partial_to_toml, settings_layer
    from ..experiments.schema import options, show_options

    if save is not None:
        fast_mlx()
    registry, _ = load_registry(strict=False)
    entry = registry.get(kind, name)
    echo(f"{entry.kind} {entry.qualified} ({entry.provider} {entry.version})")
    echo(*entry.part.summary.splitlines())
    if not isinstance(entry.part, Component):
        if settings or save is not None:
            raise click.UsageError(f"a {kind} has no options to set and no picture")
        echo("", *partial_to_toml(entry.part).splitlines(), "")
        return
    header, rows = show_options(entry.component.options)
    print_table(header, rows) if rows else echo("no options")
    if entry.component.implies:
        lines = tomli_w.dumps(dict(entry.component.implies)).splitlines()
        echo("implies, where nothing else is said:", "", *lines, "")
    chosen: Any = options(entry.component.options, settings_layer(settings), name, registry)
    if save is not None:
        _draw(entry, chosen, save, size)
        echo(f"saved {save}")


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="The whole traceback of a plugin that failed.")
def plugins(verbose: bool) -> None:
    """Which plugins are loaded, from where, and what failed and why; which commands they add."""
    from ..catalogue.loading import build_registry

    _, statuses = build_registry()
    rows = [[s.name, s.origin, s.version, _status(s)] for s in statuses] + _commands()
    if not rows:
        echo("no plugins")
        return
    print_table(["plugin", "from", "version", "status"], rows)
    for status in statuses:
        if verbose and status.details:
            echo(f"{status.name}:", *status.details.splitlines(), "")


def _status(of: PluginStatus) -> str:
    return f"failed: {of.error}" if of.error else counted(of.components, "part")


def _commands() -> list[list[str]]:
    """Rows of the commands that plugins add, which are loaded only when called."""
    from ..catalogue.installed import commands, name_of

    root = click.get_current_context().find_root().command
    built_in = root.commands if isinstance(root, click.Group) else {}
    mine, taken = commands(built_in)
    points = [(point, "a command") for point in mine.values()]
    for point in taken:
        owner = "fewshot" if point.name in built_in else name_of(mine[point.name].dist)
        points.append((point, f"failed: the command '{point.name}' is {owner}'s already"))
    return [
        [p.name, f"{name_of(p.dist)} ({p.value})", p.dist.version if p.dist else "?", status]
        for p, status in points
    ]


def _draw(entry: Registered, options: Any, path: Path, size: int) -> None:
    """Save a picture of a backbone (for size x size RGB images) or a data set.

    Raises ConfigError for another kind, OutputError where the file cannot be written.
    """
    from ..catalogue.registry import make
    from ..compute.modules import layer_table
    from ..core.errors import ConfigError
    from ..reports import pictures

    if entry.kind == "backbone":
        shape = (size, size, 3)
        pictures.layers(entry.name, layer_table(make(entry, options, shape), shape), path)
    elif entry.kind == "dataset":
        pictures.examples(make(entry, options), path)
    else:
        raise ConfigError(f"--save draws a backbone or a dataset, not a {entry.kind}")


COMMANDS = (list_components, show, plugins)

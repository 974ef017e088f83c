"""The entry points of installed distributions, known by name: nothing here imports a plugin."""

import contextlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions

PLUGINS = "fewshot"
COMMANDS = "fewshot.commands"


def commands(built_in: Collection[str]) -> tuple[dict[str, EntryPoint], list[EntryPoint]]:
    """The subcommands that plugins offer by name, and those whose name is taken already.

    A name of `built_in` is the built-in's, else the first distribution's by name.
    """
    mine: dict[str, EntryPoint] = {}
    taken: list[EntryPoint] = []
    for point in wanted(installed(COMMANDS)[0]):
        if point.name in built_in or point.name in mine:
            taken.append(point)
        else:
            mine[point.name] = point
    return mine, taken


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Keep a plugin's import from standard output, the working directory and others' imports.

    What it appends to `sys.path` stays, behind what was there.
    """
    before = list(sys.path)
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."):
            yield
    finally:
        sys.path[:] = before + [path for path in sys.path if path not in before]


def installed(group: str) -> tuple[list[EntryPoint], dict[str, Exception]]:
    """The group's entry points, and the distributions whose entry points cannot be read.

    `importlib.metadata.entry_points` itself stops at the first of those.
    """
    points: dict[str, Iterable[EntryPoint]] = {}
    unreadable: dict[str, Exception] = {}
    for dist in distributions():
        try:
            found = dist.entry_points.select(group=group)
            if found:
                points.setdefault(dist.name, found)  # the first on the path hides others
        except Exception as error:
            unreadable[name_of(dist)] = error
    return [point for found in points.values() for point in found], unreadable


def name_of(dist: Distribution | None) -> str:
    """A distribution's name; one without readable metadata has none."""
    with contextlib.suppress(Exception):
        return str(dist.name) if dist else "?"
    return "?"


def wanted(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """The entry points that FEWSHOT_PLUGINS leaves, in the same order everywhere."""
    asked = _asked()
    ordered = sorted(points, key=lambda p: (p.name, name_of(p.dist), p.value))
    return [point for point in ordered if asked is None or point.name in asked]


def not_installed() -> list[str]:
    """The names in FEWSHOT_PLUGINS that no plugin and no command bears."""
    asked = _asked()
    if not asked:
        return []
    names = {point.name for group in (PLUGINS, COMMANDS) for point in installed(group)[0]}
    return sorted(asked - names)


def _asked() -> set[str] | None:
    """The names in FEWSHOT_PLUGINS; None where it is not set, which leaves every name."""
    text = os.environ.get("FEWSHOT_PLUGINS")
    return None if text is None else {name.strip() for name in text.split(",")} - {""}

"""Finding and loading plugins, each under its own guard."""

import os
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import pluggy
from attrs import frozen

from . import builtin, hookspecs
from .errors import PluginError
from .records import Component, Preset
from .registry import BUILTIN, KINDS, Registered, Registry

GROUP = "fewshot"

_HOOKS = {f"fewshot_{'losse' if kind == 'loss' else kind}s": kind for kind in KINDS}


@frozen
class PluginStatus:
    """What became of one plugin. `error` is one line, `details` its traceback; None if well."""

    name: str
    origin: str
    version: str
    components: int
    error: str | None = None
    details: str | None = None


def build_registry(strict: bool = False) -> tuple[Registry, list[PluginStatus]]:
    """Built-ins and every installed plugin, and what became of each.

    A plugin that fails in any way adds nothing and stops no other; with `strict` it raises
    PluginError. `FEWSHOT_PLUGINS` (entry-point names, comma-separated) restricts or empties the
    list of plugins tried.
    """
    registry = Registry()
    registry.add(_collect(builtin, BUILTIN, version("fewshot")))
    statuses: list[PluginStatus] = []
    taken: dict[str, str] = {}
    wanted, missing = _wanted(entry_points(group=GROUP))
    for name in missing:
        line = f"FEWSHOT_PLUGINS names '{name}', no such plugin is installed"
        if strict:
            raise PluginError(line)
        registry.failed[name] = line
        statuses.append(PluginStatus(name, "FEWSHOT_PLUGINS", "?", 0, line))
    for point in wanted:
        origin = f"{point.dist.name if point.dist else '?'} ({point.value})"
        release = point.dist.version if point.dist else "?"
        try:
            if point.name in taken:
                raise PluginError(f"the name '{point.name}' is already {taken[point.name]}'s")
            if point.name == BUILTIN:
                raise PluginError(f"the name '{BUILTIN}' is taken")
            entries = _collect(point.load(), point.name, release)
            registry.add(entries)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may even call sys.exit on import
            line = _one_line(error)
            if strict:
                raise PluginError(f"plugin '{point.name}' from {origin}: {line}") from error
            registry.failed[point.name] = line
            statuses.append(
                PluginStatus(point.name, origin, release, 0, line, traceback.format_exc())
            )
        else:
            taken[point.name] = origin
            statuses.append(PluginStatus(point.name, origin, release, len(entries)))
    return registry, statuses


def _one_line(error: BaseException) -> str:
    """An error as one line, even where its own text cannot be made."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}".splitlines()[0]


def _wanted(points: Iterable[EntryPoint]) -> tuple[list[EntryPoint], list[str]]:
    """The entry points to try, in the same order everywhere, and the names that have none."""
    ordered = sorted(points, key=lambda p: (p.name, p.dist.name if p.dist else "", p.value))
    asked = os.environ.get("FEWSHOT_PLUGINS")
    if asked is None:
        return ordered, []
    names = {name.strip() for name in asked.split(",")} - {""}
    missing = sorted(names - {point.name for point in ordered})
    return [point for point in ordered if point.name in names], missing


def _collect(plugin: Any, provider: str, release: str) -> list[Registered]:
    """Everything a plugin offers; raises where it is misspelt, of a wrong type or fails."""
    manager = pluggy.PluginManager("fewshot")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=provider)
    manager.check_pending()  # a misspelt hook
    entries: list[Registered] = []
    for hook, kind in _HOOKS.items():
        expected = Preset if kind == "preset" else Component
        for part in (part for parts in getattr(manager.hook, hook)() for part in parts):
            if not isinstance(part, expected):
                raise PluginError(f"{hook} must return {expected.__name__}s, not {part!r}")
            entries.append(Registered(kind, part, provider, release))
    if not entries:
        raise PluginError("it implements no hook (is @hookimpl missing?)")
    return entries

"""Finding and loading plugins, each under its own guard."""

import inspect
import traceback
from collections.abc import Iterable
from importlib.metadata import version
from itertools import islice
from typing import Any

import pluggy
from attrs import frozen

from ..core.components import Component
from ..core.errors import PluginError, one_line
from . import builtin, hooks
from .installed import COMMANDS, PLUGINS, contained, installed, name_of, not_installed, wanted
from .kinds import KINDS, LEARNED, Kind, asked_for
from .registry import BUILTIN, Registered, Registry

_MOST = 1000  # components of one hook: a generator that never ends must not take all memory


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
    list of plugins tried. Ctrl-C is a KeyboardInterrupt that says which plugin was loading.
    """
    registry = Registry()
    registry.add(collect(builtin, BUILTIN, version("fewshot")))
    statuses: list[PluginStatus] = []
    taken: dict[str, str] = {}

    def failed(name: str, origin: str, release: str, error: BaseException) -> None:
        line = one_line(error)
        if strict:
            raise PluginError(f"plugin '{name}' from {origin}: {line}") from error
        registry.failed[name] = line
        story = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
        statuses.append(PluginStatus(name, origin, release, 0, line, story.decode()))

    points, unreadable = installed(PLUGINS)
    for name in not_installed():
        failed(name, "FEWSHOT_PLUGINS", "?", PluginError("no plugin of that name is installed"))
    for name, error in unreadable.items():
        failed(name, "its entry_points.txt", "?", error)
    for point in wanted(points):
        origin = f"{name_of(point.dist)} ({point.value})"
        release = point.dist.version if point.dist else "?"
        try:
            if point.name in taken:
                raise PluginError(f"the name '{point.name}' is already {taken[point.name]}'s")
            if point.name == BUILTIN:
                raise PluginError(f"the name '{BUILTIN}' is taken")
            with contained():
                entries = collect(point.load(), point.name, release)
            registry.add(entries)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"while plugin '{point.name}' was loading (FEWSHOT_PLUGINS can leave it out)"
            ) from error
        except BaseException as error:  # a plugin may even call sys.exit on import
            failed(point.name, origin, release, error)
        else:
            taken[point.name] = origin
            statuses.append(PluginStatus(point.name, origin, release, len(entries)))
    return registry, statuses


def fault_of_plugin(error: BaseException) -> PluginError | None:
    """An error that arose in an installed plugin's code, as one that says where; else None."""
    points = [point for group in (PLUGINS, COMMANDS) for point in installed(group)[0]]
    modules = {point.value.partition(":")[0]: point.name for point in reversed(points)}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        here = str(frame.f_globals.get("__name__"))
        near = [module for module in modules if module.split(".")[0] == here.split(".")[0]]
        if near:
            # Of one package's plugins, the one whose module (or package) this is.
            name = modules[max(near, key=lambda each: (f"{here}.".startswith(f"{each}."), each))]
            where = f"{frame.f_code.co_filename}:{line}"
            return PluginError(f"plugin '{name}' failed: {one_line(error)} ({where})")
    return None


def collect(plugin: Any, provider: str, release: str) -> list[Registered]:
    """Everything a plugin offers; raises where it is misspelt, of a wrong type or fails."""
    manager = pluggy.PluginManager("fewshot")
    manager.add_hookspecs(hooks)
    manager.register(plugin, name=provider)
    manager.check_pending()  # a misspelt hook
    entries: list[Registered] = []
    for kind in KINDS.values():
        caller = getattr(manager.hook, kind.hook)
        if caller.get_hookimpls():
            offers = caller()  # one at the most, as there is one plugin: pluggy leaves out None
            parts = _checked(kind, offers[0] if offers else None)
            entries += [Registered(kind.name, part, provider, release) for part in parts]
    if not entries:
        raise PluginError("it offers nothing (is @hookimpl missing?)")
    return entries


def _checked(kind: Kind, offered: Any) -> list[Any]:
    """What a hook returned as a list; PluginError where it cannot be used."""
    wanted = f"{kind.hook} must return list[{kind.record.__name__}]"
    if isinstance(offered, str) or not isinstance(offered, Iterable):
        raise PluginError(f"{wanted}, not {offered!r}")
    parts = list(islice(offered, _MOST + 1))
    if len(parts) > _MOST:
        raise PluginError(f"{wanted} of at most {_MOST}, this is longer")
    for part in parts:
        if not isinstance(part, kind.record):
            raise PluginError(f"{wanted}, and in it is {part!r}")
        if isinstance(part, Component):
            _check_factory(kind, part)
    return parts


def _check_factory(kind: Kind, component: Component) -> None:
    if component.initialise is not None and kind.name not in LEARNED:
        raise PluginError(
            f"{kind.name} '{component.name}' has `initialise`, which is for {', '.join(LEARNED)}"
        )
    try:
        signature = inspect.signature(component.factory)
    except ValueError:
        return  # a callable that has none to show
    try:
        given = asked_for(component.factory, dict.fromkeys(kind.may_take))
        signature.bind(*kind.takes, **given)
    except TypeError as error:
        raise PluginError(
            f"{kind.name} '{component.name}': its factory must take ({', '.join(kind.takes)}): "
            f"{error}"
        ) from error

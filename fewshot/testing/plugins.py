"""Everything that one plugin offers, each part tried by the laws of its kind."""

from collections.abc import Iterator
from functools import wraps
from typing import Any

from hypothesis import settings

from ..catalogue.kinds import KINDS
from ..catalogue.loading import build_registry, collect
from ..catalogue.registry import Registered, Registry, with_inner
from ..core.errors import FewshotError
from ..core.options import component_options, component_tables
from ..experiments.schema import options as structured
from . import (
    adapters,
    backbones,
    components,
    datasets,
    heads,
    learners,
    losses,
    metrics,
    miners,
    mixers,
    observers,
    optimizers,
    presets,
    samplers,
    schedules,
    studies,
    transforms,
)  # fmt: skip
from .laws import Kind, LawBroken, Outcome

LAWS: dict[str, Kind] = {
    module.KIND.name: module.KIND
    for module in (
        backbones, metrics, losses, samplers, miners, mixers, heads, adapters, learners, optimizers,
        schedules, datasets, transforms, observers, presets, studies, components,
    )
}  # fmt: skip


def try_part(
    entry: Registered, registry: Registry, options: Any = None, profile: settings | None = None
) -> Iterator[Outcome]:
    """Try every law of a component (with default options, if none are given), a preset or a study.

    Raises the FewshotError with which a factory refuses the options.
    """
    if entry.kind in ("preset", "study"):
        yield from LAWS[entry.kind].demanded(entry.part, registry, profile)
        return
    outcomes = list(LAWS["any component"].demanded(entry.part, None, profile))
    yield from outcomes
    if outcomes[0].example is None:
        component = entry.component
        chosen = options or structured(component.options, {}, entry.name, registry)

        @wraps(component.factory)
        def factory(options: Any, *arguments: Any, **may: Any) -> Any:
            given = with_inner(entry, options, arguments, 0, may, entry.kind)
            return component.factory(given, *arguments, **may)

        holds = component_options(component.options) or component_tables(component.options)
        tried = factory if holds else component.factory
        yield from LAWS[entry.kind].demanded(tried, chosen, profile)


def check_plugin(plugin: Any) -> list[str]:
    """Raise LawBroken where a part that the plugin offers breaks a law of its kind.

    `plugin`: the module (or object) that the entry point names. Every part is tried at its default
    options; a part that refuses these (a data set whose data are not here) is not, and is told in
    a line of what is returned. Raises PluginError for hooks that cannot be collected.
    """
    entries = collect(plugin, "checked", "")
    registry, installed = Registry(), build_registry()[0]
    for kind in KINDS:
        registry.add(installed.all(kind))
    registry.add(entries)
    broken: dict[str, list[Outcome]] = {}
    untried = []
    for entry in entries:
        part = f"{entry.kind} '{entry.name}'"
        try:
            found = [o for o in try_part(entry, registry) if o.example is not None]
        except FewshotError as error:
            untried.append(f"{part} is not checked: {error}")
            continue
        if found:
            broken[part] = found
    if broken:
        raise LawBroken(broken)
    return untried

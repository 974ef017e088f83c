"""Everything that one plugin offers, each part tried by the laws of its kind."""

from collections.abc import Iterator
from typing import Any

from hypothesis import settings

from ..catalogue.kinds import KINDS
from ..catalogue.loading import build_registry, collect
from ..catalogue.registry import Registered, Registry
from ..core.errors import FewshotError
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
    observers,
    presets,
    samplers,
    studies,
    transforms,
)  # fmt: skip
from .laws import Kind, LawBroken, Outcome

LAWS: dict[str, Kind] = {
    module.KIND.name: module.KIND
    for module in (
        backbones, metrics, losses, samplers, miners, heads, adapters, learners, datasets,
        transforms, observers, presets, studies, components,
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
        chosen = component.options() if options is None else options
        yield from LAWS[entry.kind].demanded(component.factory, chosen, profile)


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

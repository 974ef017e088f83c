"""Components by kind and name, and the rules where names clash. No plugin, no file."""

from collections.abc import Iterable, Mapping
from typing import Any

import mlx.nn as nn
from attrs import Factory, define, evolve, field, frozen

from ..compute.modules import parameter_bytes
from ..compute.randomness import keyed
from ..core.components import Component, Preset, Study
from ..core.errors import (
    AmbiguousComponentError,
    ConfigError,
    PluginError,
    UnknownComponentError,
    choose_from,
    one_line,
)
from ..core.machine import memory
from ..core.options import component_options, component_tables
from .kinds import KINDS, asked_for

BUILTIN = "builtin"


@frozen
class Registered:
    """A component, preset or study, and who provided it."""

    kind: str
    part: Component | Preset | Study
    provider: str
    version: str

    @property
    def name(self) -> str:
        """Its name alone."""
        return self.part.name

    @property
    def component(self) -> Component:
        """The part of every kind but "preset" and "study"."""
        assert isinstance(self.part, Component)
        return self.part

    @property
    def preset(self) -> Preset:
        """The part of kind "preset"."""
        assert isinstance(self.part, Preset)
        return self.part

    @property
    def study(self) -> Study:
        """The part of kind "study"."""
        assert isinstance(self.part, Study)
        return self.part

    @property
    def qualified(self) -> str:
        """provider/name, or the bare name of a built-in: unique, and always accepted."""
        return self.name if self.provider == BUILTIN else f"{self.provider}/{self.name}"


@frozen
class Inner:
    """What an option that names another component holds until that is made."""

    name: str
    options: Any
    entry: Registered = field(eq=False, repr=False)


# What a newcomer asks for by a name that is not built in.
_MORE = {"backbone": "networks with weights", "preset": "'photos', for photos without training"}


@define
class Registry:
    """What is there to choose from.

    A built-in's name always means the built-in. A plugin's component is found by its bare name and
    as `provider/name`; a bare name that two plugins offer is an error at look-up.
    """

    _parts: dict[str, dict[str, Registered]] = field(
        factory=lambda: {kind: {} for kind in KINDS}, repr=False
    )
    failed: dict[str, str] = Factory(dict)

    def add(self, entries: Iterable[Registered]) -> None:
        """Add all entries, or none: PluginError where one provider offers a name twice."""
        entries = list(entries)
        seen = set()
        for entry in entries:
            key = (entry.kind, entry.qualified)
            if key in seen or entry.qualified in self._parts[entry.kind]:
                raise PluginError(f"{entry.kind} '{entry.qualified}' is offered twice")
            seen.add(key)
        for entry in entries:
            self._parts[entry.kind][entry.qualified] = entry

    def get(self, kind: str, name: str) -> Registered:
        """The component of that bare or qualified name.

        Raises UnknownComponentError with the nearest valid name, AmbiguousComponentError with the
        qualified ones.
        """
        parts = self._parts[kind]
        if name in parts:
            return parts[name]
        offers = [entry for entry in parts.values() if entry.name == name]
        if len(offers) == 1:
            return offers[0]
        if offers:
            listed = ", ".join(sorted(entry.qualified for entry in offers))
            raise AmbiguousComponentError(f"{kind} '{name}' is offered twice: say one of {listed}")
        message = f"unknown {kind} '{name}': {choose_from(name, self.names(kind))}"
        provider = name.rpartition("/")[0]
        if provider and not any(e.provider == provider for k in KINDS for e in self.all(k)):
            message += f"; no plugin '{provider}' is loaded"
        if kind in _MORE and not any(entry.provider == "pretrained" for entry in self.all(kind)):
            message += f"; {_MORE[kind]}: pip install -e plugins/fewshot-pretrained"
        if self.failed:
            message += f"; failed to load: {', '.join(self.failed)} (see `fewshot plugins`)"
        raise UnknownComponentError(message)

    def names(self, kind: str) -> list[str]:
        """The shortest unambiguous name of every component of a kind, sorted."""
        bare = [entry.name for entry in self._parts[kind].values()]
        return sorted(
            entry.name
            if entry.provider == BUILTIN or bare.count(entry.name) == 1
            else entry.qualified
            for entry in self._parts[kind].values()
        )

    def all(self, kind: str) -> list[Registered]:
        """Every entry of a kind, by qualified name."""
        return [entry for _, entry in sorted(self._parts[kind].items())]


def make(entry: Registered, options: Any, *arguments: Any, seed: int = 0, **may: Any) -> Any:
    """What a component's factory makes, whatever it draws keyed by the seed and its kind.

    `may`: what the factory is given where it has a parameter of that name. Raises PluginError,
    naming the component, where it makes something else than its kind must be, and ConfigError where
    its weights would take more memory than there is.
    """
    return _made(entry, options, arguments, seed, may, entry.kind)


def with_inner(
    entry: Registered, options: Any, arguments: Any, seed: int, may: Mapping[str, Any], key: str
) -> Any:
    """The options with the components that they name made, as the factory is given them."""

    def part(inner: Inner, name: str) -> Any:
        given = arguments if inner.entry.kind == entry.kind else ()
        if len(given) < len(KINDS[inner.entry.kind].takes) - 1:
            raise PluginError(
                f"{entry.kind} '{entry.qualified}': option '{name}' names a "
                f"{inner.entry.kind}, which only a {inner.entry.kind} can hold"
            )
        return _made(inner.entry, inner.options, given, seed, may, f"{key} {name}")

    for name in component_options(type(options)):
        inner = getattr(options, name)
        if isinstance(inner, Inner):
            options = evolve(options, **{name: part(inner, name)})
    for name in component_tables(type(options)):
        table = getattr(options, name)
        made = {
            called: part(inner, f"{name}.{called}") if isinstance(inner, Inner) else inner
            for called, inner in table.items()
        }
        options = evolve(options, **{name: made})
    return options


def _made(
    entry: Registered, options: Any, arguments: Any, seed: int, may: Mapping[str, Any], key: str
) -> Any:
    """`key`: what its draws are keyed by; an inner part's are not those of the part around it."""
    kind, factory = KINDS[entry.kind], entry.component.factory
    options = with_inner(entry, options, arguments, seed, may, key)
    given = asked_for(factory, {name: may[name] for name in kind.may_take if name in may})
    with keyed(seed, key):
        try:
            made = factory(options, *arguments, **given)
        except (OverflowError, MemoryError) as error:
            raise ConfigError(
                f"{entry.kind} '{entry.qualified}' of these sizes cannot be made, as it takes more "
                f"memory than there is: {one_line(error)}"
            ) from error
    for name, expected in kind.interfaces():
        if not isinstance(made, expected):
            raise PluginError(f"{entry.kind} '{entry.qualified}' made {made!r}, which is no {name}")
    if isinstance(made, nn.Module) and (wanted := parameter_bytes(made)) > (there := memory()):
        raise ConfigError(
            f"the weights of {entry.kind} '{entry.qualified}' would take {wanted / 1e9:,.0f} GB, "
            f"there are {there / 1e9:,.0f}: make it smaller"
        )
    return made

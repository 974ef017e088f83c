"""The laws of a component of any kind: its options and its summary."""

import inspect
import tomllib
from typing import Any

import attrs
import tomli_w

from ..catalogue.kinds import KINDS
from ..catalogue.loading import build_registry
from ..compute.modules import late_parameters, parameter_shapes
from ..core.components import Component
from ..core.errors import ConfigError, FewshotError, PluginError, UnknownComponentError
from ..core.options import component_options, component_tables
from ..experiments.config import check_implied
from ..experiments.schema import options as structured
from ..experiments.schema import plain
from . import backbones
from .laws import Kind, fail, law, laws_of


@law()
def made(component: Any) -> None:
    """It is a `Component`."""
    if not isinstance(component, Component):
        fail(f"{component!r} is no Component")


@law()
def summary(component: Component) -> None:
    """`summary` says in one line what it is, for `fewshot list`."""
    if not component.summary.strip():
        fail("summary is empty")


@law()
def options_frozen(component: Component) -> None:
    """The options class is frozen: options are values."""
    options = component.options()
    for field in attrs.fields(component.options):
        try:
            setattr(options, field.name, getattr(options, field.name))
        except attrs.exceptions.FrozenInstanceError:
            continue
        fail(f"{component.options.__name__}.{field.name} can be set: write @attrs.frozen")


@law()
def options_have_help(component: Component) -> None:
    """Every option has a help text."""
    for field in attrs.fields(component.options):
        if not field.metadata.get("help"):
            fail(f"'{field.name}' has none: {field.name}: … = option(default, help)")


@law()
def options_in_files(component: Component) -> None:
    """Options written to a TOML file and read again are the same: defaults fit their types."""
    registry = build_registry()[0]
    try:
        default: Any = structured(component.options, {}, component.name, registry)
        written = tomllib.loads(tomli_w.dumps(plain(default)))
        again: Any = structured(component.options, written, component.name, registry)
    except UnknownComponentError:
        return  # what the next law is about
    except (ConfigError, TypeError, ValueError) as error:
        fail(f"{error}")
    if again != default:
        fail(f"{default} became {again}")


@law()
def inner_parts(component: Component) -> None:
    """The component that an option names by default exists."""
    registry = build_registry()[0]
    one, several = component_options(component.options), component_tables(component.options)
    for name, kind in {**one, **several}.items():
        if kind not in KINDS or KINDS[kind].record is not Component:
            fail(f"'{name}' names a {kind!r}: a kind of component is due")
    for name, kind in one.items():
        try:
            registry.get(kind, getattr(component.options(), name))
        except ConfigError as error:
            fail(f"'{name}': {error}")


@law()
def implies(component: Component) -> None:
    """The sections and options that it implies exist and are of their types; it names no part."""
    try:
        check_implied(build_registry()[0], component, component.name)
    except PluginError as error:
        fail(f"{error}")


def _gives_a_backbone_weights(component: Component) -> bool:
    takes = inspect.signature(component.factory).parameters
    return component.initialise is not None and len(takes) >= len(KINDS["backbone"].takes)


@law(when=_gives_a_backbone_weights)
def initialise(component: Component) -> None:
    """`initialise` of a backbone (tried where its weights are here) keeps names and shapes."""
    assert component.initialise is not None
    options = component.options()
    try:
        backbone = backbones.KIND.subject(component.factory, options).made()
        before = parameter_shapes(backbone)
        component.initialise(backbone, options)
    except FewshotError:
        return  # as it says that they are not
    if changed := late_parameters(backbone, before):
        fail(f"it changes the name or shape of '{changed[0]}': make it so in the factory")


def _subject(component: Any, _: Any) -> Any:
    return component


KIND = Kind("any component", _subject, laws_of(globals()))

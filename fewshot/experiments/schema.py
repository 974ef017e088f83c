"""Options classes from plain values, and back."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs

from ..catalogue.registry import Inner, Registry
from ..core.errors import ConfigError, UnknownComponentError, choose_from
from ..core.options import component_options, component_tables, range_of
from ..core.reading import shortened

Tree = dict[str, Any]

T = TypeVar("T")

# Where people look for options that are another section's.
_MOVED = {
    "training.optimizer": "it is a part of its own, [optimizer] name = … or --optimizer NAME",
    "training.schedule": "it is a part of its own, [schedule] name = … or --schedule NAME",
    "training.weight_decay": "it is optimizer.weight_decay, where the optimizer has it",
    "training.momentum": "it is optimizer.momentum, where the optimizer has it",
}


def options(
    cls: type[T], values: Mapping[str, Any], where: str, registry: Registry | None = None
) -> T:
    """An options class from plain values; ConfigError names the key, the value and the way out.

    `registry`: where the components are that options name.
    """
    attrs.resolve_types(cls)  # type: ignore[type-var]
    inner = component_options(cls) if registry else {}
    tables = component_tables(cls) if registry else {}
    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key not in fields:
            way_out = _MOVED.get(f"{where}.{key}") or choose_from(key, fields)
            raise ConfigError(f"{where} has no option '{key}': {way_out}")
        if key in inner or key in tables:
            continue
        try:
            checked[key] = _CONVERTER.structure(value, fields[key].type)
        except Exception as error:
            raise ConfigError(
                f"{where}.{key} wants {type_name(fields[key].type)}, got {shortened(value)}"
            ) from error
    for key, kind in inner.items():
        assert registry is not None
        default, place = fields[key].default, f"{where}.{key}"
        checked[key] = _inner(registry, kind, values.get(key, default), default, place)
    for name, of in fields.items():
        if of.default is attrs.NOTHING and name not in checked:
            raise ConfigError(f"{where} wants '{name}', {type_name(of.type)}")
    try:
        made = cls(**checked)
        for key, kind in tables.items():
            assert registry is not None
            checked[key] = _table(registry, kind, made, values.get(key, {}), f"{where}.{key}")
        return cls(**checked) if tables else made
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error.args[0] if error.args else error}") from error


def _inner(registry: Registry, kind: str, value: Any, default: str, where: str) -> Inner:
    """The component that an option names; a table without a name is for the default one."""
    table = {"name": value} if isinstance(value, str) else value
    name = table.get("name", default) if isinstance(table, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError(f"{where} wants a {kind}, by name or as a table, got {shortened(value)}")
    if where.count(".") > _DEEPEST:
        raise ConfigError(f"{where}: components within components without end")
    try:
        entry = registry.get(kind, name)
    except UnknownComponentError as error:
        raise UnknownComponentError(f"{where}: {error}") from error
    values = {key: given for key, given in table.items() if key != "name"}
    chosen: Any = options(entry.component.options, values, where, registry)
    return Inner(entry.qualified, chosen, entry)


_DEEPEST = 8


def _table(registry: Registry, kind: str, around: Any, value: Any, where: str) -> dict[str, Inner]:
    """The components of an option that names several, with what the part around hands to them."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} wants a table of {kind}s by name, got {shortened(value)}")
    handed = {name: _plain(option) for name, option in _own(around).items()}
    made = {}
    for called, given in value.items():
        table = {"name": given} if isinstance(given, str) else given
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise ConfigError(
                f"{where}.{called} wants a {kind}, by name or as a table with a name, got "
                f"{shortened(given)}"
            )
        place = f"{where}.{called}"
        known = _known(registry, kind, table["name"], place)
        below = {name: option for name, option in handed.items() if name in known}
        made[called] = _inner(registry, kind, {**below, **table}, "", place)
    return made


def _known(registry: Registry, kind: str, name: str, where: str) -> list[str]:
    """The options of a component."""
    try:
        cls: Any = registry.get(kind, name).component.options
    except UnknownComponentError as error:
        raise UnknownComponentError(f"{where}: {error}") from error
    return [field.name for field in attrs.fields(cls)]


def _own(values: Any) -> Tree:
    """Options that name no component and are not None."""
    named = {**component_options(type(values)), **component_tables(type(values))}
    table = attrs.asdict(values, recurse=False)
    return {key: value for key, value in table.items() if key not in named and value is not None}


def inner_parts(values: Any) -> Iterator[Inner]:
    """The components that options name, and those that these name."""
    inner = [getattr(values, name) for name in component_options(type(values))]
    for name in component_tables(type(values)):
        inner += getattr(values, name).values()
    for part in inner:
        if isinstance(part, Inner):
            yield part
            yield from inner_parts(part.options)


def type_name(kind: Any) -> str:
    """A type as users know it: `number`, `one of 'none', 'l2'`, `list of text`."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind in names:
        return names[kind]
    arguments = get_args(kind)
    if get_origin(kind) is Mapping:
        return "a table of tables" if get_origin(arguments[1]) is Mapping else "a table"
    if get_origin(kind) is tuple:
        return f"a list, each {type_name(arguments[0])}"
    if type(None) in arguments:
        return type_name(next(a for a in arguments if a is not type(None)))
    if arguments and all(isinstance(a, str) for a in arguments):
        return "one of " + ", ".join(repr(a) for a in arguments)
    return getattr(kind, "__name__", str(kind))


def _strict_converter() -> cattrs.Converter:
    """cattrs without its kindness: "3" is no number, 1 is no boolean, "abc" is no list."""
    converter = cattrs.Converter(detailed_validation=False)

    def strict(accepted: tuple[type, ...], kind: type) -> Any:
        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
                raise TypeError(value)
            made = kind(value)
            if isinstance(made, str):
                made.encode()  # names on a disk need be no text; what is written down must
            elif not math.isfinite(made) or (kind is int and abs(made) >= 1 << 63):
                raise ValueError(value)
            return made

        return structure

    for kind, accepted in ((int, (int,)), (float, (int, float)), (bool, (bool,)), (str, (str,))):
        converter.register_structure_hook(kind, strict(accepted, kind))

    def is_tuple(kind: Any) -> bool:
        return get_origin(kind) is tuple

    def sequence(value: Any, kind: Any) -> Any:
        entries = value if isinstance(value, list | tuple) else [value]
        return tuple(converter.structure(entry, get_args(kind)[0]) for entry in entries)

    converter.register_structure_hook_func(is_tuple, sequence)
    return converter


_CONVERTER = _strict_converter()


def plain(values: Any) -> Tree:
    """Options as TOML can hold them: no None (it is every such option's default)."""
    table = attrs.asdict(values, recurse=False)
    found = {key: _plain(value) for key, value in table.items() if value is not None}
    for name in component_tables(type(values)):
        handed = {key: found[key] for key in _own(values)}
        found[name] = {
            called: {k: v for k, v in inner.items() if k not in handed or v != handed[k]}
            for called, inner in found[name].items()
        }
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Inner):
        return {"name": value.name, **plain(value.options)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def show_options(cls: type) -> tuple[list[str], list[list[str]]]:
    """An options class as a table of text: option, default, what it wants, help."""
    attrs.resolve_types(cls)
    blank = cls()
    inner, tables = component_options(cls), component_tables(cls)
    rows = [
        [
            field.name,
            repr(getattr(blank, field.name)),
            f"a {inner[field.name]}, by name or as a table with its options"
            if field.name in inner
            else f"a table of {tables[field.name]}s by names of yours, each with its options"
            if field.name in tables
            else ", ".join(filter(None, (type_name(field.type), range_of(field.validator)))),
            field.metadata.get("help", ""),
        ]
        for field in attrs.fields(cls)
    ]
    return ["option", "default", "wants", "what"], rows

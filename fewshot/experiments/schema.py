"""Options classes from plain values, and back."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

import attrs
import cattrs

from ..core.errors import ConfigError, choose_from
from ..core.options import range_of

Tree = dict[str, Any]

T = TypeVar("T")


def options(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An options class from plain values; ConfigError names the key, the value and the way out."""
    attrs.resolve_types(cls)  # type: ignore[type-var]
    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{where} has no option '{key}': {choose_from(key, fields)}")
        try:
            checked[key] = _CONVERTER.structure(value, fields[key].type)
        except Exception as error:
            raise ConfigError(
                f"{where}.{key} wants {type_name(fields[key].type)}, got {value!r}"
            ) from error
    try:
        return cls(**checked)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {error.args[0] if error.args else error}") from error


def type_name(kind: Any) -> str:
    """A type as users know it: `number`, `one of 'none', 'l2'`, `list of text`."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind in names:
        return names[kind]
    arguments = get_args(kind)
    if get_origin(kind) is Mapping:
        return "a table"
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
            return kind(value)

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
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in table.items()
        if value is not None
    }


def show_options(cls: type) -> tuple[list[str], list[list[str]]]:
    """An options class as a table of text: option, default, what it wants, help."""
    attrs.resolve_types(cls)
    blank = cls()
    rows = [
        [
            field.name,
            repr(getattr(blank, field.name)),
            ", ".join(filter(None, (type_name(field.type), range_of(field.validator)))),
            field.metadata.get("help", ""),
        ]
        for field in attrs.fields(cls)
    ]
    return ["option", "default", "wants", "what"], rows

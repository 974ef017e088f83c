"""Options classes: fields with a default, a help text and the values they take."""

from collections.abc import Callable, Iterable
from typing import Any

from attrs import Factory, field, fields, frozen, validators

at_least = validators.ge

at_most = validators.le

above = validators.gt

below = validators.lt

within = validators.and_


@frozen
class ZeroOr:
    """A validator: 0, which means something of its own, or at least `least`."""

    least: float

    def __call__(self, _: Any, attribute: Any, value: float) -> None:
        """Raise ValueError for any other value."""
        if value != 0 and value < self.least:
            raise ValueError(f"'{attribute.name}' must be 0 or >= {self.least}: {value}")


@frozen
class NoOptions:
    """Options of a component that has none."""


def as_names(values: Iterable[Any]) -> tuple[str, ...]:
    """As a tuple of text, as which a number or a path is a name too."""
    return tuple(map(str, values))


def option(
    default: Any, help: str, validator: Any = None, factory: Callable[[], Any] | None = None
) -> Any:
    """A field of an options class: its default, its help text and what values it takes."""
    if factory is not None:
        default = Factory(factory)
    return field(default=default, validator=validator, metadata={"help": help})


def own_first(cls: type, found: list[Any]) -> list[Any]:
    """For `frozen(field_transformer=…)`: a class's own options before those that it inherits."""
    base = [one.name for one in getattr(cls.__base__, "__attrs_attrs__", ())]
    return sorted(found, key=lambda one: base.index(one.name) if one.inherited else -1)


def option_component(kind: str, default: str, help: str) -> Any:
    """A field that names another component: by name, or as a table of its name and options.

    The factory is given what that component's factory made. A kind whose factory takes more than
    options (a backbone) only in an option of the same kind, which hands on what it takes.
    """
    return field(default=default, metadata={"help": help, "component": kind})


def option_components(kind: str, help: str) -> Any:
    """A field of components by names of the user's, none by default: a table of such tables.

    The factory is given a mapping of what their factories made. An option of the part around them
    is handed to each that has one of this name and does not say otherwise.
    """
    return field(factory=dict, metadata={"help": help, "components": kind})


def component_options(cls: type) -> dict[str, str]:
    """The options that name another component, and its kind."""
    return _kinds(cls, "component")


def component_tables(cls: type) -> dict[str, str]:
    """The options that name other components by names of the user's, and the kinds of these."""
    return _kinds(cls, "components")


def _kinds(cls: type, what: str) -> dict[str, str]:
    kinds = {one.name: one.metadata.get(what) for one in fields(cls)}
    return {name: kind for name, kind in kinds.items() if kind is not None}


positive = above(0)

share = within(at_least(0.0), at_most(1.0))


def range_of(validator: Any) -> str:
    """The numbers that a validator takes, as text: ">= 1", "0 to 1", "0 or >= 2"; else nothing."""
    if isinstance(validator, ZeroOr):
        return f"0 or >= {validator.least}"
    for inner in ("member_validator", "validator"):  # of a list's entries, of one that may be None
        if hasattr(validator, inner):
            return range_of(getattr(validator, inner))
    if hasattr(validator, "compare_op"):
        return f"{validator.compare_op} {validator.bound:g}"
    texts = [text for part in getattr(validator, "_validators", ()) if (text := range_of(part))]
    ends = [text.split(" ") for text in texts]
    if [end[0] for end in ends] == [">=", "<="]:
        return f"{ends[0][1]} to {ends[1][1]}"
    return " and ".join(texts)

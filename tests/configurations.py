"""Configurations by chance: any values that options take, of any part, and what comes of them."""

from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
from hypothesis import strategies as st

from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.core.components import Component, Preset
from fewshot.core.errors import ConfigError
from fewshot.core.options import component_options, component_tables
from fewshot.data.folders import grouping
from fewshot.data.images import colour
from fewshot.experiments.config import LISTS, PARTS, PLAIN, resolve

REGISTRY: Registry = build_registry()[0]
KIND_OF_SECTION = {**{kind: kind for kind in PARTS}, **LISTS}


def config(*layers: dict[str, Any]) -> Any:
    return resolve(REGISTRY, layers)


def error(*layers: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*layers)
    text = str(caught.value)
    assert "\n" not in text
    return text


@attrs.frozen
class Bounds:
    """What an attrs validator lets through."""

    low: float = float("-inf")
    high: float = float("inf")
    above_low: bool = False
    below_high: bool = False
    length: int = 0


def bounds(validator: Any) -> Bounds:
    name = type(validator).__name__
    if name == "_AndValidator":
        parts = [bounds(part) for part in validator._validators]
        return Bounds(
            max(part.low for part in parts),
            min(part.high for part in parts),
            any(part.above_low for part in parts),
            any(part.below_high for part in parts),
            max(part.length for part in parts),
        )
    if name == "_NumberValidator" and validator.compare_op in (">=", ">"):
        return Bounds(low=validator.bound, above_low=validator.compare_op == ">")
    if name == "_NumberValidator":
        return Bounds(high=validator.bound, below_high=validator.compare_op == "<")
    if name == "_DeepIterable":
        return bounds(validator.member_validator)
    if name == "_MinLengthValidator":
        return Bounds(length=validator.min_length)
    if validator in (colour, grouping):
        return Bounds()
    if name in ("_InValidator", "_MaxLengthValidator", "_MatchesReValidator"):
        return Bounds()  # a literal type says the same, `values_of` heeds the others
    if name == "ZeroOr":
        return Bounds(low=validator.least)
    assert validator is None, f"the tests know no validator {name}"
    return Bounds()


def values_of(kind: Any, validator: Any) -> st.SearchStrategy[Any]:
    """Plain values, as a TOML file holds them, that an option of this type and validator takes."""
    b = bounds(validator)
    if kind is int:
        return st.integers(
            int(max(b.low, -(10**6))) + b.above_low, int(min(b.high, 10**6)) - b.below_high
        )
    if kind is float:
        first, last = max(b.low, -1e6), min(b.high, 1e6)
        whole = st.integers(int(first) + 1, int(last) - 1) if last > first + 1 else st.nothing()
        return whole | st.floats(
            first, last, exclude_min=b.above_low, exclude_max=b.below_high, allow_nan=False
        )
    if kind is bool:
        return st.booleans()
    if type(validator).__name__ == "_MatchesReValidator":
        return st.from_regex(validator.pattern, fullmatch=True)
    if validator is colour:
        return st.sampled_from(["white", "#1f6feb"])
    if validator is grouping:
        return st.sampled_from(["", "subfolders", r"(\d+)_"])
    if kind is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        entry = values_of(get_args(kind)[0], validator)
        return st.lists(entry, min_size=b.length, max_size=4, unique=True)
    present = [argument for argument in get_args(kind) if argument is not type(None)]
    assert len(present) == 1, f"the tests know no type {kind}"
    return values_of(present[0], validator)


def plain_options(cls: type) -> list[Any]:
    """The options of a class that name no other component."""
    attrs.resolve_types(cls)
    inner = {**component_options(cls), **component_tables(cls)}
    return [f for f in attrs.fields(cls) if f.name not in inner]


def tables_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Some of an options class's options, with values that it takes."""
    return st.fixed_dictionaries(
        {}, optional={f.name: values_of(f.type, f.validator) for f in plain_options(cls)}
    ).filter(lambda options: not options.get("nesterov") or options.get("momentum") != 0)


def parts_of(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any registered component of a kind, by one of its names, with options."""

    def table(entry: Registered) -> st.SearchStrategy[dict[str, Any]]:
        return tables_of(entry.component.options).map(
            lambda options: {"name": entry.qualified, **options}
        )

    return st.sampled_from(REGISTRY.all(kind)).flatmap(table)


LAYERS = st.fixed_dictionaries(
    {},
    optional={
        **{kind: parts_of(kind) for kind in PARTS},
        **{key: st.lists(parts_of(LISTS[key]), max_size=4) for key in LISTS},
        **{key: tables_of(cls) for key, cls in PLAIN.items()},
        "seed": st.integers(0, 2**63 - 1),
    },
)
EVERY_COMPONENT = [
    pytest.param(entry, id=f"{kind}-{entry.qualified}")
    for kind in (*PARTS, "transform")
    for entry in REGISTRY.all(kind)
]
EVERY_OPTIONS_CLASS = [
    *(pytest.param(key, "", cls, id=key) for key, cls in PLAIN.items()),
    *(
        pytest.param(kind, entry.qualified, entry.component.options, id=f"{kind}-{entry.qualified}")
        for kind in PARTS
        for entry in REGISTRY.all(kind)
        if attrs.fields(entry.component.options)
    ),
]


def section(key: str, name: str, **options: Any) -> dict[str, Any]:
    return {key: {"name": name, **options} if name else options}


IMPLIED: dict[str, Any] = {
    "dataset": {"size": 97},
    "training": {"steps": 1234},
    "preprocess": [{"name": "normalise", "mean": [0.25], "std": [0.75]}],
}


def with_implied(implies: dict[str, Any], preset: dict[str, Any] | None = None) -> Registry:
    """All parts, a backbone that implies something, and a preset."""
    registry = Registry()
    for kind in (*PARTS, "transform"):
        registry.add(REGISTRY.all(kind))
    part = Component("wide", lambda options, shape: None, implies=implies)
    registry.add([Registered("backbone", part, "tried", "1")])
    registry.add([Registered("preset", Preset("mine", preset or {}), "tried", "1")])
    return registry

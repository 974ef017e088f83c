"""What a configuration cannot be is named with its place, and the nearest that it can."""

import tomllib
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
import tomli_w
from configurations import (
    EVERY_COMPONENT,
    EVERY_OPTIONS_CLASS,
    REGISTRY,
    bounds,
    config,
    error,
    plain_options,
    section,
    with_implied,
)

from fewshot.catalogue.registry import Registered
from fewshot.cli.options import flag_layer
from fewshot.core.errors import ConfigError, PluginError
from fewshot.experiments.config import LISTS, PARTS, PLAIN, resolve, settings_layer
from fewshot.experiments.schema import type_name


@pytest.mark.parametrize(("key", "name", "cls"), EVERY_OPTIONS_CLASS)
def test_an_unknown_option_is_met_with_the_nearest_one(key: str, name: str, cls: type):
    for field in attrs.fields(cls):
        text = error(section(key, name, **{field.name + "x": 1}))
        assert key in text
        assert f"'{field.name}x'" in text
        assert f"did you mean '{field.name}'" in text


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("optimizer", "sgd", "--optimizer NAME"),
        ("schedule", "constant", "--schedule NAME"),
        ("weight_decay", 0.1, "optimizer.weight_decay"),
        ("momentum", 0.5, "optimizer.momentum"),
    ],
)
def test_what_is_no_option_of_training_says_where_it_is(key: str, value: Any, place: str):
    tree = {"training": {key: value}}
    start = {"backbone": "wide", "dataset": "image-folder"}
    asked = [
        (REGISTRY, [tomllib.loads(tomli_w.dumps(tree))]),
        (REGISTRY, [settings_layer([f"training.{key}={value}"])]),
        (with_implied({}, tree), [{**start, "preset": "mine"}]),
        (with_implied(tree), [start]),
    ]
    for registry, layers in asked:
        with pytest.raises((ConfigError, PluginError), match=f"no option '{key}': it is.*{place}"):
            resolve(registry, layers)


def test_flags_name_optimizer_and_schedule_and_what_they_imply_lies_below_the_layers():
    flags = flag_layer({"optimizer": "adadelta", "schedule": "step"})
    chosen = config(flags, settings_layer(["schedule.at=[0.5]", "optimizer.kept=0.5"]))
    assert (chosen.optimizer.name, chosen.optimizer.options.kept) == ("adadelta", 0.5)
    assert (chosen.schedule.name, chosen.schedule.options.at) == ("step", (0.5,))
    assert chosen.training.learning_rate == 1.0
    assert config(flags, {"training": {"learning_rate": 0.5}}).training.learning_rate == 0.5


@pytest.mark.parametrize("key", [*PARTS, *LISTS, *PLAIN, "seed", "preset"])
def test_an_unknown_section_is_met_with_the_nearest_one(key: str):
    wrong = key[:-1] + "q"
    assert f"unknown section '{wrong}': did you mean '{key}'" in error({wrong: {}})


@pytest.mark.parametrize("entry", EVERY_COMPONENT)
def test_an_unknown_component_is_met_with_the_nearest_one(entry: Registered):
    key = "augment" if entry.kind == "transform" else entry.kind
    table = {"name": entry.name + "q"}
    text = error({key: [table] if key in LISTS else table})
    assert f"unknown {entry.kind} '{entry.name}q': did you mean '{entry.name}'" in text


def test_an_unknown_preset_is_met_with_the_nearest_one():
    assert "did you mean 'asl-model-1'" in error({"preset": "asl-model1"})


WRONG: dict[Any, list[Any]] = {
    int: ["3", True, 1.5, 2.0, [1], {"a": 1}],
    float: ["0.5", True, [0.5], {"a": 1.0}],
    bool: [1, 0, "true", [True]],
    str: [3, True, 1.5, ["a"], {"a": "b"}],
    tuple[int, ...]: ["abc", ["1"], [1.5], [True], [[1]], True, {"a": 1}],
    tuple[float, ...]: ["abc", ["1"], [True], True, {"a": 1}],
    tuple[str, ...]: [3, [3], [True], [["a"]], {"a": "b"}],
}


def wrong_for(kind: Any) -> list[Any]:
    if kind in WRONG:
        return WRONG[kind]
    if get_origin(kind) is Literal:
        return ["neither", "", 1, True, list(get_args(kind)), get_args(kind)[0].upper()]
    if get_origin(kind) is tuple:
        return [[value] for value in wrong_for(get_args(kind)[0])]
    return wrong_for(next(a for a in get_args(kind) if a is not type(None)))


@pytest.mark.parametrize(("key", "name", "cls"), EVERY_OPTIONS_CLASS)
def test_a_wrong_type_is_named_with_its_key_value_and_what_is_wanted(
    key: str, name: str, cls: type
):
    for field in plain_options(cls):
        for value in wrong_for(field.type):
            text = error(section(key, name, **{field.name: value}))
            assert f"{key}.{field.name}" in text
            assert repr(value) in text
            assert type_name(field.type) in text


@pytest.mark.parametrize(("key", "name", "cls"), EVERY_OPTIONS_CLASS)
def test_a_value_out_of_range_is_named(key: str, name: str, cls: type):
    attrs.resolve_types(cls)
    for field in attrs.fields(cls):
        b = bounds(field.validator)
        many = get_origin(field.type) is tuple
        outside: list[Any] = [b.low if b.above_low else b.low - 1] if b.low > float("-inf") else []
        outside += [b.high if b.below_high else b.high + 1] if b.high < float("inf") else []
        for value in [[value] if many else value for value in outside] + [[]] * (b.length > 0):
            text = error(section(key, name, **{field.name: value}))
            assert key in text
            assert field.name in text


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, [1]])
def test_the_seed_is_a_whole_number(value: Any):
    assert "seed" in error({"seed": value})
    assert repr(value) in error({"seed": value})


@pytest.mark.parametrize("value", [3, [1], True, "text"])
@pytest.mark.parametrize("key", list(PLAIN))
def test_a_section_is_a_table(key: str, value: Any):
    assert f"'{key}'" in error({key: value})


@pytest.mark.parametrize("value", [3, 1.5, True, ["conv4"]])
@pytest.mark.parametrize("kind", PARTS)
def test_a_part_is_a_name_or_a_table(kind: str, value: Any):
    assert kind in error({kind: value})


@pytest.mark.parametrize("value", [3, True, [], ["conv4"], {"a": 1}])
@pytest.mark.parametrize("kind", PARTS)
def test_a_name_is_text(kind: str, value: Any):
    assert kind in error({kind: {"name": value}})


@pytest.mark.parametrize("value", [3, True, [], ["asl-model-1"], {"a": 1}])
def test_a_presets_name_is_text(value: Any):
    assert "preset" in error({"preset": value})


@pytest.mark.parametrize("value", [[{"sigma": 1.0}], [3], ["flip", 3], "flip", 3, [["flip"]]])
@pytest.mark.parametrize("key", LISTS)
def test_a_list_of_transforms_holds_names_or_tables_with_a_name(key: str, value: Any):
    error({key: value})

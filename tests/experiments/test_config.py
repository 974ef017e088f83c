"""A configuration there and back: what a run writes, --set and files mean what they say."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from configurations import EVERY_COMPONENT, LAYERS, REGISTRY, config, tables_of
from hypothesis import given
from hypothesis import strategies as st

from fewshot.catalogue.registry import Registered
from fewshot.core.errors import ConfigError
from fewshot.experiments.config import (
    DEFAULTS,
    LISTS,
    PARTS,
    PLAIN,
    parse_set,
    read_toml,
    settings_layer,
    to_toml,
    to_tree,
)
from fewshot.experiments.schema import options as structured

# ------------------------------------------------------------------------------- there and back


@given(LAYERS)
def test_the_file_that_a_run_writes_means_the_same_run(layer: dict[str, Any]):
    chosen = config(layer)
    assert config(tomllib.loads(to_toml(chosen))) == chosen


@pytest.mark.parametrize("name", REGISTRY.names("preset"))
def test_every_preset_resolves_and_comes_back(name: str):
    chosen = config({"preset": name})
    assert config(tomllib.loads(to_toml(chosen))) == chosen
    assert (chosen == config()) is REGISTRY.get("preset", name).preset.default
    for kind in PARTS:
        wanted = REGISTRY.get("preset", name).preset.values.get(kind)
        if wanted is not None:
            assert_says(kind, getattr(chosen, kind), wanted)


def assert_says(kind: str, got: Any, wanted: Mapping[str, Any]) -> None:
    """Name and options are those wanted, lists as tuples; of parts inside an option, too."""
    assert got.name == REGISTRY.get(kind, wanted["name"]).qualified
    for key, value in wanted.items():
        if key in ("parts", "sources"):
            inner = getattr(got.options, key)
            assert inner.keys() == value.keys()
            for name, each in value.items():
                assert_says(kind, inner[name], each)
        elif key != "name":
            assert getattr(got.options, key) == (tuple(value) if isinstance(value, list) else value)


def test_the_defaults_resolve_and_come_back():
    chosen = config()
    assert config(tomllib.loads(to_toml(chosen))) == chosen
    for kind in ("metric", "loss"):
        assert getattr(chosen, kind).name == REGISTRY.get(kind, DEFAULTS[kind]["name"]).qualified
    (start,) = [e.preset for e in REGISTRY.all("preset") if e.preset.default]
    for kind in ("dataset", "backbone"):
        assert (
            getattr(chosen, kind).name == REGISTRY.get(kind, start.values[kind]["name"]).qualified
        )
    assert [entry.name for entry in chosen.preprocess] == ["normalise"]
    assert chosen.seed == 0


@pytest.mark.parametrize("entry", EVERY_COMPONENT)
def test_every_component_is_made_by_its_bare_options(entry: Registered):
    """Everything in the registry can be named with no option at all."""
    key = "augment" if entry.kind == "transform" else entry.kind
    table = {"name": entry.qualified}
    chosen = config({key: [table] if key in LISTS else table})
    made = chosen.augment[0] if key in LISTS else getattr(chosen, key)
    assert made.name == entry.qualified
    assert made.options == structured(entry.component.options, {}, key, REGISTRY)


@given(LAYERS)
def test_everything_that_was_asked_for_is_in_the_result(layer: dict[str, Any]):
    tree = to_tree(config(layer))
    for key, asked in layer.items():
        if key == "seed":
            assert tree[key] == asked
        elif key in LISTS:
            assert len(tree[key]) == len(asked)
            for got, one in zip(tree[key], asked, strict=True):
                assert {k: got[k] for k in one} == one
        else:
            assert {k: tree[key][k] for k in asked} == asked


# ---------------------------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("training.steps=200", ["training", "steps"], 200),
        ("a.b.c=1.5", ["a", "b", "c"], 1.5),
        ("a=true", ["a"], True),
        ("a=[1, 2]", ["a"], [1, 2]),
        ('a=["x", "y"]', ["a"], ["x", "y"]),
        ('a="3"', ["a"], "3"),
        ("a={b = 1}", ["a"], {"b": 1}),
        ("backbone.name=conv4", ["backbone", "name"], "conv4"),
        ("backbone.order=norm-relu", ["backbone", "order"], "norm-relu"),
        ("dataset.path=/a/b c.zip", ["dataset", "path"], "/a/b c.zip"),
        ("dataset.path=a=b", ["dataset", "path"], "a=b"),
        (" a . b = bare word ", ["a", "b"], "bare word"),
        ("a=", ["a"], ""),
    ],
)
def test_a_setting_is_a_path_and_a_toml_value_or_a_bare_word(
    text: str, path: list[str], value: Any
):
    assert parse_set(text) == (path, value)
    assert type(parse_set(text)[1]) is type(value)


@pytest.mark.parametrize("text", ["training.steps", "", "=3", ".=3", "a..b=3", "a.=3", ".a=3"])
def test_a_setting_without_key_or_value_is_refused(text: str):
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_set(text)


@pytest.mark.parametrize("value", ["[1, 2", "[A, B]", '"open', "{a = }", "'x", "[1 2]"])
def test_a_broken_list_table_or_string_is_no_bare_word(value: str):
    with pytest.raises(ConfigError) as caught:
        parse_set(f"evaluation.k_shot={value}")
    assert "evaluation.k_shot" in str(caught.value)
    assert value in str(caught.value)


@given(tables_of(PLAIN["training"]), st.randoms(use_true_random=False))
def test_settings_say_what_a_file_says(table: dict[str, Any], random):
    def text(value: Any) -> str:
        return value if isinstance(value, str) else repr(value)

    settings = [f"training.{key}={text(value)}" for key, value in table.items()]
    random.shuffle(settings)
    assert config(settings_layer(settings)) == config({"training": table})


def test_the_last_setting_of_a_key_wins():
    assert settings_layer(["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    "settings", [["backbone=conv4", "backbone.width=4"], ["backbone.width=4", "backbone=conv4"]]
)
def test_a_name_and_an_option_of_one_part_are_both_kept_or_refused(settings: list[str]):
    try:
        chosen = config(settings_layer(settings))
    except ConfigError:
        return
    assert (chosen.backbone.name, chosen.backbone.options.width) == ("conv4", 4)


def test_a_lone_value_is_a_list_of_one():
    assert config(settings_layer(["evaluation.k_shot=5"])).evaluation.k_shot == (5,)


# ---------------------------------------------------------------------------------------- files


def test_a_file_is_read(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\n[backbone]\nname = "conv4"\nwidth = 5\n[[augment]]\nname = "flip"\n')
    chosen = config(read_toml(path))
    assert chosen.seed == 3
    assert chosen.backbone.options.width == 5
    assert [entry.name for entry in chosen.augment] == ["flip"]


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", b"[a]\n[a]\n", None])
def test_a_file_that_is_no_toml_is_named(content: bytes | None, tmp_path: Path):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_the_line_of_the_fault_is_named(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text("seed = 1\n\n[backbone]\nwidth = = 3\n")
    with pytest.raises(ConfigError, match="line 4"):
        read_toml(path)

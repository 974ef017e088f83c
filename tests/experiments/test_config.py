"""One configuration from many layers: which layer wins, what is refused, and the way back."""

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.cli.options import flag_layer
from fewshot.core.components import Component, Preset
from fewshot.core.errors import ConfigError, PluginError
from fewshot.core.options import component_options, component_tables
from fewshot.data.images import colour
from fewshot.experiments.config import (
    DEFAULTS,
    LISTS,
    PARTS,
    PLAIN,
    names_path,
    parse_set,
    read_toml,
    resolve,
    settings_layer,
    to_toml,
    to_tree,
)
from fewshot.experiments.schema import options as structured
from fewshot.experiments.schema import type_name

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


# ---------------------------------------------------------------------- values that options take


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
    if validator is colour:
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
    )


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


# ------------------------------------------------------------------------------ there and back


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
            got = getattr(chosen, kind)
            assert got.name == REGISTRY.get(kind, wanted["name"]).qualified
            for key, value in wanted.items():
                assert key == "name" or getattr(got.options, key) == value


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


# ---------------------------------------------------------------------------- which layer wins

STEPS = st.none() | st.integers(0, 1000)


@given(preset=STEPS, file=STEPS, setting=STEPS, flag=STEPS)
def test_flags_beat_settings_beat_the_file_beat_the_preset_beat_the_defaults(
    preset: int | None, file: int | None, setting: int | None, flag: int | None
):
    registry = Registry()
    for kind in (*PARTS, "transform"):
        registry.add(REGISTRY.all(kind))
    values = {} if preset is None else {"training": {"steps": preset}}
    registry.add([Registered("preset", Preset("mine", values), "builtin", "1")])
    layers: list[dict[str, Any]] = [{"preset": "mine", "dataset": "arrays", "backbone": "conv4"}]
    layers[0] |= {} if file is None else {"training": {"steps": file}}
    layers.append({} if setting is None else settings_layer([f"training.steps={setting}"]))
    layers.append({} if flag is None else {"training": {"steps": flag}})
    given_ = [value for value in (flag, setting, file, preset) if value is not None]
    default = config().training.steps
    assert resolve(registry, layers).training.steps == [*given_, default][0]


@given(st.lists(tables_of(PLAIN["training"]), max_size=4))
def test_options_of_a_section_add_up_and_the_highest_wins(tables: list[dict[str, Any]]):
    together: dict[str, Any] = {}
    for table in tables:
        together |= table
    assert config(*({"training": table} for table in tables)) == config({"training": together})


@given(st.lists(tables_of(REGISTRY.get("backbone", "conv4").component.options), max_size=3))
def test_a_layer_that_names_the_same_component_keeps_the_options_below(
    tables: list[dict[str, Any]],
):
    together: dict[str, Any] = {}
    for table in tables:
        together |= table
    layers = [{"backbone": {"name": "conv4", **table}} for table in tables]
    assert config(*layers, {"backbone": "conv4"}) == config(
        {"backbone": {"name": "conv4", **together}}
    )


@given(st.data())
def test_naming_another_component_discards_the_options_below(data: st.DataObject):
    kind = data.draw(st.sampled_from([kind for kind in PARTS if len(REGISTRY.all(kind)) > 1]))
    below = data.draw(parts_of(kind))
    others = [e.qualified for e in REGISTRY.all(kind) if e.qualified != below["name"]]
    other = data.draw(st.sampled_from(others))
    assert config({kind: below}, {kind: {"name": other}}) == config({kind: {"name": other}})


def test_options_without_a_name_are_for_the_component_below():
    chosen = config({"backbone": {"name": "conv4"}}, {"backbone": {"width": 7}})
    assert (chosen.backbone.name, chosen.backbone.options.width) == ("conv4", 7)
    assert config({"metric": "cosine"}).metric.name == "cosine"


def test_the_bare_and_the_qualified_name_are_one_component():
    one = config({"backbone": {"name": "asl/simplecnn", "dropout": 0.5}}, {"backbone": "simplecnn"})
    assert one.backbone.options.dropout == 0.5


def test_a_file_may_start_from_a_preset_and_a_flag_may_name_another():
    file = {"preset": "conv4-episodic", "training": {"steps": 3}}
    assert config(file).loss.name == "prototypical"
    assert config(file).training.steps == 3
    other = config(file, {"preset": "asl-model-3"})
    assert other.loss.name == "contrastive"
    assert other.backbone.options.dropout == 0.3
    assert other.training.steps == 3


def test_a_default_that_is_replaced_need_not_exist():
    """Without the ASL bundle everything else still resolves."""
    registry = Registry()
    for kind in (*PARTS, "transform", "preset"):
        registry.add(entry for entry in REGISTRY.all(kind) if entry.provider == "builtin")
    layer = {"dataset": "image-folder", "backbone": "conv4"}
    assert resolve(registry, [layer]).backbone.name == "conv4"
    assert resolve(registry, [{**layer, "preset": "conv4-episodic"}]).metric.name == "cosine"
    for given_, said in (({}, "dataset"), ({"dataset": "arrays"}, "backbone")):
        with pytest.raises(
            ConfigError, match=f"no {said} named.*name one with --{said} NAME; valid:"
        ):
            resolve(registry, [given_])


def test_what_a_run_starts_with_is_the_default_preset_s_where_there_is_one():
    registry = Registry()
    for kind in (*PARTS, "transform"):
        registry.add(REGISTRY.all(kind))
    values = {"dataset": "arrays", "backbone": {"name": "conv4", "width": 7}, "seed": 3}
    registry.add([Registered("preset", Preset("mine", values, default=True), "b", "1")])
    chosen = resolve(registry, [])
    assert (chosen.dataset.name, chosen.backbone.options.width, chosen.seed) == ("arrays", 7, 0)
    assert resolve(registry, [{"dataset": "image-folder"}]).backbone == chosen.backbone
    registry.add([Registered("preset", Preset("other", values, default=True), "c", "1")])
    with pytest.raises(ConfigError, match="name one of b/mine, c/other"):
        resolve(registry, [{"dataset": "arrays"}])
    assert resolve(registry, [{"dataset": "arrays", "backbone": "conv4"}])
    assert resolve(registry, [{"preset": "b/mine"}]).seed == 3


# ------------------------------------------------------------------------- what a part implies

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


def looked_up(chosen: Any) -> dict[str, Any]:
    return {
        "dataset": chosen.dataset.options.size,
        "training": chosen.training.steps,
        "preprocess": chosen.preprocess[0].options.mean,
    }


SAID = {
    "dataset": st.integers(16, 90).map(lambda n: ({"dataset": {"size": n}}, n)),
    "training": st.integers(0, 999).map(lambda n: ({"training": {"steps": n}}, n)),
    "preprocess": st.sampled_from([0.0, 0.5]).map(
        lambda m: ({"preprocess": [{"name": "normalise", "mean": [m]}]}, (m,))
    ),
}


@given(st.fixed_dictionaries({}, optional=SAID), st.fixed_dictionaries({}, optional=SAID))
def test_what_a_part_implies_lies_above_the_defaults_and_below_all_that_is_said(
    by_preset: dict[str, Any], by_user: dict[str, Any]
):
    preset = {key: values for layer, _ in by_preset.values() for key, values in layer.items()}
    user = {key: values for layer, _ in by_user.values() for key, values in layer.items()}
    registry = with_implied(IMPLIED, preset)
    base = {"dataset": "image-folder", "preset": "mine"}
    if "dataset" in user:
        base["dataset"] = {"name": "image-folder", **user.pop("dataset")}
    elif "dataset" in preset:
        base["dataset"] = {"name": "image-folder", **preset["dataset"]}
    chosen = resolve(registry, [{"backbone": "wide", **base}, user])
    expected: dict[str, Any] = {"dataset": 97, "training": 1234, "preprocess": (0.25,)}
    expected |= {key: value for key, (_, value) in by_preset.items()}
    expected |= {key: value for key, (_, value) in by_user.items()}
    assert looked_up(chosen) == expected
    again = resolve(registry, [tomllib.loads(to_toml(chosen))])
    assert again == chosen
    # Not chosen, it implies nothing.
    other = resolve(registry, [{"dataset": "image-folder", "backbone": "conv4"}])
    assert looked_up(other) == looked_up(config({"dataset": "image-folder", "backbone": "conv4"}))


def test_an_implied_option_counts_where_the_chosen_part_has_it():
    registry = with_implied(IMPLIED)
    assert resolve(registry, [{"backbone": "wide", "dataset": "arrays"}]).training.steps == 1234
    named = {"backbone": "wide", "dataset": "image-folder", "sampler": {"per_class": 3}}
    registry = with_implied({"sampler": {"classes": 5, "per_class": 7}, "head": {"heat": 1}})
    with pytest.raises(PluginError, match=r"backbone 'tried/wide' implies.*'heat'"):
        resolve(registry, [named])
    registry = with_implied({"sampler": {"classes": 5, "per_class": 7}})
    options = resolve(registry, [named]).sampler.options
    assert (options.classes, options.per_class) == (5, 3)


def test_an_implied_value_that_the_chosen_part_refuses_says_the_way_out():
    registry = with_implied({"dataset": {"size": 999}})
    layers = [{"backbone": "wide", "dataset": "asl-synthetic"}]
    with pytest.raises(ConfigError, match=r"999; another part implies it: --set dataset\."):
        resolve(registry, layers)
    assert resolve(registry, [*layers, {"dataset": {"size": 64}}]).dataset.options.size == 64


@pytest.mark.parametrize(
    ("implies", "said"),
    [
        ({"trainin": {"steps": 3}}, "did you mean 'training'"),
        ({"training": {"step": 3}}, "did you mean 'steps'"),
        ({"dataset": {"sizes": 3}}, "did you mean 'size'"),
        ({"dataset": {"size": "large"}}, "a whole number"),
        ({"metric": {"name": "cosine"}}, "names no other"),
        ({"preprocess": [{"name": "normalize"}]}, "did you mean 'normalise'"),
        ({"preprocess": {"normalise": {"men": 3}}}, "did you mean 'mean'"),
        ({"seed": 3}, "unknown section 'seed'"),
    ],
)
def test_what_cannot_be_implied_is_the_plugin_s_fault(implies: dict[str, Any], said: str):
    with pytest.raises(PluginError) as caught:
        resolve(with_implied(implies), [{"backbone": "wide", "dataset": "image-folder"}])
    assert "backbone 'tried/wide' implies" in str(caught.value)
    assert said in str(caught.value)


def test_the_split_is_replaced_whole():
    below = {"split": {"train": ["a", "b"], "test": ["c"]}}
    assert config(below, {"split": {"test_fraction": 0.5}}) == config(
        {"split": {"test_fraction": 0.5}}
    )


@pytest.mark.parametrize(
    ("loss", "sampler", "head"),
    [
        ("contrastive", "all-pairs", "nearest-support"),
        ("triplet", "triplets", "nearest-support"),
        ("prototypical", "episodes", "nearest-prototype"),
        ("supcon", "balanced", "nearest-prototype"),
        ("arcface", "proxies", "nearest-prototype"),
        ("margin", "all-pairs", "nearest-support"),
    ],
)
def test_sampler_and_head_fit_the_loss_where_nothing_is_named(loss: str, sampler: str, head: str):
    chosen = config({"loss": loss})
    assert (chosen.sampler.name, chosen.head.name) == (sampler, head)
    other = config({"loss": loss, "head": "nearest-prototype", "sampler": "pairs"})
    assert (other.sampler.name, other.head.name) == ("pairs", "nearest-prototype")


@pytest.mark.parametrize(
    ("loss", "option", "due"),
    [
        ("arcface", "centres", 1),
        ("sub-center-arcface", "centres", 3),
        ("soft-triple", "centres", 10),
        ("n-pairs", "per_class", 2),
    ],
)
def test_a_loss_brings_what_its_sampler_needs_unless_another_number_is_given(
    loss: str, option: str, due: int
):
    assert getattr(config({"loss": loss}).sampler.options, option) == due
    other = config({"loss": loss, "sampler": {option: 4}})
    assert getattr(other.sampler.options, option) == 4


@pytest.mark.parametrize("loss", [entry.qualified for entry in REGISTRY.all("loss")])
def test_options_go_to_the_sampler_that_fits(loss: str):
    name = config({"loss": loss}).sampler.name
    option = attrs.fields(REGISTRY.get("sampler", name).component.options)[0].name  # a count
    chosen = config({"loss": loss, "sampler": {option: 7}}).sampler
    assert (chosen.name, getattr(chosen.options, option)) == (name, 7)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], False),
        ([{"dataset": "asl-synthetic"}], False),
        ([{"dataset": {"path": "x"}}], False),
        ([{"dataset": "image-folder"}], True),
        ([{"dataset": {"name": "asl-alphabet", "size": 32}}, {"dataset": {"size": 48}}], True),
        ([{"preset": "asl-best"}], True),
        ([{"preset": "conv4-episodic"}], False),
        ([{"preset": "asl-best", "dataset": "asl-synthetic"}], False),
    ],
)
def test_a_path_is_for_the_topmost_data_set_that_is_named(layers: Any, expected: bool):
    assert names_path(REGISTRY, layers) is expected


@pytest.mark.parametrize("layer", [{"preset": 3}, {"dataset": {"name": 3}}, {"dataset": 3}])
def test_a_name_that_is_no_text_is_refused_where_a_path_is_looked_for(layer: Any):
    with pytest.raises(ConfigError, match="3"):
        names_path(REGISTRY, [layer])


# -------------------------------------------------------------------------------- transforms


@given(st.lists(parts_of("transform"), max_size=4), st.lists(parts_of("transform"), max_size=4))
def test_a_list_is_replaced_whole(below: list[dict[str, Any]], above: list[dict[str, Any]]):
    assert config({"augment": below}, {"augment": above}) == config({"augment": above})


def test_a_table_changes_entries_of_the_list_by_name():
    below = {"augment": ["flip", {"name": "blur", "sigma": 2.0}]}
    chosen = config(below, settings_layer(["augment.blur.probability=1"]))
    assert [entry.name for entry in chosen.augment] == ["flip", "blur"]
    assert (chosen.augment[1].options.sigma, chosen.augment[1].options.probability) == (2.0, 1.0)
    assert chosen.augment[0] == config({"augment": ["flip"]}).augment[0]
    assert config(settings_layer(["preprocess.normalise.mean=0"])).preprocess[0].options.mean == (
        0.0,
    )


def test_a_table_of_a_transform_that_is_not_there_says_what_is():
    text = error({"augment": ["flip"]}, settings_layer(["augment.blur.sigma=1"]))
    assert "blur" in text
    assert "flip" in text
    assert "unknown transform 'blurr'" in error(settings_layer(["augment.blurr.sigma=1"]))


# ----------------------------------------------------------------------------- what is refused


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


# -------------------------------------------------------------------------------------- --set


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


# -------------------------------------------------------------------------------------- files


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


def test_another_loss_takes_the_sampler_and_head_that_fit_it():
    chosen = config({"preset": "conv4-episodic"}, {"loss": "triplet"})
    assert (chosen.sampler.name, chosen.head.name) == ("triplets", "nearest-support")
    kept = config({"preset": "conv4-episodic"}, {"loss": {"temperature": 2.0}})
    assert (kept.sampler.name, kept.head.name) == ("episodes", "nearest-prototype")

"""One configuration from many layers: which layer wins, and what a part implies."""

import tomllib
from typing import Any

import attrs
import pytest
from configurations import IMPLIED, REGISTRY, config, error, parts_of, tables_of, with_implied
from hypothesis import given
from hypothesis import strategies as st

from fewshot.catalogue.registry import Registered, Registry
from fewshot.core.components import Preset
from fewshot.core.errors import ConfigError, PluginError
from fewshot.experiments.assembly import unlike_implied
from fewshot.experiments.config import (
    PARTS,
    PLAIN,
    names_path,
    resolve,
    settings_layer,
    to_toml,
    to_tree,
)

# ----------------------------------------------------------------------------- which layer wins

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
            ConfigError, match=f"no {said} named.*or one with --{said} NAME; valid:"
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


# -------------------------------------------------------------------------- what a part implies


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


def test_what_is_implied_and_overruled_is_told_and_nothing_else():
    registry = with_implied(IMPLIED)

    def told(*user: dict[str, Any]) -> list[str]:
        named = {"backbone": "wide", "dataset": "image-folder"}
        return unlike_implied(registry, "wide", to_tree(resolve(registry, [named, *user])))

    assert told() == told({"dataset": {"size": 97}, "seed": 3}) == []
    assert told({"dataset": {"size": 64}}) == [
        "backbone 'wide' implies dataset.size = 97, not 64",
    ]
    (line,) = told({"preprocess": ["normalise"]})
    assert "implies preprocess = " in line
    assert "0.75" in line
    assert told({"dataset": "arrays"}) == []  # which has no size


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


def test_another_loss_takes_the_sampler_and_head_that_fit_it():
    chosen = config({"preset": "conv4-episodic"}, {"loss": "triplet"})
    assert (chosen.sampler.name, chosen.head.name) == ("triplets", "nearest-support")
    kept = config({"preset": "conv4-episodic"}, {"loss": {"temperature": 2.0}})
    assert (kept.sampler.name, kept.head.name) == ("episodes", "nearest-prototype")


# ----------------------------------------------------------------------------------- transforms


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

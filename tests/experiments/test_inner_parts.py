"""Options that name other components: looked up, checked, written back, made."""

import tomllib
from typing import Any

import attrs
import mlx.core as mx
import pytest

import fewshot as fs
from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry, make
from fewshot.core.errors import ConfigError, PluginError
from fewshot.experiments.assembly import origins
from fewshot.experiments.config import resolve, settings_layer, to_toml
from fewshot.experiments.schema import show_options
from fewshot.testing.plugins import try_part


@attrs.frozen
class LossOptions:
    """Options of a loss around another."""

    inner: fs.Loss = fs.option_component("loss", "contrastive", "the loss inside")
    weight: float = fs.option(1.0, "of its values", fs.above(0))


def around(options: LossOptions) -> fs.Loss:
    fn = options.inner.fn
    return attrs.evolve(options.inner, fn=lambda *given: options.weight * fn(*given))


@attrs.frozen
class MetricOptions:
    """Options of a metric around another."""

    inner: fs.Metric = fs.option_component("metric", "euclidean", "the metric inside")


def same(options: MetricOptions) -> fs.Metric:
    return options.inner


@attrs.frozen
class Lost:
    """A metric around a backbone."""

    inner: Any = fs.option_component("backbone", "conv4", "which no metric can make")


def registry() -> Registry:
    made, installed = Registry(), build_registry()[0]
    for kind in KINDS:
        made.add(installed.all(kind))
    parts = {
        "loss": [fs.Component("around", around, LossOptions, "d")],
        "metric": [
            fs.Component("same", same, MetricOptions, "d"),
            fs.Component("lost", same, Lost, "d"),
        ],
    }
    made.add(Registered(kind, one, "toy", "2") for kind in parts for one in parts[kind])
    return made


REGISTRY = registry()


def chosen(*layers: Any) -> Any:
    return resolve(REGISTRY, [{"loss": "around", "metric": "same"}, *layers])


def made(kind: str, config: Any) -> Any:
    chosen = getattr(config, kind)
    return make(REGISTRY.get(kind, chosen.name), chosen.options)


@pytest.mark.parametrize(
    ("layers", "inner", "sampler"),
    [
        ([], {"name": "contrastive", "margin": 1.0}, "all-pairs"),
        ([settings_layer(["loss.inner=triplet"])], {"name": "triplet", "margin": 0.3}, "triplets"),
        (
            [settings_layer(["loss.inner.margin=0.5"])],
            {"name": "contrastive", "margin": 0.5},
            "all-pairs",
        ),
        (
            [{"loss": {"inner": "triplet"}}, settings_layer(["loss.inner.margin=0.7"])],
            {"name": "triplet", "margin": 0.7},
            "triplets",
        ),
        (
            [{"loss": {"inner": {"name": "contrastive", "margin": 0.7}}},
             {"loss": {"inner": "triplet"}}],
            {"name": "triplet", "margin": 0.3},
            "triplets",
        ),
        (
            [{"loss": {"inner": {"name": "around", "inner": {"name": "triplet", "margin": 0.2}}}}],
            {"name": "toy/around", "inner": {"name": "triplet", "margin": 0.2, "form": "hinge"}},
            "triplets",
        ),
    ],
)  # fmt: skip
def test_an_inner_part_is_chosen_and_comes_back_from_the_file(
    layers: Any, inner: dict[str, Any], sampler: str
) -> None:
    config = chosen(*layers)
    written = tomllib.loads(to_toml(config))
    assert inner.items() <= written["loss"]["inner"].items()
    assert config.sampler.name == sampler
    assert resolve(REGISTRY, [written]) == config


def test_the_factory_is_given_the_made_part() -> None:
    far, near = mx.array([0.9]), mx.array([False])
    for margin, weight in ((1.0, 1.0), (2.0, 3.0)):
        config = chosen({"loss": {"inner": {"margin": margin}, "weight": weight}})
        bare = fs.contrastive(fs.ContrastiveOptions(margin)).fn(far, near)
        assert mx.allclose(made("loss", config).fn(far, near), weight * bare)
    assert "cosine" in made("metric", chosen({"metric": {"inner": "cosine"}})).laws


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("contrastve", ("loss.inner: ", "contrastive")),
        ({"name": "triplet", "margn": 1}, ("loss.inner has no option 'margn'", "margin")),
        ({"margin": "wide"}, ("loss.inner.margin wants a number, got 'wide'",)),
        (3, ("loss.inner wants a loss", "3")),
    ],
)
def test_a_wrong_inner_part_is_refused_with_its_place(inner: Any, said: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen({"loss": {"inner": inner}})
    assert all(text in str(caught.value) for text in said), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_wants_more_than_options_is_refused_in_another_kind() -> None:
    with pytest.raises(PluginError, match="only a backbone can hold"):
        made("metric", chosen({"metric": "lost"}))


def test_an_inner_part_is_listed_and_its_plugin_known() -> None:
    _, rows = show_options(LossOptions)
    assert rows[0][:3] == [
        "inner",
        "'contrastive'",
        "a loss, by name or as a table with its options",
    ]
    config = chosen({"metric": {"inner": "same"}})
    known = origins(REGISTRY, [("loss", config.loss), ("metric", config.metric)])
    assert {"loss contrastive", "metric euclidean", "metric toy/same"} <= known.keys()


@pytest.mark.parametrize(("kind", "name"), [("loss", "around"), ("metric", "same")])
def test_the_laws_are_tried_on_a_part_with_an_inner_one(kind: str, name: str) -> None:
    outcomes = list(try_part(REGISTRY.get(kind, name), REGISTRY))
    assert len(outcomes) > 10
    assert [o.example for o in outcomes if o.example is not None] == []

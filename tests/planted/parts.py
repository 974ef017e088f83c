"""Presets and components with a fault, and odd ones without."""

from typing import Any

import attrs
import mlx.core as mx
from mlx.utils import tree_map

from fewshot import (
    Component,
    Conv4Options,
    DataError,
    Preset,
    Study,
    above,
    conv4,
    euclidean,
    option,
    option_component,
    option_components,
)
from planted import Case


def preset(name, law="", summary="a preset", **values):
    return Case("preset", name, Preset("tried", values, summary), None, law)


@attrs.define
class Thawed:
    """Can be set."""

    power: float = option(3.0, "of the differences", above(0))


@attrs.frozen
class Helpless:
    """No word on the option."""

    power: float = 3.0


@attrs.frozen
class Mistyped:
    """The default is of another type than the field."""

    power: int = option(0.5, "of the differences")


@attrs.frozen
class Lost:
    """Around a loss that is not there."""

    inner: Any = option_component("loss", "contrastve", "the loss inside")


@attrs.frozen
class Around:
    """Around a loss and a metric."""

    inner: Any = option_component("loss", "triplet", "the loss inside")
    other: Any = option_component("metric", "cosine", "the metric inside")


@attrs.frozen
class Several:
    """Around losses by names."""

    inner: Any = option_components("loss", "the losses inside")


@attrs.frozen
class Strange:
    """Around what is no kind of part."""

    inner: Any = option_components("losses", "the losses inside")


@attrs.frozen
class Many:
    """Options of every type that a file can hold."""

    power: float = option(3, "of the differences", above(0))
    names: tuple[str, ...] = option((), "of something")
    path: str | None = option(None, "to something")
    strict: bool = option(True, "or not")


def component(
    name, law="", options=attrs.make_class("None_", [], frozen=True), summary="d", **more
):
    part = Component("tried", lambda options: euclidean(), options, summary, **more)
    return Case("any component", name, part, None, law)


def network(name, initialise, law=""):
    def factory(options, input_shape):
        return conv4(Conv4Options(width=2), input_shape)

    options = attrs.make_class("None_", [], frozen=True)
    part = Component("tried", factory, options, "d", initialise=initialise)
    return Case("any component", name, part, None, law)


def of_another_width(backbone, _):
    backbone.update(conv4(Conv4Options(width=3), (32, 32, 3)).parameters())


def with_one_more(backbone, _):
    backbone.scale = mx.ones(3)


def halved(backbone, _):
    backbone.update(tree_map(lambda array: array / 2, backbone.parameters()))


def not_here(backbone, _):
    raise DataError("no weights here: fewshot fetch backbone/tried")


def study(rows):
    return Study("tried", rows, summary="d")


CASES = [
    Case("preset", "no_preset", {"metric": "cosine"}, None, "made"),
    preset("nothing_to_say", "summary", summary="", metric="cosine"),
    preset("an_unknown_metric", "components", metric={"name": "cosin"}),
    preset("an_unknown_transform", "components", augment=[{"name": "flop"}]),
    preset("an_unknown_section", "keys", trainer={"steps": 3}),
    preset("an_unknown_option", "keys", training={"step": 3}),
    preset("text_for_a_number", "keys", training={"steps": "many"}),
    preset("a_value_out_of_range", "keys", backbone={"name": "conv4", "width": -1}),
    preset("a_sampler_for_another_loss", "fits", loss="triplet", sampler="pairs"),
    preset("a_margin_out_of_reach", "fits", loss={"name": "contrastive", "margin": 9.0}),
    preset("a_head_without_gradient", "fits", loss="prototypical", head="nearest-support"),
    preset("normalise_as_augmentation", "fits", augment=[{"name": "normalise"}]),
    preset("a_flip_in_preprocess", "fits", preprocess=[{"name": "flip"}]),
    preset("almost_empty", seed=3),
    preset("for_one_dataset_only", split={"test": ["owl"]}, evaluation={"k_shot": [100]}),
    Case("study", "no_study", {"row": {}}, None, "made"),
    Case("study", "nothing_to_say", Study("tried", {"row": {}}), None, "summary"),
    Case("study", "a_row_of_no_preset", study({"row": {"preset": "nothing"}}), None, "rows"),
    Case("study", "a_row_of_a_wrong_option", study({"row": {"seed": "one"}}), None, "rows"),
    Case("study", "one_row", study({"row": {"metric": "cosine"}}), None),
    Case("any component", "no_component", euclidean, None, "made"),
    component("nothing_to_say", "summary", summary=" "),
    component("options_that_change", "options frozen", Thawed),
    component("no_help", "options have help", Helpless),
    component("a_default_of_another_type", "options in files", Mistyped),
    component("options_of_every_type", options=Many),
    component("an_inner_part_that_is_not_there", "inner parts", Lost),
    component("inner_parts", options=Around),
    component("inner_parts_of_no_kind", "inner parts", Strange),
    component("inner_parts_by_name", options=Several),
    component("no_options"),
    component("implies_an_unknown_section", "implies", implies={"trainer": {"steps": 3}}),
    component("implies_an_unknown_option", "implies", implies={"training": {"step": 3}}),
    component("implies_an_option_of_no_part", "implies", implies={"dataset": {"sizes": 3}}),
    component("implies_another_part", "implies", implies={"metric": {"name": "cosine"}}),
    network("weights_of_another_width", of_another_width, "initialise"),
    network("weights_of_a_parameter_more", with_one_more, "initialise"),
    network("weights_halved", halved),
    network("weights_that_are_not_here", not_here),
    component("implies_much", implies={"dataset": {"size": 224}, "training": {"steps": 3}}),
]

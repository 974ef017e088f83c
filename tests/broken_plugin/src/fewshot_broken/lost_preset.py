"""A preset of a component that is not there."""

from fewshot import Preset, hookimpl


@hookimpl
def fewshot_presets():
    return [Preset("lost-preset", {"backbone": {"name": "resnet"}})]

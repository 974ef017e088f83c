"""A preset whose values are no table."""

from fewshot import Preset, hookimpl


@hookimpl
def fewshot_presets():
    return [Preset("preset-values", ["conv4"])]

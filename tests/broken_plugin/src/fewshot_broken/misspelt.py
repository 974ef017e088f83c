"""A hook that does not exist."""

from fewshot import Component, hookimpl


@hookimpl
def fewshot_metrix():
    return [Component("misspelt-metric", lambda options: options)]

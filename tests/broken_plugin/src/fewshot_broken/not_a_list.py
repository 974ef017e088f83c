"""A hook that gives a component in place of a list of them."""

from fewshot import Component, hookimpl


@hookimpl
def fewshot_metrics():
    return Component("lonely-metric", lambda options: options)

"""A hook without a return."""

from fewshot import Component, hookimpl


@hookimpl
def fewshot_metrics():
    Component("forgotten-metric", lambda options: options)

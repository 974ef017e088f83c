"""Prints to standard output when imported."""

from fewshot import Component, cosine, hookimpl

print("hello from a plugin")


@hookimpl
def fewshot_metrics():
    return [Component("prints-metric", lambda options: cosine())]

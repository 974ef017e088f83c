"""A hook that wants arguments."""

from fewshot import Component, cosine, hookimpl


@hookimpl
def fewshot_metrics(options):
    return [Component("wrong-arguments-metric", lambda options: cosine())]

"""A component whose name no command line could take."""

from fewshot import Component, cosine, hookimpl


@hookimpl
def fewshot_metrics():
    return [Component("Bad Name", lambda options: cosine())]

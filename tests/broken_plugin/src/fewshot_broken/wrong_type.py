"""A hook that gives names in place of components."""

from fewshot import hookimpl


@hookimpl
def fewshot_metrics():
    return ["chebyshev"]

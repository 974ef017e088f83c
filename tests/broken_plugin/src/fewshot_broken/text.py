"""A hook that gives text in place of a list."""

from fewshot import hookimpl


@hookimpl
def fewshot_metrics():
    return "chebyshev"

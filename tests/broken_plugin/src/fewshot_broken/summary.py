"""A summary that is not text."""

from fewshot import Component, cosine, hookimpl


@hookimpl
def fewshot_metrics():
    return [Component("summary-metric", lambda options: cosine(), summary=42)]

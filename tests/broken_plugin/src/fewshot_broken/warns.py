"""Warns when imported."""

import warnings

from fewshot import Component, cosine, hookimpl

warnings.warn("this plugin is old", stacklevel=1)


@hookimpl
def fewshot_metrics():
    return [Component("warns-metric", lambda options: cosine())]

"""Replaces a built-in metric and NumPy's random seed when imported."""

import numpy as np

import fewshot.parts.metrics
from fewshot import Component, cosine, hookimpl

fewshot.parts.metrics.euclidean = None
np.random.seed(0)  # noqa: NPY002


@hookimpl
def fewshot_metrics():
    return [Component("patches-metric", lambda options: cosine())]

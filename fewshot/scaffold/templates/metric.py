"""The metric PLUGIN_NAME: the largest difference of two coordinates."""

import mlx.core as mx
from fewshot import Component, Metric, hookimpl


def distance(x: mx.array, y: mx.array) -> mx.array:
    """Chebyshev's max |x − y|: (…, d), (…, d) -> (…)."""
    return mx.abs(x - y).max(axis=-1)


def metric(_: object) -> Metric:
    """The distance, the laws it keeps, and its bound: 2 between unit vectors."""
    return Metric(
        fn=distance,
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda d: 2.0,
    )


@hookimpl
def fewshot_metrics() -> list[Component]:
    return [Component("PLUGIN_NAME", metric, summary="max |x − y|")]

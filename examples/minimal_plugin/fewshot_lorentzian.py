"""The metric lorentzian: Σ log(1 + |x − y|), in which no coordinate outweighs all others."""

import math

import mlx.core as mx

from fewshot import Component, Metric, hookimpl


def lorentzian(_: object) -> Metric:
    return Metric(
        fn=lambda x, y: mx.log1p(mx.abs(x - y)).sum(axis=-1),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda d: d * math.log1p(2 / math.sqrt(d)),  # all differences alike: Jensen
    )


@hookimpl
def fewshot_metrics() -> list[Component]:
    return [Component("lorentzian", lorentzian, summary="Σ log(1 + |x − y|)")]

"""Sound."""

import mlx.core as mx
from attrs import frozen

from fewshot import Component, Metric, Preset, above, hookimpl, option


@frozen
class MinkowskiOptions:
    """Options of the Minkowski distance."""

    power: float = option(3.0, "of the differences", above(0))


def minkowski(options):
    return Metric(
        fn=lambda x, y: (mx.abs(x - y) ** options.power).sum(-1) ** (1 / options.power),
        laws=frozenset({"identity", "symmetry"}),
        upper=lambda d: 2.0 * d,
    )


@hookimpl
def fewshot_metrics():
    return [
        Component("minkowski", minkowski, MinkowskiOptions, "the p-norm of the difference"),
        Component("shared-metric", minkowski, MinkowskiOptions, "also offered by clash"),
    ]


@hookimpl
def fewshot_presets():
    return (Preset("good-preset", {"metric": {"name": "minkowski"}}, "with minkowski"),)

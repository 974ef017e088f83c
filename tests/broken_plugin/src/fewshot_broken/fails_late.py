"""A metric that raises when it is first used."""

from fewshot import Component, Metric, hookimpl


def late(options):
    return Metric(fn=lambda x, y: x.no_such_method(y), laws=frozenset(), upper=lambda d: 2.0)


@hookimpl
def fewshot_metrics():
    return [Component("fails-late", late)]

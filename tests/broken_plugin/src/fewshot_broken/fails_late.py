"""A metric that raises when it is used for the fifth time."""

from fewshot import Component, Metric, hookimpl


def late(options):
    calls = []

    def distance(x, y):
        calls.append(1)
        return abs(x - y).sum(-1) if len(calls) < 5 else x.no_such_method(y)

    return Metric(fn=distance, laws=frozenset(), upper=lambda d: 2.0)


@hookimpl
def fewshot_metrics():
    return [Component("fails-late", late)]

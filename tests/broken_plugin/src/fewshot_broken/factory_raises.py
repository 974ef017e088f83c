"""A factory that raises."""

from fewshot import Component, hookimpl


def factory_raises(options):
    raise RuntimeError("raised in the factory")


@hookimpl
def fewshot_metrics():
    return [Component("factory-raises", factory_raises)]

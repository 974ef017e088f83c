"""A factory that does not take the options."""

from fewshot import Component, cosine, hookimpl


def cosine_of_nothing():
    return cosine()


@hookimpl
def fewshot_metrics():
    return [Component("factory-arguments", cosine_of_nothing)]

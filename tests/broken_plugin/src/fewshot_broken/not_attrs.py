"""Options that are no attrs class."""

from fewshot import Component, cosine, hookimpl


class Options:
    power = 2


@hookimpl
def fewshot_metrics():
    return [Component("not-attrs", lambda options: cosine(), Options)]

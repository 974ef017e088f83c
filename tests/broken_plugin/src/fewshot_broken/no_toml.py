"""An option whose default no TOML file can hold."""

import attrs

from fewshot import Component, cosine, hookimpl


@attrs.frozen
class Options:
    weights: frozenset = frozenset({1, 2})


@hookimpl
def fewshot_metrics():
    return [Component("no-toml", lambda options: cosine(), Options)]

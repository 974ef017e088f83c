"""An option without a default."""

import attrs

from fewshot import Component, cosine, hookimpl


@attrs.frozen
class Options:
    power: float


@hookimpl
def fewshot_metrics():
    return [Component("no-default", lambda options: cosine(), Options)]

"""An option of a type that does not exist."""

import attrs

from fewshot import Component, cosine, hookimpl


@attrs.frozen
class Options:
    power: "Number" = 2.0  # noqa: F821


@hookimpl
def fewshot_metrics():
    return [Component("unknown-type", lambda options: cosine(), Options)]

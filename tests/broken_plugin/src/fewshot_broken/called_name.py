"""An option called name, as the component itself is."""

import attrs

from fewshot import Component, cosine, hookimpl


@attrs.frozen
class Options:
    name: str = "x"


@hookimpl
def fewshot_metrics():
    return [Component("called-name", lambda options: cosine(), Options)]

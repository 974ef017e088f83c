"""An option whose validator refuses its own default."""

import attrs

from fewshot import Component, cosine, hookimpl


@attrs.frozen
class Options:
    power: float = attrs.field(default=0.0, validator=attrs.validators.gt(0))


@hookimpl
def fewshot_metrics():
    return [Component("refused-default", lambda options: cosine(), Options)]

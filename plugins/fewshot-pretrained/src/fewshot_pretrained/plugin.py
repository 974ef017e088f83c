"""What the plugin offers, nothing else."""

from fewshot import Component, hookimpl

from .networks import inverted


@hookimpl
def fewshot_backbones() -> list[Component]:
    """Networks with published weights."""
    return [*inverted.COMPONENTS]

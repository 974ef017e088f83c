"""What the plugin offers, nothing else."""

from fewshot import Component, hookimpl

from .networks import inverted, onnx_file


@hookimpl
def fewshot_backbones() -> list[Component]:
    """Networks with published weights."""
    return [*inverted.COMPONENTS, *onnx_file.COMPONENTS]

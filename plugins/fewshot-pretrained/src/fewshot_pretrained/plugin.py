"""What the plugin offers, nothing else."""

from fewshot import Component, hookimpl

from .networks import convnext, inverted, mobilenet, onnx_file, resnet, vit


@hookimpl
def fewshot_backbones() -> list[Component]:
    """Networks with published weights."""
    families = (inverted, resnet, mobilenet, convnext, vit, onnx_file)
    return [component for family in families for component in family.COMPONENTS]

"""What the plugin offers, nothing else."""

from fewshot import Component, Preset, hookimpl

from .networks import convnext, inverted, mobilenet, onnx_file, resnet, vit


@hookimpl
def fewshot_backbones() -> list[Component]:
    """Networks with published weights."""
    families = (inverted, resnet, mobilenet, convnext, vit, onnx_file)
    return [component for family in families for component in family.COMPONENTS]


@hookimpl
def fewshot_presets() -> list[Preset]:
    """A handful of photos of each thing, nothing trained."""
    return [
        Preset(
            "photos",
            {
                "backbone": {"name": "efficientnet-lite0"},
                "embedding": {"crops": "support"},
                "head": {"name": "lda"},
                "training": {"steps": 0},
                "evaluation": {"k_shot": [1, 5, 10]},
            },
            "one's own photos answered without training: efficientnet-lite0, lda, corners",
        )
    ]

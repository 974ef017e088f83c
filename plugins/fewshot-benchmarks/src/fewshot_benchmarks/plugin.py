"""What the plugin offers, nothing else."""

from fewshot import Component, Preset, Study, hookimpl

from . import benchmarks, recipes, resnet9


@hookimpl
def fewshot_datasets() -> list[Component]:
    """The field's data sets."""
    return list(benchmarks.COMPONENTS)


@hookimpl
def fewshot_backbones() -> list[Component]:
    """A network for minutes of training."""
    return list(resnet9.COMPONENTS)


@hookimpl
def fewshot_presets() -> list[Preset]:
    """The literature's recipes."""
    return list(recipes.PRESETS)


@hookimpl
def fewshot_studies() -> list[Study]:
    """CIFAR-FS."""
    return [recipes.CIFAR_FS_STUDY]

"""The built-in parts, offered through the hooks every plugin uses."""

from ..core.components import Component, Preset, Study
from ..data import datasets, folders, joined, tables
from ..parts import (
    adapters,
    backbones,
    heads,
    learners,
    losses,
    metrics,
    miners,
    mixers,
    observers,
    optimizers,
    samplers,
    schedules,
    studies,
    transforms,
)  # fmt: skip
from .hooks import hookimpl


@hookimpl
def fewshot_backbones() -> tuple[Component, ...]:
    """Networks."""
    return backbones.COMPONENTS


@hookimpl
def fewshot_metrics() -> tuple[Component, ...]:
    """Distances."""
    return metrics.COMPONENTS


@hookimpl
def fewshot_losses() -> tuple[Component, ...]:
    """Losses of every layout."""
    return losses.COMPONENTS


@hookimpl
def fewshot_samplers() -> tuple[Component, ...]:
    """Pairs, triplets, episodes, and images by their class."""
    return samplers.COMPONENTS


@hookimpl
def fewshot_miners() -> tuple[Component, ...]:
    """What a loss of pairs or triplets learns from."""
    return miners.COMPONENTS


@hookimpl
def fewshot_heads() -> tuple[Component, ...]:
    """Few-shot classifiers."""
    return heads.COMPONENTS


@hookimpl
def fewshot_adapters() -> tuple[Component, ...]:
    """None, and what trains on the support."""
    return adapters.COMPONENTS


@hookimpl
def fewshot_learners() -> tuple[Component, ...]:
    """How a step learns."""
    return learners.COMPONENTS


@hookimpl
def fewshot_optimizers() -> tuple[Component, ...]:
    """Those of MLX."""
    return optimizers.COMPONENTS


@hookimpl
def fewshot_schedules() -> tuple[Component, ...]:
    """The learning rate over a training."""
    return schedules.COMPONENTS


@hookimpl
def fewshot_transforms() -> tuple[Component, ...]:
    """Augmentations, and normalise."""
    return transforms.COMPONENTS


@hookimpl
def fewshot_mixers() -> tuple[Component, ...]:
    """None, mixup and CutMix."""
    return mixers.COMPONENTS


@hookimpl
def fewshot_observers() -> tuple[Component, ...]:
    """What is told of a run."""
    return observers.COMPONENTS


@hookimpl
def fewshot_datasets() -> tuple[Component, ...]:
    """One's own images."""
    return (
        *datasets.COMPONENTS, *folders.COMPONENTS, *tables.COMPONENTS, *joined.COMPONENTS
    )  # fmt: skip


@hookimpl
def fewshot_presets() -> tuple[Preset, ...]:
    """What to begin with on photos of anything, and the episodic recipe."""
    return (FROM_SCRATCH, EPISODIC)


@hookimpl
def fewshot_studies() -> tuple[Study, ...]:
    """Heads and losses side by side."""
    return (studies.METHODS,)


# The parts that were best for hands (docs/explanation/recipe.md), with transforms that suit most
# things: nothing in it is of one data set.
FROM_SCRATCH = Preset(
    "photos-from-scratch",
    {
        "backbone": {"name": "conv4"},
        "metric": {"name": "cosine"},
        "loss": {"name": "prototypical", "temperature": 0.0625},
        "sampler": {"name": "proxies"},
        "augment": [{"name": "crop"}, {"name": "flip"}, {"name": "colour"}],
        "head": {"name": "lda"},
        "training": {"steps": 1200},
        "evaluation": {"k_shot": [1, 5, 10]},
    },
    "photos of anything, trained from nothing: softmax over learned proxies, transforms, lda",
)

EPISODIC = Preset(
    "conv4-episodic",
    {
        "backbone": {"name": "conv4"},
        "metric": {"name": "cosine"},
        "loss": {"name": "prototypical", "temperature": 0.0625},
        "head": {"name": "nearest-prototype"},
        "sampler": {"name": "episodes", "n_way": 10, "k_shot": 3, "n_query": 4},
        "augment": [
            {"name": "crop"},
            {"name": "flip"},
            {"name": "colour"},
        ],
        "training": {"steps": 600, "draws_per_step": 2, "learning_rate": 2e-3},
    },
    "prototypical training of conv4 on episodes, cosine distance, with transforms",
)

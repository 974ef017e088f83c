"""What the plugin offers."""

from collections.abc import Callable
from pathlib import Path

from fewshot import Component, Preset, Source, fetch, hookimpl

from .characters import OmniglotOptions, omniglot
from .network import COMPONENTS

_FROM = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"

# The SHA-256 of the image sets are those that TensorFlow Datasets pins; of the runs only an MD5 is
# published, which tells a damaged file, not a forged one.
SOURCES = (
    Source(
        f"{_FROM}/images_background.zip",
        "images_background.zip",
        "sha256:ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    ),
    Source(
        f"{_FROM}/images_evaluation.zip",
        "images_evaluation.zip",
        "sha256:1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
    ),
    Source(
        f"{_FROM}/one-shot-classification/all_runs.zip",
        "all_runs.zip",
        "md5:e8996daecdf12afeeb4a53a179f06b19",
    ),
)


def _fetch(folder: Path, progress: Callable[[str, int, int], None]) -> None:
    fetch(SOURCES, folder, progress)


@hookimpl
def fewshot_datasets() -> list[Component]:
    """Omniglot."""
    return [
        Component(
            "omniglot",
            omniglot,
            OmniglotOptions,
            "1,623 handwritten characters of 50 alphabets, 20 drawings of each",
            _fetch,
        )
    ]


@hookimpl
def fewshot_backbones() -> tuple[Component, ...]:
    """A network for drawings."""
    return COMPONENTS


# Handwriting differs in slant, proportions and the course of each stroke.
_WARP = {
    "name": "warp",
    "rotation": 15,
    "min_scale": 0.75,
    "max_scale": 1.15,
    "shear": 0.25,
    "shift": 0.06,
    "perspective": 0.1,
    "stretch": 1.5,
    "bend": 0.15,
}


@hookimpl
def fewshot_presets() -> list[Preset]:
    """The prototypical network on Omniglot, and what works best."""
    return [
        Preset(
            "omniglot-prototypical",
            {
                "dataset": {"name": "omniglot"},
                "backbone": {"name": "conv4"},
                "metric": {"name": "sqeuclidean"},
                "loss": {"name": "prototypical"},
                "head": {"name": "nearest-prototype"},
                "sampler": {"name": "episodes", "n_way": 60, "k_shot": 1, "n_query": 5},
                "embedding": {"normalize": "none"},
                "training": {"steps": 300, "learning_rate": 0.001},
                "evaluation": {"n_way": 20, "k_shot": [1, 5], "n_query": 5},
            },
            summary="prototypical networks (Snell et al. 2017): conv4, 60-way 1-shot episodes",
        ),
        Preset(
            "omniglot-best",
            {
                "dataset": {
                    "name": "omniglot",
                    "frame": True,
                    "rotations": True,
                    "mirrored": True,
                    "held_out": ["Tagalog"],
                },
                # Trained together; each has length 1, so that cosines are the mean of the three's.
                "backbone": {
                    "name": "beside",
                    "parts": {part: {"name": "conv4-map"} for part in "abc"},
                },
                "augment": [_WARP],
                "metric": {"name": "cosine"},
                "loss": {"name": "nt-xent", "temperature": 0.03},
                "sampler": {"name": "balanced", "classes": 64, "per_class": 2},
                "head": {"name": "nearest-prototype"},
                "optimizer": {"name": "adamw", "weight_decay": 0.05},
                "embedding": {"power": 0.5, "centre": "whiten"},
                "training": {"steps": 1200, "learning_rate": 0.002, "warmup": 50},
                "evaluation": {"n_way": 20, "k_shot": [1, 5], "n_query": 5},
            },
            summary="for the official one-shot runs: framed drawings, eight turns of each as "
            "classes, strong warps, nt-xent, three small networks beside each other",
        ),
    ]

"""What the bundle offers, nothing else."""

from importlib.util import find_spec

from fewshot import Component, Preset, Study, hookimpl

from .alphabet import SPLIT, AlphabetOptions, alphabet, fetch_photos
from .simplecnn import SimpleCNNOptions, simplecnn
from .study import STUDY
from .synthetic import SyntheticOptions, synthetic


@hookimpl
def fewshot_backbones() -> list[Component]:
    """The experiment's network."""
    return [
        Component(
            "simplecnn",
            simplecnn,
            SimpleCNNOptions,
            "four convolutions and a linear layer, 3 million parameters at 64x64",
        )
    ]


@hookimpl
def fewshot_datasets() -> list[Component]:
    """Photos and drawings."""
    return [
        Component(
            "asl-alphabet",
            alphabet,
            AlphabetOptions,
            "photos of 29 ASL signs (Kaggle layout)",
            fetch_photos,
        ),
        Component(
            "asl-synthetic",
            synthetic,
            SyntheticOptions,
            "29 ASL signs drawn by program, no download",
        ),
    ]


_FLIP, _REST = {"name": "flip"}, [{"name": "crop"}, {"name": "colour"}, {"name": "blur"}]

# Random pairs, images of one shot on both sides: as in the paper. Ours: embeddings of length 1, in
# which the margin means the same from the first step on, and many pairs among the images of a step.
_PAPER = {
    "metric": {"name": "euclidean"},
    "loss": {"name": "contrastive"},
    "sampler": {"name": "pairs", "pairs": 1024, "images": 64, "groups": "mixed"},
    "head": {"name": "nearest-support"},
    "training": {"steps": 1200},
    "evaluation": {"groups": "mixed"},
}

_NETWORK = {"name": "simplecnn", "order": "norm-relu", "pool_last": True, "embedding": 0}

# Trained to the end, with no class to stop on: on all 23 that are not the test's.
_BEST = {
    "dataset": {"name": "asl-alphabet", "size": 48},
    "split": {"test": list(SPLIT.test)},
    "backbone": _NETWORK,
    "augment": [{"name": "warp"}, {"name": "colour"}, {"name": "tint"}],
    "embedding": {"crops": "five"},
    "head": {"name": "lda"},
    "training": {"steps": 1400},
}
_SOFTMAX = {"metric": {"name": "cosine"}, "loss": {"name": "prototypical", "temperature": 0.0625}}


# The network of _BEST, trained on photos of one signer and on drawn hands of many skins and shapes,
# beside one that knows photos of everything, seen without what tells images of a class apart.
_PEOPLE = {
    **_BEST,
    **_SOFTMAX,
    "dataset": {
        "name": "joined",
        "size": 144,
        "sources": {
            "photos": {"name": "asl-alphabet"},
            "drawn": {"name": "asl-synthetic", "images": 80},
        },
    },
    "backbone": {
        "name": "beside",
        "parts": {
            "hands": {**_NETWORK, "shrink": 3},
            "things": {"name": "efficientnet-lite0"},
        },
    },
    "embedding": {"crops": "five", "centre": "whiten"},
    "sampler": {"name": "proxies"},
}


@hookimpl
def fewshot_presets() -> list[Preset]:
    """What a run starts with, what works best, with three other losses, the paper's four models.

    What takes a network of fewshot-pretrained is offered where that is installed.
    """
    people = Preset(
        "asl-people",
        _PEOPLE,
        "for other people's hands: trained on photos and drawn ones, beside efficientnet-lite0",
    )
    return [
        *([people] if find_spec("fewshot_pretrained") else []),
        Preset(
            "asl-start",
            {"dataset": {"name": "asl-synthetic"}, "backbone": {"name": "simplecnn"}},
            "drawn signs and simplecnn: a run that names no data set or backbone",
            default=True,
        ),
        Preset(
            "asl-best",
            {**_BEST, **_SOFTMAX, "sampler": {"name": "proxies"}},
            "for photos of ASL signs: a softmax over learned proxies, strong transforms, lda",
        ),
        Preset(
            "asl-prototypical",
            {
                **_BEST,
                **_SOFTMAX,
                "sampler": {"name": "episodes", "n_way": 14, "k_shot": 2, "n_query": 3},
                "head": {"name": "nearest-prototype"},  # episodes are trained on through the head
            },
            "asl-best trained on episodes, through nearest-prototype",
        ),
        Preset(
            "asl-contrastive",
            {
                **_BEST,
                "metric": {"name": "euclidean"},
                "loss": {"name": "contrastive"},
                "sampler": {"name": "all-pairs"},
            },
            "asl-best trained on all pairs of a batch",
        ),
        Preset(
            "asl-triplet",
            {
                **_BEST,
                "metric": {"name": "euclidean"},
                "loss": {"name": "triplet"},
                "sampler": {"name": "triplets", "classes": 14, "per_class": 5},
            },
            "asl-best trained on triplets",
        ),
        Preset(
            "asl-model-1",
            {"backbone": {"name": "simplecnn"}, **_PAPER},
            "the paper's base: simplecnn, euclidean, contrastive on random pairs",
        ),
        Preset(
            "asl-model-2",
            {"backbone": {"name": "simplecnn"}, "augment": [_FLIP, *_REST], **_PAPER},
            "base and all transforms",
        ),
        Preset(
            "asl-model-3",
            {"backbone": {"name": "simplecnn", "dropout": 0.3}, **_PAPER},
            "base with dropout",
        ),
        Preset(
            "asl-model-4",
            {
                "backbone": {"name": "simplecnn", "order": "norm-relu"},
                "augment": _REST,
                **_PAPER,
            },
            "batch norm before ReLU, all transforms but the flip",
        ),
    ]


@hookimpl
def fewshot_studies() -> list[Study]:
    """The paper's table."""
    return [STUDY]

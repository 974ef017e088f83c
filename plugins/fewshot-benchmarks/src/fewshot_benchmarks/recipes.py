"""Recipes: the literature's, and one for minutes on a CPU; the study that runs those of CIFAR-FS.

What is published beside each is in the plugin's README.
"""

from typing import Any

from fewshot import Preset, Study

_FLIP, _CROP, _COLOUR = {"name": "flip"}, {"name": "crop"}, {"name": "colour"}

# As in the literature: 5-way, 15 queries a class. Nothing stops early; the best validation counts.
_EXAMINED = {
    "n_way": 5,
    "k_shot": [1, 5],
    "n_query": 15,
    "episodes": 2000,
    "pairs": 0,
    "untrained": False,
}

_HEADS = ["ridge", "lda", "logistic"]

_PROTOTYPICAL = {
    "dataset": {"name": "cifar-fs"},
    "metric": {"name": "sqeuclidean"},
    # Over hundreds of numbers squared distances are large at first: undivided, learning is slower.
    "loss": {"name": "prototypical", "temperature": 16.0},
    "head": {"name": "nearest-prototype"},
    "embedding": {"normalize": "none"},
    "augment": [_FLIP],
}

# A softmax of cosines to a vector of each training class: Baseline++ of Chen et al. 2019.
_COSINE = {"metric": {"name": "cosine"}, "loss": {"name": "normface", "scale": 16.0}}

_CIFAR_FS = (
    Preset(
        "cifar-fs-prototypical",
        {
            **_PROTOTYPICAL,
            "backbone": {"name": "conv4"},
            "sampler": {"name": "episodes", "n_way": 20, "k_shot": 5, "n_query": 5},
            "schedule": {"name": "cosine"},
            "training": {"steps": 4000, "validate_every": 500, "patience": 0},
            "evaluation": _EXAMINED,
        },
        "prototypical networks (Snell et al. 2017): conv4, 20-way 5-shot episodes",
    ),
    Preset(
        "cifar-fs-maml",
        {
            **_PROTOTYPICAL,
            "backbone": {"name": "conv4", "width": 32},
            "sampler": {"name": "episodes", "n_way": 5, "k_shot": 5, "n_query": 15},
            "learner": {"name": "maml", "inner_steps": 3, "inner_rate": 0.01},
            "adapter": {"name": "learner"},
            "optimizer": {"name": "muon"},
            "training": {
                "steps": 1500,
                "draws_per_step": 2,
                "learning_rate": 0.02,
                "validate_every": 250,
                "patience": 0,
            },
            "evaluation": {**_EXAMINED, "episodes": 600},
        },
        "maml (Finn et al. 2017): conv4 of width 32, 5-way 5-shot, through its prototypes",
    ),
    Preset(
        "cifar-fs-cosine",
        {
            **_COSINE,
            "dataset": {"name": "cifar-fs"},
            "backbone": {"name": "resnet9"},
            "sampler": {"name": "proxies", "classes": 64, "per_class": 2},
            "head": {"name": "nearest-prototype"},
            "optimizer": {"name": "muon"},
            "augment": [_CROP, _COLOUR, _FLIP],
            "embedding": {"centre": "train", "power": 0.5, "crops": "five", "mirror": True},
            "training": {
                "steps": 4200,
                "learning_rate": 0.05,
                "warmup": 200,
                "validate_every": 600,
                "patience": 0,
            },
            "evaluation": {**_EXAMINED, "heads": _HEADS},
        },
        "the most for half an hour on two cores: resnet9, a softmax of cosines, ten views",
    ),
)


# Of Tian et al. 2020: epochs of as many training images, in batches of 64, and the shares of these
# steps after which the rate falls to a tenth; of CUB as of mini-ImageNet.
_EPOCHS = {
    "mini-imagenet": (100, 38_400, [0.6, 0.8]),
    "tiered-imagenet": (60, 448_695, [0.5, 0.67, 0.83]),
    "cub": (100, 5_885, [0.6, 0.8]),
    "cifar-fs": (90, 38_400, [0.5, 0.67, 0.83]),
    "fc100": (90, 36_000, [0.5, 0.67, 0.83]),
}


def _resnet12(name: str) -> Preset:
    epochs, images, falls = _EPOCHS[name]
    steps = epochs * images // 64
    small: dict[str, Any] = {"square": 2} if name in ("cifar-fs", "fc100") else {}
    return Preset(
        f"{name}-resnet12",
        {
            **_COSINE,
            "dataset": {"name": name},
            "backbone": {"name": "pretrained/resnet12", **small},
            "sampler": {"name": "proxies", "classes": 64, "per_class": 1},
            "head": {"name": "logistic"},
            "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "step", "at": falls},
            "augment": [_CROP, _COLOUR, _FLIP],
            "training": {
                "steps": steps,
                "learning_rate": 0.05,
                "validate_every": steps // 20,
                "patience": 0,
            },
            "evaluation": {**_EXAMINED, "heads": ["nearest-prototype", "ridge", "lda"]},
        },
        "for a GPU: ResNet-12, classification of all training classes (Tian et al. 2020), logistic",
    )


PRESETS = (*_CIFAR_FS, *map(_resnet12, _EPOCHS))

CIFAR_FS_STUDY = Study(
    "cifar-fs",
    rows={
        "prototypical": {"preset": "cifar-fs-prototypical"},
        "cosine": {"preset": "cifar-fs-cosine"},
        "maml": {"preset": "cifar-fs-maml"},
    },
    seeds=1,
    published={
        "prototypical": {1: 0.555, 5: 0.720},
        "maml": {1: 0.589, 5: 0.715},
    },
    notes=(
        "Published: Bertinetto et al. 2019, 95 % intervals of 0.7 and 0.6 points (prototypical) "
        "and 1.9 and 1.0 (MAML).",
        "Of the row cosine's network there is no figure: R2D2, with four wide convolutions, has "
        "65.3 and 79.4 (Bertinetto et al. 2019), classification with conv4 62.7 and 78.7 (Tian et "
        "al. 2020).",
        "Here one network answers both K; MAML is trained on 5-shot episodes and answers by "
        "prototypes, without a layer of classes.",
    ),
    summary="CIFAR-FS, 5-way, from scratch in less than half an hour a row on two cores",
)

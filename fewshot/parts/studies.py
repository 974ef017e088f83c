"""The study `methods`: heads and losses side by side, on whatever images are at hand."""

from typing import Any

from ..core.components import Study

# By name: the images, the classes of an episode in training, and the queries of each in the test
# (half of Omniglot's twenty drawers).
_DATA: dict[str, tuple[dict[str, Any], int, int]] = {
    "groceries": ({"name": "image-folder", "path": "$FEWSHOT_GROCERIES_DATA"}, 10, 15),
    "digits": ({"name": "image-folder", "path": "$FEWSHOT_DIGITS_DATA"}, 5, 15),
    "asl": ({"name": "asl-alphabet"}, 10, 15),
    "omniglot": ({"name": "omniglot"}, 10, 10),
}

_HEADS = (
    "nearest-prototype",
    "nearest-support",
    "matching",
    "tip-adapter",
    "ridge",
    "logistic",
    "lda",
    "alpha-tim",
    "tim",
    "bd-cspn",
    "laplacian-shot",
    "pt-map",
    "label-propagation",
    "transductive-finetune",
)

# Heads that are trained with the network, on the same episodes.
_LEARNED = ("relation", "feat")

# Losses, with what goes beyond their own defaults.
_LOSSES: dict[str, dict[str, Any]] = {
    "contrastive": {},
    "margin": {},
    "triplet": {},
    "prototypical": {"temperature": 0.0625},
    "proxy-nca": {},
    "normface": {},
    "cosface": {},
    "arcface": {},
    "sub-center-arcface": {},
    "soft-triple": {},
    "proxy-anchor": {},
    "nt-xent": {},
    "supcon": {},
    "multi-similarity": {},
    "circle": {},
    "lifted-structure": {},
    "n-pairs": {},
    "angular": {},
    "smooth-ap": {},
}

# Those that compare any distances; the others want cosines.
_DISTANCES = ("contrastive", "margin", "triplet", "proxy-nca", "lifted-structure", "n-pairs")

# Every draw has 14 classes and 70 images.
_SAMPLERS = {
    "prototypical": {"name": "episodes", "n_way": 14, "k_shot": 2, "n_query": 3},
    "triplet": {"name": "triplets", "classes": 14, "per_class": 5},
}


def _scratch(data: dict[str, Any], n_way: int, n_query: int, head: str) -> dict[str, Any]:
    heads = {"heads": list(_HEADS)} if head == "nearest-prototype" else {}
    # Scores of relation are of any size; others are distances, at most 2.
    temperature = 1.0 if head == "relation" else 0.0625
    return {
        "seeds": 1,
        "preset": "conv4-episodic",
        "metric": "euclidean",
        "dataset": {**data, "size": 32},
        "sampler": {"name": "episodes", "n_way": n_way, "k_shot": 3, "n_query": 4},
        "loss": {"name": "prototypical", "temperature": temperature},
        "head": head,
        "training": {"steps": 200, "draws_per_step": 1},
        "evaluation": {"n_query": n_query, **heads},
    }


def _pretrained(data: dict[str, Any], n_query: int) -> dict[str, Any]:
    return {
        "seeds": 1,
        "dataset": {**data, "size": 160},
        "backbone": "efficientnet-lite0",
        "head": "nearest-prototype",
        "training": {"steps": 0},
        "evaluation": {"n_query": n_query, "heads": list(_HEADS)},
    }


def _loss(name: str, options: dict[str, Any]) -> dict[str, Any]:
    data, _, n_query = _DATA["omniglot"]
    return {
        "dataset": {**data, "size": 20},
        "backbone": {"name": "conv4", "width": 16},
        "loss": {"name": name, **options},
        "metric": "euclidean" if name in _DISTANCES else "cosine",
        "head": "nearest-prototype",
        "sampler": _SAMPLERS.get(name, {}),
        "training": {"steps": 100, "learning_rate": 2e-3},
        "evaluation": {"n_way": [5, 20], "dirichlet": [0], "n_query": n_query},
    }


METHODS = Study(
    "methods",
    rows={
        **{
            f"{name}-pretrained": _pretrained(data, n_query)
            for name, (data, _, n_query) in _DATA.items()
        },
        **{
            f"{name}-scratch": _scratch(data, n_way, n_query, "nearest-prototype")
            for name, (data, n_way, n_query) in _DATA.items()
        },
        **{
            f"{name}-{head}": _scratch(data, n_way, n_query, head)
            for name, (data, n_way, n_query) in _DATA.items()
            for head in _LEARNED
        },
        **{f"loss-{name}": _loss(name, options) for name, options in _LOSSES.items()},
    },
    base={
        "split": {"draw": True, "val_fraction": 0.0, "test_fraction": 0.5},
        "training": {"patience": 0},
        "evaluation": {
            "k_shot": [1, 5],
            "n_way": [5, 0],
            "dirichlet": [0, 2],
            "repeats": 5,
            "pairs": 0,
            "untrained": False,
        },
    },
    seeds=3,
    notes=(
        "Half of the classes are tested, the others train the networks from scratch. Queries are "
        "15 of each class, of Omniglot's characters and under the losses 10.",
        "Among all classes: the support has K images of every class, five draws of it.",
    ),
    summary="every head from scratch and pretrained on four data sets, every loss at equal cost",
    optional=True,
)

"""The built-in components, offered through the hooks every plugin uses."""

from ..core.components import Component, Preset
from ..data import datasets, folders
from ..parts import adapters, backbones, heads, losses, metrics, samplers, transforms
from .hooks import hookimpl


@hookimpl
def fewshot_backbones() -> list[Component]:
    """conv4."""
    return [
        Component(
            "conv4", backbones.conv4, backbones.Conv4Options, "the field's four-block network"
        )
    ]


@hookimpl
def fewshot_metrics() -> list[Component]:
    """Four distances."""
    return [
        Component("euclidean", metrics.euclidean, summary="√Σ(x−y)², not squared"),
        Component("sqeuclidean", metrics.sqeuclidean, summary="Σ(x−y)²; no triangle inequality"),
        Component("cosine", metrics.cosine, summary="1 − cos(x, y), a distance from 0 to 2"),
        Component("manhattan", metrics.manhattan, summary="Σ|x−y|"),
    ]


@hookimpl
def fewshot_losses() -> list[Component]:
    """One loss for each layout."""
    return [
        Component(
            "contrastive",
            losses.contrastive,
            losses.ContrastiveOptions,
            "pairs: Y·D² + (1−Y)·max(0, m−D)²",
        ),
        Component(
            "triplet", losses.triplet, losses.TripletOptions, "triplets: max(0, D₊ − D₋ + m)"
        ),
        Component(
            "prototypical",
            losses.prototypical,
            losses.PrototypicalOptions,
            "episodes: cross-entropy of the head's scores / temperature",
        ),
    ]


@hookimpl
def fewshot_samplers() -> list[Component]:
    """Pairs, triplets, episodes, and images by their class."""
    return [
        Component("pairs", samplers.pairs, samplers.PairsOptions, "random pairs"),
        Component(
            "all-pairs",
            samplers.all_pairs,
            samplers.AllPairsOptions,
            "all pairs of a class-balanced batch",
        ),
        Component(
            "triplets",
            samplers.triplets,
            samplers.TripletsOptions,
            "random triplets of a class-balanced batch",
        ),
        Component("episodes", samplers.episodes, samplers.EpisodesOptions, "N-way K-shot episodes"),
        Component(
            "proxies",
            samplers.proxies,
            samplers.ProxiesOptions,
            "a class-balanced batch, compared with a learned vector of every class",
        ),
    ]


@hookimpl
def fewshot_heads() -> list[Component]:
    """Three few-shot classifiers."""
    return [
        Component(
            "nearest-prototype",
            heads.nearest_prototype,
            summary="minus the distance to class means",
        ),
        Component(
            "lda",
            heads.lda,
            heads.LdaOptions,
            "minus the Mahalanobis distance to class means, by the support's covariance",
        ),
        Component(
            "nearest-support",
            heads.nearest_support,
            heads.NearestSupportOptions,
            "votes of the k nearest support images",
        ),
    ]


@hookimpl
def fewshot_adapters() -> list[Component]:
    """None, and two that train on the support."""
    return [
        Component("none", adapters.none, summary="the embedder as it was trained"),
        Component(
            "finetune",
            adapters.finetune,
            adapters.FinetuneOptions,
            "a few prototypical steps on augmented support images",
        ),
        Component(
            "whiten",
            adapters.whiten,
            adapters.WhitenOptions,
            "a linear map of frozen embeddings: their spread within classes made alike",
        ),
    ]


@hookimpl
def fewshot_datasets() -> list[Component]:
    """One's own images."""
    return [
        Component(
            "arrays", datasets.arrays, datasets.ArraysOptions, "one's own arrays, from an .npz file"
        ),
        Component(
            "image-folder",
            folders.image_folder,
            folders.ImageFolderOptions,
            "one's own images: one folder a class, or a zip file of that",
        ),
    ]


@hookimpl
def fewshot_transforms() -> list[Component]:
    """Four augmentations and normalise."""
    return [
        Component(
            "crop", transforms.random_resized_crop, transforms.CropOptions, "random resized crop"
        ),
        Component(
            "warp",
            transforms.random_warp,
            transforms.WarpOptions,
            "random rotation, scale, shear, shift and perspective",
        ),
        Component("flip", transforms.horizontal_flip, transforms.FlipOptions, "horizontal flip"),
        Component(
            "colour",
            transforms.colour_jitter,
            transforms.ColourOptions,
            "random brightness, contrast and saturation",
        ),
        Component(
            "tint",
            transforms.random_tint,
            transforms.TintOptions,
            "random hue, tone curve and gain of each channel",
        ),
        Component("blur", transforms.gaussian_blur, transforms.BlurOptions, "Gaussian blur"),
        Component("erase", transforms.random_erasing, transforms.EraseOptions, "random erasing"),
        Component(
            "clouds", transforms.clouds, transforms.CloudsOptions, "smooth patches of random colour"
        ),
        Component(
            "normalise",
            transforms.normalise,
            transforms.NormaliseOptions,
            "(x − mean) / std, for `preprocess`",
        ),
    ]


@hookimpl
def fewshot_presets() -> list[Preset]:
    """The episodic recipe."""
    return [EPISODIC]


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

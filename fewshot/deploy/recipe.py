"""How a trained network is made again: named parts, their options and weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..catalogue.registry import Registry
from ..compute.modules import parameter_count, snapshot
from ..core.errors import ConfigError, OutputError, UnknownComponentError
from ..core.interfaces import Head, Metric
from ..data.images import Reading, Shape
from ..engine.calibration import Calibration
from ..engine.objective import Learned
from ..engine.weights import fill
from ..experiments.assembly import give_weights, network, origins
from ..experiments.config import (
    Chosen,
    RunConfig,
    from_table,
    resolve,
    to_table,
    with_preset,
)
from ..experiments.folder import RESULTS, read_results, run_config, whole_weights
from ..experiments.manifest import hashes, read_manifest
from ..experiments.schema import Tree, options
from ..parts.embedder import Embedder, EmbeddingOptions

_READ = ("background", "interpolation")  # what of `Reading` goes with a network


@frozen(eq=False)
class Recipe:
    """Everything that decides an embedding of an image (h, w, c) of `shape` and its comparison.

    `components`: which release of which plugin each part was made by; `weights` of backbone,
    metric, head and centre by the names in a run's weights file; `seed` of what the parts draw
    beside these. `reading`: how images are read.
    """

    shape: Shape
    backbone: Chosen
    preprocess: tuple[Chosen, ...]
    embedding: EmbeddingOptions
    metric: Chosen
    head: Chosen
    components: Mapping[str, str]
    weights: Mapping[str, NDArray[np.float32]]
    seed: int = 0
    reading: Reading = Reading()


def of_run(folder: Path, registry: Registry, without_adapter: bool = False) -> Recipe:
    """The recipe of a run folder, which has no place for an adapter.

    Raises OutputError where it has no sound weights, ConfigError for a run with an adapter, unless
    it is to be left out.
    """
    config = resolve(registry, [run_config(folder)])
    _require_no_adapter(config, str(folder), without_adapter)
    weights = {name: np.array(array) for name, array in whole_weights(folder, config).items()}
    manifest = read_manifest(folder)
    try:
        height, width, channels = manifest["data"]["shape"]
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{folder}: its manifest does not tell the images' shape") from error
    return _of_config(config, (height, width, channels), weights, registry)


def calibrations_of(folder: Path) -> tuple[Calibration, ...]:
    """The calibrations of a run; none if it was interrupted, made without them or trained nothing.

    The enrolled classes tell as much as those of a run that trained nothing.
    """
    if RESULTS not in hashes(read_manifest(folder)):
        return ()
    results = read_results(folder)
    rows = results.unknown if results.training and results.training.steps else ()
    return tuple(Calibration(row.k_shot, row.threshold, row.temperature) for row in rows)


def of_names(registry: Registry, layers: Sequence[Tree], without_adapter: bool = False) -> Recipe:
    """The recipe of the parts that configuration layers name, with the weights they come with.

    Nothing is trained: `initialise` gives the weights, or the factory those of a network that is
    wholly frozen. Images are as large as the backbone implies,
    or a layer says, in `dataset.size`; the head is that of runs without a step. Raises ConfigError
    for a backbone without weights of its own, and for all else that would have to be trained first.
    """
    above = [_only_reading(layer) for layer in with_preset(registry, layers)]
    folder: Tree = {"dataset": {"name": "image-folder"}}
    config = resolve(registry, [folder, *above, {"training": {"steps": 0}}])
    _require_no_centre(config)
    _require_no_adapter(config, f"backbone '{config.backbone.name}'", without_adapter)
    size = config.dataset.options.size
    shape = (size, size, 3)
    embedder, metric, head = network(
        registry, shape, config.seed, config.backbone, config.preprocess, config.embedding,
        config.metric, config.head,
    )  # fmt: skip
    _require_weights(registry, config.backbone.name, embedder.backbone)
    learned = Learned(embedder.backbone, metric, head=head)
    for kind in learned.children().keys() - {"backbone"}:
        name = getattr(config, kind).name
        if registry.get(kind, name).component.initialise is None:
            raise ConfigError(
                f"{kind} '{name}' has learned parts, and nothing is trained here: take another "
                f"--{kind}, or fewshot run"
            )
    made = {"backbone": embedder.backbone, "metric": metric, "head": head}
    give_weights(registry, config, made, learned)
    arrays = {name: np.array(array) for name, array in snapshot(learned)}
    return _of_config(config, shape, arrays, registry)


def _only_reading(layer: Tree) -> Tree:
    """A layer without its data set, but for how images are read: these are given, at any size."""
    dataset = layer.get("dataset")
    rest = {key: value for key, value in layer.items() if key != "dataset"}
    if isinstance(dataset, Mapping):
        read = {key: value for key, value in dataset.items() if key in ("size", *_READ)}
        rest |= {"dataset": read} if read else {}
    return rest


def _require_weights(registry: Registry, name: str, backbone: Any) -> None:
    """Raise ConfigError where the backbone has to be trained first."""
    if registry.get("backbone", name).component.initialise is None and parameter_count(backbone):
        having = [
            bare
            for bare in registry.names("backbone")
            if registry.get("backbone", bare).component.initialise is not None
        ]
        there = "no plugin installed offers one that has"
        if having:
            there = f"take one that has: --backbone {', '.join(having)}"
        raise ConfigError(
            f"backbone '{name}' has no weights of its own; {there}; or train it: fewshot run "
            f"--backbone {name}"
        )


def _require_no_centre(config: RunConfig) -> None:
    if config.embedding.centre != "none":
        raise ConfigError(
            f"embedding.centre={config.embedding.centre} is of training classes, and none is "
            "here: --set embedding.centre=none, or fewshot run"
        )


def _require_no_adapter(config: RunConfig, of: str, without_adapter: bool) -> None:
    if config.adapter.name != "none" and not without_adapter:
        raise ConfigError(
            f"{of}: its figures are those with the adapter '{config.adapter.name}', which a "
            "classifier does not apply: --without-adapter (in Python without_adapter=True) takes "
            "the network as it is"
        )


def _of_config(
    config: RunConfig, shape: Shape, weights: Mapping[str, NDArray[Any]], registry: Registry
) -> Recipe:
    read = config.dataset.options
    return Recipe(
        shape=shape,
        backbone=config.backbone,
        preprocess=config.preprocess,
        embedding=config.embedding,
        metric=config.metric,
        head=config.head,
        components=origins(registry, _parts(config)),
        weights={
            name: array
            for name, array in weights.items()
            if name.startswith(("backbone.", "metric.", "head.", "centre."))
        },
        seed=config.seed,
        reading=Reading(**{key: getattr(read, key) for key in _READ if hasattr(read, key)}),
    )


def _parts(config: RunConfig) -> list[tuple[str, Chosen]]:
    transforms = [("transform", chosen) for chosen in config.preprocess]
    singles = [(kind, getattr(config, kind)) for kind in ("backbone", "metric", "head")]
    return [*singles, *transforms]


def remade(recipe: Recipe, registry: Registry) -> tuple[Embedder, Metric, Head]:
    """The recipe's parts with its weights, in eval mode; OutputError where these do not fit."""
    embedder, metric, head = network(
        registry, recipe.shape, recipe.seed, recipe.backbone, recipe.preprocess, recipe.embedding,
        recipe.metric, recipe.head, recipe.weights,
    )  # fmt: skip
    learned = Learned(embedder.backbone, metric, head=head, centre=embedder.centre)
    fill(learned, {name: mx.array(array) for name, array in recipe.weights.items()})
    learned.eval()
    return embedder, metric, head


# ------------------------------------------------------------------------------- as TOML


def to_tree(recipe: Recipe) -> Tree:
    """All but the weights."""
    return {
        "shape": list(recipe.shape),
        "backbone": to_table(recipe.backbone),
        "preprocess": [to_table(chosen) for chosen in recipe.preprocess],
        "embedding": attrs.asdict(recipe.embedding),
        "metric": to_table(recipe.metric),
        "head": to_table(recipe.head),
        "components": dict(recipe.components),
        "seed": recipe.seed,
        "reading": {key: getattr(recipe.reading, key) for key in _READ},
    }


def from_tree(
    tree: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]], registry: Registry
) -> Recipe:
    """What `to_tree` wrote.

    Raises UnknownComponentError, with the plugin, for a part that is not installed; ConfigError for
    options that it does not take; KeyError, TypeError or ValueError for another tree.
    """
    components = {str(part): str(origin) for part, origin in tree["components"].items()}

    def chosen(kind: str, table: Tree) -> Chosen:
        try:
            return from_table(registry, kind, table, kind)
        except UnknownComponentError as error:
            origin = components.get(f"{kind} {table['name']}", "an unknown plugin")
            raise UnknownComponentError(
                f"it was made with {kind} '{table['name']}' of {origin}: {error}"
            ) from error

    height, width, channels = (int(n) for n in tree["shape"])
    return Recipe(
        shape=(height, width, channels),
        backbone=chosen("backbone", tree["backbone"]),
        preprocess=tuple(chosen("transform", table) for table in tree["preprocess"]),
        embedding=options(EmbeddingOptions, tree["embedding"], "embedding"),
        metric=chosen("metric", tree["metric"]),
        head=chosen("head", tree["head"]),
        components=components,
        weights=weights,
        seed=int(tree.get("seed", 0)),
        reading=options(Reading, tree.get("reading", {}), "reading"),
    )

"""How a trained network is made again: named parts, their options and weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..catalogue.registry import Registry
from ..core.errors import ConfigError, OutputError, UnknownComponentError
from ..core.files import read_json
from ..core.interfaces import Head, Metric
from ..data.images import Shape
from ..engine.objective import Learned
from ..engine.weights import fill
from ..experiments.assembly import network, origins
from ..experiments.config import Chosen, RunConfig, from_table, resolve, to_table
from ..experiments.folder import run_config, run_weights
from ..experiments.schema import Tree, options
from ..parts.embedder import Embedder, EmbeddingOptions


@frozen(eq=False)
class Recipe:
    """Everything that decides an embedding of an image (h, w, c) of `shape` and its comparison.

    `components`: which release of which plugin each part was made by; `weights` of backbone,
    metric, head and centre by the names in a run's weights file; `seed` of what the parts draw
    beside these.
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


def of_run(folder: Path, registry: Registry, without_adapter: bool = False) -> Recipe:
    """The recipe of a run folder, which has no place for an adapter.

    Raises OutputError where it has no sound weights, ConfigError for a run with an adapter, unless
    it is to be left out.
    """
    config = resolve(registry, [run_config(folder)])
    if config.adapter.name != "none" and not without_adapter:
        raise ConfigError(
            f"{folder}: its figures are those with the adapter '{config.adapter.name}', which a "
            "classifier does not apply: --without-adapter (in Python without_adapter=True) takes "
            "the trained network as it is"
        )
    weights = run_weights(folder)
    manifest = read_json(folder / "manifest.json")
    try:
        height, width, channels = manifest["data"]["shape"]
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{folder}: its manifest does not tell the images' shape") from error
    return Recipe(
        shape=(height, width, channels),
        backbone=config.backbone,
        preprocess=config.preprocess,
        embedding=config.embedding,
        metric=config.metric,
        head=config.head,
        components=origins(registry, _parts(config)),
        weights={
            name: np.array(array)
            for name, array in weights.items()
            if name.startswith(("backbone.", "metric.", "head.", "centre."))
        },
        seed=config.seed,
    )


def _parts(config: RunConfig) -> list[tuple[str, Chosen]]:
    transforms = [("transform", chosen) for chosen in config.preprocess]
    singles = [(kind, getattr(config, kind)) for kind in ("backbone", "metric", "head")]
    return [*singles, *transforms]


def remade(recipe: Recipe, registry: Registry) -> tuple[Embedder, Metric, Head]:
    """The recipe's parts with its weights, in eval mode; OutputError where these do not fit."""
    embedder, metric, head = network(
        registry, recipe.shape, recipe.seed, recipe.backbone, recipe.preprocess, recipe.embedding,
        recipe.metric, recipe.head,
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
    )

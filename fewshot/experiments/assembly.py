"""From a configuration to the parts it names, checked before anything is decoded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..catalogue.kinds import LEARNED, LISTS
from ..catalogue.registry import Registered, Registry, make
from ..compute.modules import late_parameters, parameter_shapes
from ..compute.randomness import keyed
from ..core.draws import Draw, EpisodeBlock, Pairs
from ..core.errors import ClassTooSmallError, ConfigError, PluginError
from ..core.interfaces import (
    Adapter,
    Dataset,
    Head,
    Learner,
    Loss,
    Metric,
    Miner,
    Observer,
    Sampler,
    Transform,
)
from ..core.seeding import generator
from ..data.split import ClassSplit, class_ids, only, split_classes
from ..engine.objective import Learned, Objective, check_fits, check_learned, proxies_of
from ..engine.optimizers import make_optimizer
from ..engine.protocol import Setting, k_shot_episodes, verification_pairs
from ..engine.validation import validation
from ..parts.embedder import Embedder
from .config import Chosen, RunConfig


@frozen
class Parts:
    """Everything a configuration names, made."""

    config: RunConfig
    origins: dict[str, str]
    dataset: Dataset
    split: ClassSplit
    embedder: Embedder
    metric: Metric
    loss: Loss
    head: Head
    adapter: Adapter[Embedder]
    sampler: Sampler[Draw]
    miner: Miner
    learner: Learner
    learned: Learned
    observers: tuple[Observer, ...]
    augment: tuple[Transform, ...]
    episodes: dict[Setting, list[EpisodeBlock]]
    pairs: tuple[Pairs, Pairs] | None
    shape: tuple[int, int, int]

    @property
    def objective(self) -> Objective:
        """What training makes small; `learned` is what the weights file holds."""
        return Objective(
            self.embedder,
            self.metric,
            self.loss,
            self.head,
            self.miner,
            self.learned,
            self.sampler.layout,
        )


@contextmanager
def _naming(classes: tuple[str, ...]) -> Iterator[None]:
    """A class too small is named, not numbered."""
    try:
        yield
    except ClassTooSmallError as error:
        raise error.named(classes) from error


def build(config: RunConfig, registry: Registry, dataset: Dataset | None = None) -> Parts:
    """Make every part, but the dataset where it is given; nothing is decoded yet.

    Raises ConfigError for what a part refuses, DataError for classes too small, PluginError for a
    part that is not what its kind must be.
    """
    origins: dict[str, str] = {}
    known: dict[str, Any] = {}

    def named(kind: str, chosen: Chosen) -> Registered:
        entry = registry.get(kind, chosen.name)
        origins[f"{kind} {entry.qualified}"] = f"{entry.provider} {entry.version}"
        return entry

    def part(kind: str, chosen: Chosen, *arguments: Any) -> Any:
        entry = named(kind, chosen)
        return make(entry, chosen.options, *arguments, seed=config.seed, **known)

    data = named("dataset", config.dataset)
    if dataset is None:
        dataset = make(data, config.dataset.options)  # the same images under every seed
    split = split_classes(dataset, config.split)
    shape = dataset[0].shape
    # The first part: how long an embedding is may matter to the others.
    backbone = part("backbone", config.backbone, shape)
    known["embedding_dim"] = backbone.embedding_dim
    metric, loss, miner, head, adapter, learner = (
        part(kind, getattr(config, kind))
        for kind in ("metric", "loss", "miner", "head", "adapter", "learner")
    )
    lists = {
        key: tuple(part(kind, chosen) for chosen in getattr(config, key))
        for key, kind in LISTS.items()
    }
    with _naming(dataset.classes):
        training = only(dataset.labels, class_ids(dataset, split.train))
        sampler = part("sampler", config.sampler, training, dataset.groups)
        episodes = k_shot_episodes(dataset, split, config.evaluation)
        pairs = verification_pairs(dataset, split, config.evaluation)
    proxies = proxies_of(sampler, loss, backbone.embedding_dim, config.seed)
    learned = Learned(backbone, metric, loss, head, proxies)
    mx.eval(learned.parameters())
    embedder = Embedder(backbone, lists["preprocess"], **attrs.asdict(config.embedding))
    return Parts(
        config, origins, dataset, split, embedder, metric, loss, head, adapter, sampler, miner,
        learner, learned, lists["observers"], lists["augment"], episodes, pairs, shape,
    )  # fmt: skip


def initialise(parts: Parts, registry: Registry) -> bool:
    """Give the parts the weights that they have from elsewhere; whether any part had such.

    Raises PluginError, naming the component, where it changes a parameter's name or shape.
    """
    done = False
    for kind in LEARNED:
        chosen = getattr(parts.config, kind)
        entry = registry.get(kind, chosen.name)
        if entry.component.initialise is None:
            continue
        before = parameter_shapes(parts.learned)
        made = parts.embedder.backbone if kind == "backbone" else getattr(parts, kind)
        with keyed(parts.config.seed, f"{kind} initialise"):
            entry.component.initialise(made, chosen.options)
        changed = late_parameters(parts.learned, before)
        if changed:
            raise PluginError(
                f"{kind} '{entry.qualified}': `initialise` changed the name or shape of "
                f"{', '.join(changed[:3])}: the factory makes every parameter as it stays"
            )
        done = True
    mx.eval(parts.learned.parameters())
    return done


def check(parts: Parts) -> None:
    """Refuse, before anything is decoded, what cannot be trained.

    Raises ConfigError for parts that do not fit, nothing to train and transforms in the wrong list,
    DataError for classes too small to validate on.
    """
    try:
        check_fits(
            parts.embedder, parts.sampler, parts.loss, parts.metric, parts.head, parts.miner,
            parts.learner,
        )  # fmt: skip
        draw = parts.sampler.draw(parts.config.seed, 0)
        check_learned(parts.objective, draw, parts.shape, parts.config.training.steps)
    except ConfigError as error:
        named = ("loss", "sampler", "miner", "metric", "head", "learner")
        listed = ", ".join(f"{kind} '{getattr(parts.config, kind).name}'" for kind in named)
        raise ConfigError(f"{listed}: {error}") from error
    make_optimizer(parts.config.training)
    validation_of(parts)
    copies = np.repeat(parts.dataset[0][None], 8, axis=0).astype(np.float32) / np.float32(255)

    def tried(where: str, transform: Transform, key: int) -> NDArray[np.float32]:
        changed = transform(copies.copy(), generator(key, "check"))
        if getattr(changed, "shape", None) != copies.shape or changed.dtype != np.float32:
            raise ConfigError(f"{where} does not give float32 images of the shape it was given")
        return changed

    for chosen, transform in zip(parts.config.augment, parts.augment, strict=True):
        where = f"augment: '{chosen.name}'"
        changed = tried(where, transform, 0)
        if changed.min() < 0 or changed.max() > 1:
            raise ConfigError(f"{where} leaves [0, 1]; it belongs in preprocess")
    for chosen, transform in zip(parts.config.preprocess, parts.embedder.preprocess, strict=True):
        where = f"preprocess: '{chosen.name}'"
        if not np.array_equal(tried(where, transform, 0), tried(where, transform, 1)):
            raise ConfigError(f"{where} is random; it belongs in augment")


def validation_of(parts: Parts) -> Callable[[], Mapping[str, float]] | None:
    """What early stopping asks of these parts; None without validation classes."""
    config = parts.config
    with _naming(parts.dataset.classes):
        return validation(
            parts.embedder,
            parts.dataset,
            parts.split,
            parts.head,
            parts.metric,
            config.evaluation.groups[0],
            config.training.validation_pool,
        )

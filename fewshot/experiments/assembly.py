"""From a configuration to the parts it names, checked before anything is decoded."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import asdict, frozen
from numpy.typing import NDArray

from ..catalogue.kinds import LEARNED, LISTS, PARTS
from ..catalogue.registry import Registry, make
from ..compute.modules import is_frozen, late_parameters, parameter_shapes, snapshot
from ..compute.randomness import keyed
from ..core.draws import Draw, EpisodeBlock, Ints, Pairs
from ..core.errors import ClassTooSmallError, ConfigError, PluginError
from ..core.interfaces import (
    Adapter,
    Dataset,
    Head,
    Learner,
    Loss,
    Metric,
    Miner,
    Mixer,
    Observer,
    Optimizer,
    Sampler,
    Transform,
)
from ..core.seeding import generator
from ..data.embedded import Kept, kept
from ..data.images import Shape
from ..data.split import ClassSplit, class_ids, only, split_classes
from ..engine.objective import (
    Learned,
    Objective,
    check_fits,
    check_learned,
    proxies_of,
    require_made,
)
from ..engine.protocol import (
    Setting,
    ValidationDraws,
    k_shot_episodes,
    validation_draws,
    verification_pairs,
)
from ..engine.training import learning_rate, scheduled_steps
from ..parts.backbones import Beside
from ..parts.embedder import Centre, Embedder, EmbeddingOptions
from .config import Chosen, RunConfig, from_table, to_table
from .schema import Tree, inner_parts


@frozen
class Parts:
    """Everything a configuration names, made; without a sampler where no step is taken.

    The optimizer is for one training.
    """

    config: RunConfig
    origins: dict[str, str]
    dataset: Dataset
    split: ClassSplit
    embedder: Embedder
    metric: Metric
    loss: Loss
    head: Head
    other_heads: dict[str, Head]
    adapter: Adapter[Embedder]
    sampler: Sampler[Draw] | None
    miner: Miner
    mixer: Mixer
    learner: Learner
    optimizer: Optimizer
    learned: Learned
    observers: tuple[Observer, ...]
    augment: tuple[Transform, ...]
    shape: Shape

    @property
    def training_images(self) -> Ints:
        """Indices of all images of the training classes."""
        known = class_ids(self.dataset, self.split.train)
        return np.flatnonzero(only(self.dataset.labels, known) >= 0)

    @property
    def of_centre(self) -> dict[str, mx.array]:
        """What the centre has, by its names in the weights file; {} where there is none."""
        centre = self.embedder.centre
        return {} if centre is None else {f"centre.{name}": a for name, a in snapshot(centre)}

    @property
    def objective(self) -> Objective:
        """What training makes small; `learned` is what the weights file holds.

        Raises ConfigError where there is no sampler.
        """
        if self.sampler is None:
            raise ConfigError("nothing is trained, as training.steps is 0: there is no objective")
        return Objective(
            self.embedder,
            self.metric,
            self.loss,
            self.head,
            self.miner,
            self.learned,
            self.sampler.layout,
        )


@frozen
class Draws:
    """What parts are examined on: by setting, pairs to choose on and to test, while training."""

    episodes: dict[Setting, list[EpisodeBlock]]
    pairs: tuple[Pairs, Pairs] | None
    validation: ValidationDraws | None


@contextmanager
def _naming(classes: tuple[str, ...]) -> Iterator[None]:
    """A class too small is named, not numbered."""
    try:
        yield
    except ClassTooSmallError as error:
        raise error.named(classes) from error


def network(
    registry: Registry,
    shape: Shape,
    seed: int,
    backbone: Chosen,
    preprocess: Iterable[Chosen],
    embedding: EmbeddingOptions,
    metric: Chosen,
    head: Chosen,
    saved: Mapping[str, Any] | None = None,
) -> tuple[Embedder, Metric, Head]:
    """An embedder of images of a shape, the metric and the head, untrained.

    The one way these are made, for a run and for every use of what it trained, whose weights are
    `saved`: they are put in afterwards.
    """
    of_backbone = {
        name.removeprefix("backbone."): array
        for name, array in (saved or {}).items()
        if name.startswith("backbone.")
    }

    def part(kind: str, chosen: Chosen, *arguments: Any, **known: Any) -> Any:
        entry = registry.get(kind, chosen.name)
        return make(entry, chosen.options, *arguments, seed=seed, **known)

    net = part("backbone", backbone, shape, saved=of_backbone)
    dim = net.embedding_dim  # may matter to the others
    transforms = tuple(part("transform", chosen) for chosen in preprocess)
    centre = None
    if embedding.centre != "none":
        of = net.frozen() if isinstance(net, Beside) else None
        centre = Centre(dim, embedding.centre == "whiten", of)
    embedder = Embedder(net, transforms, **asdict(embedding) | {"centre": centre})
    return (
        embedder,
        part("metric", metric, embedding_dim=dim),
        part("head", head, embedding_dim=dim, has_text=hasattr(net, "text")),
    )


def origins(registry: Registry, parts: Iterable[tuple[str, Chosen]]) -> dict[str, str]:
    """By kind and qualified name: which release of which plugin makes each part."""
    entries = []
    for kind, chosen in parts:
        entries.append(registry.get(kind, chosen.name))
        entries.extend(inner.entry for inner in inner_parts(chosen.options))
    return {f"{e.kind} {e.qualified}": f"{e.provider} {e.version}" for e in entries}


def build(
    config: RunConfig,
    registry: Registry,
    dataset: Dataset | None = None,
    saved: Mapping[str, Any] | None = None,
) -> Parts:
    """Make every part, but the dataset where it is given; nothing is drawn or decoded yet.

    Raises ConfigError for what a part refuses, DataError for classes too small, PluginError for a
    part that is not what its kind must be.
    """
    chosen = [(kind, getattr(config, kind)) for kind in PARTS]
    chosen += [(kind, one) for key, kind in LISTS.items() for one in getattr(config, key)]
    made_by = origins(registry, chosen)
    if dataset is None:  # the same images under every seed
        entry = registry.get("dataset", config.dataset.name)
        dataset = make(entry, config.dataset.options)
    split = split_classes(dataset, config.split, config.needs_training_classes)
    shape = dataset[0].shape
    embedder, metric, head = network(
        registry, shape, config.seed, config.backbone, config.preprocess, config.embedding,
        config.metric, config.head, saved,
    )  # fmt: skip
    dim = embedder.backbone.embedding_dim

    def part(kind: str, chosen: Chosen, *arguments: Any, **known: Any) -> Any:
        entry = registry.get(kind, chosen.name)
        given = {"embedding_dim": dim, **known}
        return make(entry, chosen.options, *arguments, seed=config.seed, **given)

    loss, miner, mixer = (part(kind, getattr(config, kind)) for kind in ("loss", "miner", "mixer"))
    learner = part("learner", config.learner, backbone=embedder.backbone)
    adapter = part("adapter", config.adapter, learner=learner, loss=loss, head=head)
    other_heads = {name: _unlearned(registry, name, dim) for name in config.evaluation.heads}
    schedule = part("schedule", config.schedule, scheduled_steps(config.training))
    optimizer = part("optimizer", config.optimizer, learning_rate(config.training, schedule))
    augment = tuple(part("transform", one) for one in config.augment)
    observers = tuple(part("observer", one) for one in config.observers)
    sampler, proxies = None, None
    if config.training.steps:
        with _naming(dataset.classes):
            training = only(dataset.labels, class_ids(dataset, split.train))
            role, parents = (getattr(dataset, name, None) for name in ("role", "parents"))
            sampler = part(
                "sampler", config.sampler, training, dataset.groups, role=role, parents=parents
            )
        proxies = proxies_of(sampler, loss, dim, config.seed)
    learned = Learned(
        embedder.backbone, metric, loss, head, proxies, embedder.centre, learner.module
    )
    mx.eval(learned.parameters())
    return Parts(
        config, made_by, dataset, split, embedder, metric, loss, head, other_heads, adapter,
        sampler, miner,
        mixer, learner, optimizer, learned, observers, augment, shape,
    )  # fmt: skip


def _unlearned(registry: Registry, name: str, embedding_dim: int) -> Head:
    """A head as it is by default. Raises ConfigError for one with learned parts."""
    entry = registry.get("head", name)
    head: Head = make(entry, entry.component.options(), seed=0, embedding_dim=embedding_dim)
    if head.module is not None:
        raise ConfigError(
            f"evaluation.heads: '{name}' has learned parts, which are trained with a run of its "
            f"own: fewshot run --head {name}"
        )
    return head


def initialise(parts: Parts, registry: Registry) -> bool:
    """Give the parts the weights that they have from elsewhere; whether any part had such.

    Raises PluginError, naming the component, where it changes a parameter's name or shape.
    """
    made = {kind: getattr(parts, kind) for kind in LEARNED if kind != "backbone"}
    return give_weights(
        registry, parts.config, {"backbone": parts.embedder.backbone, **made}, parts.learned
    )


def give_weights(
    registry: Registry, config: RunConfig, parts: Mapping[str, Any], learned: Learned
) -> bool:
    """`initialise` of some parts by their kinds, of which `learned` has the weights."""
    done = False
    for kind, made in parts.items():
        chosen = getattr(config, kind)
        entry = registry.get(kind, chosen.name)
        if entry.component.initialise is None:
            continue
        before = parameter_shapes(learned)
        with keyed(config.seed, f"{kind} initialise"):
            entry.component.initialise(made, chosen.options)
        changed = late_parameters(learned, before)
        if changed:
            raise PluginError(
                f"{kind} '{entry.qualified}': `initialise` changed the name or shape of "
                f"{', '.join(changed[:3])}: the factory makes every parameter as it stays"
            )
        done = True
    mx.eval(learned.parameters())
    return done


def embedded(parts: Parts, warn: Callable[[str], None]) -> Kept | None:
    """What is kept on disk of embeddings by these very weights, made in this very way.

    None where training changes the backbone, and where the cache is turned off.
    """
    config, backbone, centre = parts.config, parts.embedder.backbone, parts.embedder.centre
    if not is_frozen(backbone):
        return None
    five = config.embedding.crops == "five"  # corners of support images are images of their own
    way = {
        "fewshot": version("fewshot"),
        "shape": parts.shape,
        "parts": [to_table(chosen) for chosen in (config.backbone, *config.preprocess)],
        "origins": [o for o in parts.origins.items() if o[0].startswith(("backbone ", "transf"))],
        "embedding": asdict(config.embedding) | {"crops": "five" if five else "one"},
    }
    digest = sha256(json.dumps(way, sort_keys=True).encode())
    for name, array in [*snapshot(backbone), *([] if centre is None else snapshot(centre))]:
        numbers = np.ascontiguousarray(array)
        digest.update(f"{name} {numbers.shape} {numbers.dtype}\0".encode())
        digest.update(numbers.data)
    return kept(digest.hexdigest()[:32], warn)


def _require_text(parts: Parts) -> None:
    """Raise ConfigError for names that are to answer, and nobody reads, or that stay behind."""
    zero, config = 0 in parts.config.evaluation.k_shot, parts.config
    if zero and not hasattr(parts.embedder.backbone, "text"):
        raise ConfigError(
            f"K = 0 is answered by the names of classes, which backbone '{config.backbone.name}' "
            "does not read: --k-shot from 1, or a backbone with text"
        )
    moves = {
        f"adapter '{config.adapter.name}'": config.adapter.name != "none",
        f"embedding.centre={config.embedding.centre}": parts.embedder.centre is not None,
    }
    for what in (what for what, does in moves.items() if does and (zero or parts.head.names)):
        raise ConfigError(
            f"{what} moves embeddings of images, and those of names no longer lie near them: do "
            "without, or --k-shot from 1 and --set head.names=false"
        )


def unlike_implied(registry: Registry, backbone: str, tree: Tree) -> list[str]:
    """Lines about what a backbone implies and the configuration `tree` has otherwise."""
    lines = []
    for key, due in registry.get("backbone", backbone).component.implies.items():
        if key in LISTS:
            made = [to_table(from_table(registry, LISTS[key], table, key)) for table in due]
            pairs = [(key, made, tree[key])]
        else:
            pairs = [(f"{key}.{k}", v, tree[key][k]) for k, v in due.items() if k in tree[key]]
        lines += [
            f"backbone '{backbone}' implies {what} = {wanted}, not {given}"
            for what, wanted, given in pairs
            if wanted != given
        ]
    return lines


def drawn(parts: Parts) -> Draws:
    """What the parts are examined on.

    Raises DataError where classes are too small for it, ConfigError where names cannot answer.
    """
    dataset, split, options = parts.dataset, parts.split, parts.config.evaluation
    _require_text(parts)
    pool = parts.config.training.validation_pool
    with _naming(dataset.classes):
        return Draws(
            k_shot_episodes(
                dataset,
                split,
                options,
                leave_one=not parts.config.training.steps,
                together=parts.head.queries == "together",
            ),
            verification_pairs(dataset, split, options),
            validation_draws(dataset, split, options.groups[0], pool),
        )


def check(parts: Parts) -> Draws:
    """What the parts are examined on; before anything is decoded, refuse what cannot be trained.

    Raises ConfigError for parts that do not fit, nothing to train and transforms in the wrong list,
    DataError for classes too small to examine.
    """
    try:
        if parts.sampler is None:
            require_made(
                parts.learned, lambda: parts.embedder.backbone(mx.zeros((1, *parts.shape)))
            )
        else:
            check_fits(
                parts.embedder, parts.sampler, parts.loss, parts.metric, parts.head, parts.miner,
                parts.learner, parts.mixer,
            )  # fmt: skip
            draw = parts.sampler.draw(parts.config.seed, 0)
            check_learned(parts.objective, draw, parts.shape)
    except ConfigError as error:
        named = ("loss", "sampler", "miner", "mixer", "metric", "head", "learner")
        listed = ", ".join(f"{kind} '{getattr(parts.config, kind).name}'" for kind in named)
        raise ConfigError(f"{listed}: {error}") from error
    draws = drawn(parts)
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
    if parts.mixer.mix is not None:
        where, rows = f"mixer '{parts.config.mixer.name}'", np.eye(8, dtype=np.float32)
        mixed, targets = parts.mixer.mix(copies.copy(), rows.copy(), generator(0, "check"))
        for found, given in ((mixed, copies), (targets, rows)):
            if getattr(found, "shape", None) != given.shape or found.dtype != np.float32:
                raise ConfigError(f"{where} does not give float32 of the shapes it was given")
    for chosen, transform in zip(parts.config.preprocess, parts.embedder.preprocess, strict=True):
        where = f"preprocess: '{chosen.name}'"
        if not np.array_equal(tried(where, transform, 0), tried(where, transform, 1)):
            raise ConfigError(f"{where} is random; it belongs in augment")
    return draws

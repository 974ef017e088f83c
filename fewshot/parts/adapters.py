"""K-shot training: embedders fitted to a support set, for new classes."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from attrs import evolve, frozen
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from ..compute.modules import copied, parameter_count
from ..core.components import Component
from ..core.draws import Ints
from ..core.errors import ConfigError, TrainingError
from ..core.interfaces import Adapter, Metric, Transform
from ..core.options import NoOptions, above, at_least, at_most, option, positive, share, within
from ..core.seeding import generator
from .embedder import Embedder
from .heads.prototypes import nearest_prototype
from .learners import descend
from .losses.scores import PrototypicalOptions, prototypical
from .transforms import ColourOptions, CropOptions, colour_jitter, random_resized_crop

Images = NDArray[np.uint8]

_part = within(above(0.0), at_most(1.0))
_CROP_HELP = "smallest share of an image's area in a random crop; 1: no crop"
_COLOUR_HELP = "strength of random brightness, contrast and saturation; 0: none"


def _own(embedder: Embedder) -> Embedder:
    """A copy in eval mode: batch norm keeps its statistics, so that a single image will do.

    It keeps the centre, that of the training classes before adapting.
    """
    backbone, centre = copied(embedder.backbone).eval(), copied(embedder.centre)
    return evolve(embedder, backbone=backbone, centre=centre)


def _sorted(images: Images, labels: Ints) -> tuple[Images, Ints]:
    """By label, then by content: the order in which the support came has no effect."""
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return images[order], labels[order]


def _augment(crop: float, colour: float) -> list[Transform]:
    return [
        random_resized_crop(CropOptions(min_scale=crop)),
        colour_jitter(ColourOptions(colour, colour, colour)),
    ]


def none(_: NoOptions = NoOptions()) -> Adapter[Embedder]:
    """No training: a copy of the embedder."""

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        return _own(embedder)

    return adapt


@frozen
class FinetuneOptions:
    """Options of finetune."""

    steps: int = option(20, "optimizer steps (Adam)", at_least(0))
    learning_rate: float = option(1e-4, "constant", positive)
    layers: int = option(2, "the last layers with weights that are trained; 0: all", at_least(0))
    per_class: int = option(2, "images of a class for its prototype, and as queries", positive)
    temperature: float = option(0.1, "distances are divided by it before the softmax", positive)
    crop: float = option(0.6, _CROP_HELP, _part)
    colour: float = option(0.3, _COLOUR_HELP, share)


def finetune(options: FinetuneOptions = FinetuneOptions()) -> Adapter[Embedder]:
    """Prototypical training (Snell et al. 2017) on episodes made of the support alone.

    Each step draws images of every class, twice, and augments them: the first make the prototypes,
    the second are the queries. They differ where the class has enough images; with one, they are
    two views of it. Batch norm keeps its statistics, nothing is dropped. The order of the support
    does not matter. Raises ConfigError for a frozen backbone, TrainingError where the loss is no
    longer finite.
    """
    augment = _augment(options.crop, options.colour)
    head, loss = nearest_prototype(), prototypical(PrototypicalOptions(options.temperature))

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = _sorted(images, labels)
        mine, n_way = _own(embedder), int(labels.max()) + 1
        alone = evolve(mine, crops="one")
        pools = [np.flatnonzero(labels == label) for label in range(n_way)]
        truth = mx.array(np.repeat(np.arange(n_way), options.per_class))
        _require_trainable("finetune", mine.backbone, options.steps)
        model = _last(mine.backbone, options.layers)
        optimizer = optimizers.Adam(options.learning_rate, bias_correction=True)

        def objective(pixels: mx.array) -> mx.array:
            support, query = mx.split(alone(pixels), 2)
            return loss.fn(head(support, truth, query, metric, n_way), truth).mean()

        gradient = nn.value_and_grad(model, objective)
        for step in range(options.steps):
            rng = generator(seed, "finetune", step)
            drawn = [_drawn(rng, pool, 2 * options.per_class) for pool in pools]
            items = np.stack(drawn).reshape(n_way, 2, -1).swapaxes(0, 1).ravel()
            pixels = embedder.prepared(images[items], augment, rng)
            value, gradients = gradient(mx.array(pixels))
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state, value)
            if not np.isfinite(value.item()):
                raise TrainingError(
                    f"finetune: the loss is {value.item()} at step {step + 1}: lower "
                    "adapter.learning_rate"
                )
        return mine

    return adapt


def _require_trainable(adapter: str, backbone: nn.Module, steps: int) -> None:
    if steps and not parameter_count(backbone):
        raise ConfigError(
            f"adapter '{adapter}' trains the backbone, which is frozen: --set "
            "backbone.frozen=false, where it has that option, or --adapter whiten"
        )


def _drawn(rng: np.random.Generator, pool: Ints, count: int) -> Ints:
    """`count` of a pool, each as often as any other, give or take one."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def _last(backbone: nn.Module, count: int) -> nn.Module:
    """The last `count` layers with weights, or all, as one module that shares them."""
    if count == 0:
        return backbone
    leaves: Any = tree_flatten(backbone.leaf_modules(), is_leaf=lambda x: isinstance(x, nn.Module))
    layers = [layer for _, layer in leaves if tree_flatten(layer.trainable_parameters())]
    model = nn.Module()
    model.layers = layers[-count:]
    return model


@frozen
class MamlOptions:
    """Options of the steps that a network trained by the learner maml takes on a support."""

    inner_steps: int = option(3, "gradient steps on the support", at_least(0))
    inner_rate: float = option(0.01, "learning rate of these steps", positive)
    temperature: float = option(1.0, "distances are divided by it before the softmax", positive)


def maml(options: MamlOptions = MamlOptions()) -> Adapter[Embedder]:
    """Gradient steps on the support asked about itself (Finn, Abbeel & Levine 2017).

    What the learner maml does in its inner steps, with the loss prototypical and the head
    nearest-prototype: the options should be those of the training. Batch norm keeps its
    statistics, nothing is dropped. The order of the support does not matter. Raises
    ConfigError for a frozen backbone, TrainingError where the loss is no longer finite.
    """
    head, loss = nearest_prototype(), prototypical(PrototypicalOptions(options.temperature))

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = _sorted(images, labels)
        mine, n_way, truth = _own(embedder), int(labels.max()) + 1, mx.array(labels)
        _require_trainable("maml", mine.backbone, options.inner_steps)
        alone = evolve(mine, crops="one")
        pixels = mx.array(embedder.prepared(images))

        def objective() -> mx.array:
            support = alone(pixels)
            return loss.fn(head(support, truth, support, metric, n_way), truth).mean()

        descend(mine.backbone, objective, options.inner_steps, options.inner_rate)
        value = objective()
        mx.eval(mine.backbone.parameters(), value)
        if not np.isfinite(value.item()):
            raise TrainingError(f"maml: the loss is {value.item()}: lower adapter.inner_rate")
        return mine

    return adapt


@frozen
class WhitenOptions:
    """Options of whiten."""

    shrinkage: float = option(0.8, "weight of the unit matrix; 1: no change", _part)
    views: int = option(5, "augmented copies of every support image", positive)
    crop: float = option(0.6, _CROP_HELP, _part)
    colour: float = option(0.3, _COLOUR_HELP, share)


class Mapped(nn.Module):
    """A backbone, its embeddings times a matrix (d, d): (b, h, w, c) -> (b, d)."""

    def __init__(self, backbone: nn.Module, matrix: mx.array) -> None:
        super().__init__()
        self.backbone = backbone
        self.matrix = matrix
        self.embedding_dim = matrix.shape[1]

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        return self.backbone(images) @ self.matrix


def whiten(options: WhitenOptions = WhitenOptions()) -> Adapter[Embedder]:
    """Within-class covariance normalisation (Hatch, Kajarekar & Stolcke 2006), embeddings frozen.

    Embeddings are multiplied by C^(-1/2), C being the covariance of the support's augmented copies
    about their class's mean, shrunk towards the unit matrix: directions in which images of one
    class differ count less. Scaled so that C equal in all directions changes nothing; nor does a
    support without any spread. The order of the support does not matter.
    """
    augment = _augment(options.crop, options.colour)

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = _sorted(images, labels)
        mine, rows = _own(embedder), []
        for view in range(options.views):
            rng = generator(seed, "whiten", view)
            for block in np.array_split(images, -(-len(images) // 128)):
                pixels = embedder.prepared(block, augment, rng)
                rows.append(np.array(mine(mx.array(pixels))))
        of_row = np.tile(labels, options.views)
        matrix = _inverse_root(np.concatenate(rows).astype(np.float64), of_row, options.shrinkage)
        # Under l2 the lengths of the frozen embeddings need not be 1: the products' will be.
        backbone = Mapped(mine.backbone, mx.array(matrix.astype(np.float32)))
        if mine.centre is not None:
            mine.centre.mean = mine.centre.mean @ backbone.matrix  # (x − c) C^(-1/2)
        return evolve(mine, backbone=backbone.eval())

    return adapt


def _inverse_root(rows: NDArray[np.float64], labels: Ints, shrinkage: float) -> NDArray[np.float64]:
    """(n, d), (n,) -> C^(-1/2) (d, d) of the shrunk covariance about the classes' means."""
    d = rows.shape[1]
    members = np.eye(labels.max() + 1)[labels]
    centred = rows - members @ (members.T @ rows / members.sum(axis=0)[:, None])
    covariance = centred.T @ centred
    mean = np.trace(covariance) / d
    if mean <= (10 * np.finfo(np.float32).eps) ** 2 * np.square(rows).mean():
        return np.eye(d)  # nothing but rounding
    shrunk = (1 - shrinkage) * covariance / mean + shrinkage * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    return (vectors / np.sqrt(values)) @ vectors.T


COMPONENTS = (
    Component("none", none, summary="the embedder as it was trained"),
    Component(
        "finetune",
        finetune,
        FinetuneOptions,
        "a few prototypical steps on augmented support images",
    ),
    Component(
        "maml",
        maml,
        MamlOptions,
        "gradient steps on the support, as the learner maml trains for",
    ),
    Component(
        "whiten",
        whiten,
        WhitenOptions,
        "a linear map of frozen embeddings: their spread within classes made alike",
    ),
)

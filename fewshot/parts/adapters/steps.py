"""Adapters that take gradient steps on episodes made of the support."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from attrs import evolve, frozen
from mlx.utils import tree_flatten, tree_unflatten

from ...compute.modules import parameter_count
from ...core.components import Component
from ...core.draws import Ints
from ...core.errors import ConfigError, TrainingError
from ...core.interfaces import Adapter, Metric
from ...core.options import (
    at_least,
    option,
    positive,
    share,
)
from ...core.seeding import generator
from ..embedder import Embedder
from ..heads.prototypes import nearest_prototype
from ..losses.scores import PrototypicalOptions, prototypical
from .copies import COLOUR_HELP, CROP_HELP, SHARE, Images, augmentation, in_order, own, rows_of


@frozen
class StepsOptions:
    """Options of adapters that take gradient steps on episodes made of the support."""

    steps: int = option(20, "optimizer steps (Adam), at the most", at_least(0))
    learning_rate: float = option(
        0.0, "constant; 0: it and the steps are chosen from the support", at_least(0.0)
    )
    per_class: int = option(2, "images of a class for its prototype, and as queries", positive)
    temperature: float = option(0.1, "distances are divided by it before the softmax", positive)
    crop: float = option(0.6, CROP_HELP, SHARE)
    colour: float = option(0.3, COLOUR_HELP, share)


@frozen
class FinetuneOptions(StepsOptions):
    """Options of finetune."""

    layers: int = option(2, "the last layers with weights that are trained; 0: all", at_least(0))
    train_from: int = option(
        0,
        "in place of layers, the first block that is trained, counted from 1, with all after it, "
        "of a backbone that names its blocks",
        at_least(0),
    )
    only: Literal["all", "bias-norm"] = option(
        "all", "what of these layers: all, or the biases of all and the weights of norms alone"
    )


# What is trained of a copy of a backbone, and what puts it, changed, into its place.
_Trained = tuple[dict[str, mx.array], Callable[[dict[str, mx.array]], None]]
_Start = Callable[[nn.Module, int], _Trained]


def finetune(options: FinetuneOptions = FinetuneOptions()) -> Adapter[Embedder]:
    """Prototypical training (Snell et al. 2017, eq. 2) on episodes made of the support alone.

    Each step draws images of every class, twice, and augments them: the first make the prototypes,
    the second are the queries. They differ where the class has enough images; with one, they are
    two views of it. Batch norm keeps its statistics, nothing is dropped, the rest of the network
    stays byte for byte. Biases and norms alone are BitFit (Ben Zaken, Goldberg & Ravfogel 2022).

    Chosen, learning rate and steps are those of least loss of a share of the support, a quarter of
    each class that has two images, after training on the rest: of 0.0001 and 0.001, after each
    quarter of the steps and after none. Where no class has two, 0.0001 and all steps.

    The order of the support does not matter. Raises ConfigError for a frozen backbone and for a
    block that it has not, TrainingError where the loss is no longer finite.
    """

    def start(backbone: nn.Module, _: int) -> _Trained:
        if options.steps and not parameter_count(backbone):
            raise ConfigError(
                "adapter 'finetune' trains the backbone, which is frozen: --set "
                "backbone.frozen=false, where it has that option, or --adapter linear-probe"
            )
        if options.train_from:
            trained = _blocks(backbone, options.train_from)
        else:
            trained = _last(backbone, options.layers)
        flat = [dict(_flat(part, options.only == "bias-norm")) for part in trained]
        if options.steps and not any(flat):
            raise ConfigError(
                "adapter.only is 'bias-norm', and the layers that are trained have neither biases "
                "nor norms: adapter.layers=0 takes all"
            )

        def put(arrays: dict[str, mx.array]) -> None:
            for i, (part, names) in enumerate(zip(trained, flat, strict=True)):
                part.update(tree_unflatten([(name, arrays[f"{i}.{name}"]) for name in names]))

        return {f"{i}.{name}": a for i, part in enumerate(flat) for name, a in part.items()}, put

    return _by_steps("finetune", start, options, (1e-4, 1e-3))


_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm)


def _flat(part: nn.Module, bias_norm: bool) -> Iterator[tuple[str, mx.array]]:
    """Names and arrays of what is trained: all, or the biases and the weights of norms."""
    owners = dict(part.named_modules())
    flat: Any = tree_flatten(part.trainable_parameters())
    for path, array in flat:
        owner, _, name = path.rpartition(".")
        if not bias_norm or name == "bias" or isinstance(owners.get(owner), _NORMS):
            yield path, array


def _last(backbone: nn.Module, count: int) -> list[nn.Module]:
    """The last `count` layers with weights, or the whole backbone for 0."""
    if count == 0:
        return [backbone]
    layers = [part for part in _layers(backbone) if tree_flatten(part.trainable_parameters())]
    return layers[-count:]


def _layers(module: nn.Module) -> list[nn.Module]:
    """The innermost modules, in order."""
    leaves: Any = tree_flatten(module.leaf_modules(), is_leaf=lambda x: isinstance(x, nn.Module))
    return [layer for _, layer in leaves]


def _blocks(backbone: nn.Module, first: int) -> list[nn.Module]:
    """The modules of the blocks from this one on."""
    blocks = backbone.block_names() if hasattr(backbone, "block_names") else []
    if not blocks:
        raise ConfigError(
            f"adapter.train_from is {first}, and this backbone names no blocks: adapter.layers "
            "counts its last layers"
        )
    if first > len(blocks):
        raise ConfigError(
            f"adapter.train_from is {first}: the backbone has blocks 1 to {len(blocks)}"
        )
    parts = dict(backbone.named_modules())
    return [parts[name] for block in blocks[first - 1 :] for name in block]


@frozen
class LoraOptions(StepsOptions):
    """Options of low-rank adaptation."""

    rank: int = option(4, "rank of what is added to a weight matrix; 0: nothing", at_least(0))
    scale: float = option(1.0, "what is added is multiplied by it", positive)
    layers: int = option(0, "the last linear layers that are adapted; 0: all", at_least(0))


def lora(options: LoraOptions = LoraOptions()) -> Adapter[Embedder]:
    """Low-rank changes of the linear layers (LoRA, Hu et al. 2022, eq. 3), trained as `finetune`.

    W + s B A in place of W (out, in), B (out, r) from zeros and A (r, in) from a normal of variance
    1 / in: the network starts as it is. The rest of it stays, byte for byte; frozen weights are
    adapted, too. The sum is put in place of W, so that answers cost what they did. Learning
    rates tried are 0.001 and 0.01. Raises ConfigError for a network without linear layers.
    """

    def start(backbone: nn.Module, seed: int) -> _Trained:
        linear = [layer for layer in _layers(backbone) if isinstance(layer, nn.Linear)]
        if not linear:
            raise ConfigError(
                "adapter 'lora' changes linear layers, and this backbone has none: --adapter "
                "finetune"
            )
        linear = linear[-options.layers :]
        bases = [layer.weight for layer in linear]
        rng, arrays = generator(seed, "lora"), {}
        for i, base in enumerate(bases):
            out, width = base.shape
            drawn = rng.normal(size=(options.rank, width)) / width**0.5
            arrays[f"a{i}"] = mx.array(drawn.astype(np.float32))
            arrays[f"b{i}"] = mx.zeros((out, options.rank))

        def put(arrays: dict[str, mx.array]) -> None:
            for i, (layer, base) in enumerate(zip(linear, bases, strict=True)):
                layer.weight = base + options.scale * (arrays[f"b{i}"] @ arrays[f"a{i}"])

        return (arrays, put) if options.rank else ({}, put)

    return _by_steps("lora", start, options, (1e-3, 1e-2))


def _by_steps(
    who: str, start: _Start, options: StepsOptions, rates: tuple[float, ...]
) -> Adapter[Embedder]:
    """Prototypical training of what `start` says; the first rate is that of too small a support."""
    augment = augmentation(options.crop, options.colour)
    head, loss = nearest_prototype(), prototypical(PrototypicalOptions(options.temperature))

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = in_order(images, labels)
        n_way = int(labels.max()) + 1

        def trained(kept: Ints, rate: float, steps: int) -> Iterator[Embedder]:
            """One embedder, before the first step and after each."""
            mine = own(embedder)
            alone = evolve(mine, crops="one", mirror=False)
            arrays, put = start(mine.backbone, seed)
            pools = [kept[labels[kept] == label] for label in range(n_way)]
            truth = mx.array(np.repeat(np.arange(n_way), options.per_class))
            optimizer = optimizers.Adam(rate, bias_correction=True)

            def objective(arrays: dict[str, mx.array], pixels: mx.array) -> mx.array:
                put(arrays)
                support, query = mx.split(alone(pixels), 2)
                return loss.fn(head(support, truth, query, metric, n_way), truth).mean()

            gradient = mx.value_and_grad(objective)
            yield mine
            for step in range(steps if arrays else 0):
                rng = generator(seed, who, step)
                drawn = [_drawn(rng, pool, 2 * options.per_class) for pool in pools]
                items = np.stack(drawn).reshape(n_way, 2, -1).swapaxes(0, 1).ravel()
                pixels = embedder.prepared(images[items], augment, rng)
                value, gradients = gradient(arrays, mx.array(pixels))
                arrays = optimizer.apply_gradients(gradients, arrays)
                put(arrays)
                mx.eval(arrays, optimizer.state, value)
                if not np.isfinite(value.item()):
                    raise TrainingError(
                        f"{who}: the loss is {value.item()} at step {step + 1}: lower "
                        "adapter.learning_rate"
                    )
                yield mine

        rate, steps = options.learning_rate or rates[0], options.steps
        held = held_out(labels, generator(seed, f"{who} held out"))
        if not options.learning_rate and held.size and steps:
            kept = np.setdiff1d(np.arange(len(labels)), held)

            def asked(mine: Embedder) -> float:
                """The loss of what is held out."""
                rows, truth = mx.array(rows_of(mine, images)), mx.array(labels)
                one, two = mx.array(kept), mx.array(held)
                scores = head(rows[one], truth[one], rows[two], metric, n_way)
                return float(np.array(loss.fn(scores, truth[two]).mean()))

            marks, found = {steps * quarter // 4 for quarter in range(5)}, []
            for each in rates:
                with suppress(TrainingError):  # another rate will do
                    for step, mine in enumerate(trained(kept, each, steps)):
                        if step in marks:
                            found.append((asked(mine), each, step))
            _, rate, steps = min(found)
        *_, mine = trained(np.arange(len(labels)), rate, steps)
        mx.eval(mine.backbone.parameters())
        return mine

    return adapt


def held_out(labels: Ints, rng: np.random.Generator) -> Ints:
    """Positions of a quarter of each class, at least one, that has two images."""
    pools = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return np.concatenate(
        [rng.permutation(pool)[: max(len(pool) // 4, int(len(pool) > 1))] for pool in pools]
    )


def _drawn(rng: np.random.Generator, pool: Ints, count: int) -> Ints:
    """`count` of a pool, each as often as any other, give or take one."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


COMPONENTS = (
    Component(
        "finetune",
        finetune,
        FinetuneOptions,
        "a few prototypical steps on augmented support images",
    ),
    Component(
        "lora",
        lora,
        LoraOptions,
        "finetune by low-rank changes of the linear layers; for a frozen network, too",
    ),
)

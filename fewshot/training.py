"""Training: one step for every kind of draw, schedules, early stopping."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
from numpy.typing import NDArray

from .compute.modules import (
    evaluating,
    late_parameters,
    parameter_count,
    parameter_shapes,
    snapshot,
)
from .compute.streams import on_cpu
from .core.components import History, TrainingOptions
from .core.draws import Draw, DrawLayout, Episode, Labelled, Layout
from .core.errors import ConfigError, TrainingError
from .core.interfaces import Dataset, Head, Loss, Metric, Sampler, Transform
from .core.seeding import generator, mlx_seed
from .data.batches import ahead, load
from .parts.embedder import Embedder

Arrays = Mapping[str, mx.array]

# What a loss reads of a draw.
_PARTS: dict[DrawLayout, tuple[str, ...]] = {
    "pairs": ("left", "right", "same"),
    "triplets": ("anchor", "positive", "negative"),
    "episode": ("support", "support_labels", "query", "query_labels"),
    "labelled": ("labels",),
}

# The draws that a loss of each layout can compare.
_FITS: dict[Layout, tuple[DrawLayout, ...]] = {
    "pairs": ("pairs",),
    "triplets": ("triplets",),
    "episode": ("episode", "labelled"),
}


def _arrays(draw: Draw, layout: DrawLayout) -> Arrays:
    return {name: mx.array(getattr(draw, name)) for name in _PARTS[layout]}


def _n_way(draw: Draw) -> int:
    return draw.n_way if isinstance(draw, Episode) else 0


def _compare(
    embeddings: mx.array,
    draw: Arrays,
    n_way: int,
    metric: Metric,
    loss: Loss,
    head: Head | None,
    proxies: mx.array | None,
) -> mx.array:
    """The loss's values, one per pair, triplet, query or labelled image, of an embedded draw."""
    if loss.layout == "pairs":
        distances = metric.fn(embeddings[draw["left"]], embeddings[draw["right"]])
        return loss.fn(distances, draw["same"])
    if loss.layout == "triplets":
        anchor = embeddings[draw["anchor"]]
        return loss.fn(
            metric.fn(anchor, embeddings[draw["positive"]]),
            metric.fn(anchor, embeddings[draw["negative"]]),
        )
    if proxies is not None:
        return loss.fn(-metric.table(embeddings, proxies), draw["labels"])
    assert head is not None  # `check_fits`
    support, query = embeddings[draw["support"]], embeddings[draw["query"]]
    scores = head.scores(support, draw["support_labels"], query, metric, n_way)
    return loss.fn(scores, draw["query_labels"])


class Learned(nn.Module):
    """Backbone, metric and loss in one module: what training leaves and a checkpoint saves."""

    def __init__(self, backbone: nn.Module, metric: Metric, loss: Loss | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        for name, part in (("metric", metric), ("loss", loss)):
            if part is not None and isinstance(part.fn, nn.Module):
                self[name] = part.fn


def check_fits(
    embedder: Embedder, sampler: Sampler[Draw], loss: Loss, metric: Metric, head: Head | None
) -> None:
    """Raise ConfigError where these cannot be trained together.

    That is: the sampler does not draw what the loss compares, episodes have no head with a
    gradient, or the loss's margin is beyond the metric's bound.
    """
    if sampler.layout not in _FITS[loss.layout]:
        raise ConfigError(
            f"the loss wants '{loss.layout}' draws, the sampler gives '{sampler.layout}': take a "
            "sampler that fits (the command line chooses one where none is named)"
        )
    if sampler.layout == "episode" and (head is None or not head.differentiable):
        raise ConfigError(
            "episodes are trained on through the head, and this one has no gradient: use "
            "nearest-prototype"
        )
    bounded = embedder.normalize == "l2" or "scale_free" in metric.laws
    upper = metric.upper(embedder.backbone.embedding_dim)
    if bounded and loss.margin is not None and loss.margin > upper:
        raise ConfigError(
            f"the loss's margin {loss.margin:g} is out of reach: this metric is at most {upper:g} "
            "between embeddings of length 1"
        )


def check_learned(
    embedder: Embedder,
    sampler: Sampler[Draw],
    loss: Loss,
    metric: Metric,
    head: Head | None,
    shape: tuple[int, int, int],
    steps: int,
) -> None:
    """Raise ConfigError where `steps` steps would train nothing, or a part is not there yet.

    The backbone is asked about an image of `shape`, the rest about a draw's embeddings, all zeros.
    """
    learned = Learned(embedder.backbone, metric, loss)
    _require_trainable(learned, steps)
    draw, d = sampler.draw(0, 0), embedder.backbone.embedding_dim
    proxies = mx.zeros((draw.n_way, d)) if isinstance(draw, Labelled) else None

    def asked() -> None:
        embedder.backbone(mx.zeros((1, *shape)))
        embeddings, n_way = mx.zeros((len(draw.items), d)), _n_way(draw)
        arrays = _arrays(draw, sampler.layout)
        _compare(embeddings, arrays, n_way, metric, loss, head, proxies)

    _require_made(learned, asked)


def _require_trainable(learned: Learned, steps: int) -> None:
    if steps and not parameter_count(learned):
        raise ConfigError(
            "nothing to train: backbone, metric and loss have no weight that is not frozen: "
            "training.steps=0 evaluates them as they are"
        )


def _require_made(learned: Learned, ask: Callable[[], object]) -> None:
    """Ask the parts, in eval mode: nothing is computed, but what is made at a call is made."""
    before = parameter_shapes(learned)
    with evaluating(learned):
        ask()
    if late := late_parameters(learned, before):
        raise ConfigError(
            f"'{late[0]}' is no parameter, or of another shape, until it is first called, and "
            "would not be trained: make it in __init__"
        )


def make_optimizer(options: TrainingOptions) -> optimizers.Optimizer:
    """The optimizer with its learning-rate schedule; ConfigError for a decay that adam ignores."""
    if options.weight_decay and options.optimizer == "adam":
        raise ConfigError("training.weight_decay has no effect with adam: use adamw or sgd")
    rate: Any = options.learning_rate
    if options.schedule == "cosine":
        rate = optimizers.cosine_decay(rate, max(1, options.steps - options.warmup))
    if options.warmup:
        after = rate if callable(rate) else optimizers.linear_schedule(rate, rate, 1)
        rise = optimizers.linear_schedule(0.0, options.learning_rate, options.warmup)
        rate = optimizers.join_schedules([rise, after], [options.warmup])
    if options.optimizer == "sgd":
        return optimizers.SGD(rate, momentum=options.momentum, weight_decay=options.weight_decay)
    if options.optimizer == "adamw":
        return optimizers.AdamW(rate, weight_decay=options.weight_decay, bias_correction=True)
    return optimizers.Adam(rate, bias_correction=True)


def fit(
    embedder: Embedder,
    dataset: Dataset,
    sampler: Sampler[Draw],
    loss: Loss,
    metric: Metric,
    head: Head | None = None,
    options: TrainingOptions = TrainingOptions(),
    augment: Sequence[Transform] = (),
    validate: Callable[[], Mapping[str, float]] | None = None,
    seed: int = 0,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    on_best: Callable[[nn.Module], object] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> History:
    """Train the backbone, metric and loss in place; they end with their best weights, in eval mode.

    `sampler` draws from `dataset` (its indices). `validate()` gives named figures, of which
    "score" (higher is better) decides on the best weights and on early stopping; without it the
    last weights are kept. Every `validate_every` steps `on_record` gets the figures since the last
    time, `on_best` the learned parts when they are the best so far; `progress(step, steps, speed)`
    is called after every step. Ctrl-C ends training as "interrupted" with the best weights so far.
    No step: the weights as they are.

    The same seed, arguments and machine give the same weights. Raises ConfigError where parts do
    not fit (`check_fits`) or leave nothing to train (`check_learned`), TrainingError where the loss
    is no longer finite.
    """
    check_fits(embedder, sampler, loss, metric, head)
    learned = Learned(embedder.backbone, metric, loss)
    _require_trainable(learned, options.steps)
    model = nn.Module()
    model.learned = learned
    if sampler.layout == "labelled":
        first = sampler.draw(seed, 0)
        assert isinstance(first, Labelled)
        mx.random.seed(mlx_seed(seed, "proxies"))
        model.proxies = mx.random.normal((first.n_way, embedder.backbone.embedding_dim))
    optimizer = make_optimizer(options)
    transforms = [*augment, *embedder.preprocess]
    history = History()

    def prepare(step: int) -> tuple[list[Draw], NDArray[np.float32]]:
        first = step * options.draws_per_step
        draws = [sampler.draw(seed, first + i) for i in range(options.draws_per_step)]
        items = np.concatenate([draw.items for draw in draws])
        return draws, load(dataset, items, transforms, generator(seed, "augment", step))

    def objective(
        images: mx.array, draws: list[Arrays], sizes: list[int], n_ways: list[int]
    ) -> tuple[mx.array, mx.array]:
        embeddings = embedder(images)
        proxies = embedder.scaled(model.proxies) if "proxies" in model else None
        values, start = [], 0
        for draw, size, n_way in zip(draws, sizes, n_ways, strict=True):
            part = embeddings[start : start + size]
            values.append(_compare(part, draw, n_way, metric, loss, head, proxies).flatten())
            start += size
        every = mx.concatenate(values)
        return every.mean(), (every > 0).mean()

    gradient = nn.value_and_grad(model, objective)

    def update(*batch: Any) -> tuple[mx.array, mx.array]:
        figures, gradients = gradient(*batch)
        optimizer.update(model, gradients)
        return figures

    optimizer.init(model.trainable_parameters())
    state: list[Any] = [model.state, optimizer.state, mx.random.state]
    if not on_cpu():  # there it wants a C++ compiler and gains 5 %
        update = mx.compile(update, inputs=state, outputs=state)
    best = snapshot(model)
    stale = 0
    images_seen, sums, since = 0, np.zeros(2), 0
    model.train()
    clock = time.perf_counter()
    try:
        for step, (draws, pixels) in enumerate(ahead(prepare, options.steps), start=1):
            batch = (
                mx.array(pixels),
                [_arrays(draw, sampler.layout) for draw in draws],
                [len(draw.items) for draw in draws],
                [_n_way(draw) for draw in draws],
            )
            if step == 1:
                _require_made(learned, partial(objective, *batch))
            mx.random.seed(mlx_seed(seed, "dropout", step))
            value, above_zero = update(*batch)
            mx.eval(state, value, above_zero)
            history.seconds += time.perf_counter() - clock
            images_seen += len(pixels)
            history.steps = step
            if not np.isfinite(value.item()):
                raise TrainingError(
                    f"the loss is {value.item()} at step {step}: lower training.learning_rate"
                )
            sums += np.array([value.item(), above_zero.item()])
            since += 1
            history.images_per_second = images_seen / history.seconds
            if step % options.validate_every == 0 or step == options.steps:
                record: dict[str, Any] = {
                    "step": step,
                    "loss": float(sums[0] / since),
                    "above_zero": float(sums[1] / since),
                    "images_per_second": history.images_per_second,
                }
                sums, since = np.zeros(2), 0
                if validate is not None:
                    record |= validate()
                score = record.get("score")
                better = score is None or history.best_score is None or score > history.best_score
                stale = 0 if better else stale + 1
                if better:
                    best = snapshot(model)
                    history.best_step, history.best_score = step, score
                    if on_best is not None:
                        on_best(learned)
                history.records.append(record)
                if on_record is not None:
                    on_record(record)
            if progress is not None:
                progress(step, options.steps, f"{history.images_per_second:.0f} images/s")
            if options.patience and stale >= options.patience:
                history.stopped = "patience"
                break
            clock = time.perf_counter()
    except KeyboardInterrupt:
        history.stopped = "interrupted"
        if validate is None or not history.records:
            best = snapshot(model)
    finally:
        model.load_weights(best, strict=False)  # of parts that were refused, what there was
        mx.eval(model.parameters())
        model.eval()
    return history

"""Training: one step for every kind of draw, schedules, early stopping."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import Factory, define
from numpy.typing import NDArray

from ..compute.modules import (
    snapshot,
)
from ..compute.streams import on_cpu
from ..core.draws import Draw, Labelled
from ..core.errors import TrainingError
from ..core.interfaces import Dataset, Head, Loss, Metric, Sampler, Transform
from ..core.seeding import generator, mlx_seed
from ..data.batches import ahead, load
from ..parts.embedder import Embedder
from .objective import (
    Arrays,
    Learned,
    _arrays,
    _compare,
    _n_way,
    _require_made,
    _require_trainable,
    check_fits,
)
from .optimizers import TrainingOptions, make_optimizer


@define
class History:
    """What happened in training. `stopped`: "steps", "patience" or "interrupted"."""

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    images_per_second: float = 0.0
    seconds: float = 0.0
    stopped: str = "steps"
    records: list[dict[str, Any]] = Factory(list)


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

"""Training: one step after another, its state, early stopping."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import Factory, define, frozen
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import NDArray

from ..compute.compiling import on_cpu
from ..compute.modules import snapshot
from ..core.draws import Draw, Labelled
from ..core.errors import TrainingError
from ..core.interfaces import (
    Batch,
    Dataset,
    Head,
    Learner,
    Loss,
    Metric,
    Miner,
    Mixer,
    Optimizer,
    Sampler,
    Schedule,
    Transform,
)  # fmt: skip
from ..core.options import at_least, option, positive
from ..core.seeding import generator, mlx_seed
from ..data.batches import ahead, gather
from ..parts.embedder import Embedder
from ..parts.learners import plain
from ..parts.optimizers import AdamOptions, adam
from ..parts.schedules import DecayOptions, cosine
from .objective import (
    Learned,
    Objective,
    batch_of,
    check_fits,
    proxies_of,
    require_made,
    require_trainable,
)


@frozen
class TrainingOptions:
    """How `fit` trains."""

    steps: int = option(300, "optimizer steps at the most", at_least(0))
    draws_per_step: int = option(1, "draws (batches, episodes) in one step", positive)
    learning_rate: float = option(1e-3, "the rate that the schedule's factors multiply", positive)
    warmup: int = option(0, "steps of linear rise from 0, before the schedule", at_least(0))
    validate_every: int = option(50, "steps between two validations", positive)
    patience: int = option(
        8, "validations without a better score before training stops; 0: never", at_least(0)
    )
    validation_pool: int = option(30, "images of a class that validation draws from", at_least(6))
    checkpoint_every: int = option(
        0,
        "steps between two checkpoints, which `fewshot resume` goes on from; 0: every 5 seconds, "
        "fewer where that would take over 1 % of the time",
        at_least(0),
    )


def scheduled_steps(options: TrainingOptions) -> int:
    """The steps that a schedule is made for: those after the warm-up."""
    return max(1, options.steps - options.warmup)


def learning_rate(options: TrainingOptions, schedule: Schedule) -> Callable[[mx.array], mx.array]:
    """The rate at a step (an array): a linear rise, then `learning_rate` times the schedule."""
    rate, warmup = options.learning_rate, options.warmup

    def at(step: mx.array) -> mx.array:
        # Steps are unsigned: what is below the warm-up must not wrap.
        after = rate * schedule(mx.maximum(step, warmup) - warmup)
        return mx.where(step < warmup, step * (rate / warmup), after) if warmup else after

    return at


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


# Draws, their images as they go in, and the targets (b, n_way) of each draw, where mixed.
_Drawn = tuple[list[Draw], NDArray[np.float32], list[NDArray[np.float32]]]


def _mixed(
    mixer: Mixer, draws: Sequence[Draw], images: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """The images of every draw mixed among themselves, and its targets."""
    assert mixer.mix is not None
    out, start = [], 0
    for draw in draws:
        assert isinstance(draw, Labelled)  # `check_fits`
        own = images[start : start + len(draw.items)]
        rows = (draw.labels[:, None] == np.arange(draw.n_way)).astype(np.float32)
        out.append(mixer.mix(own, rows, rng))
        start += len(draw.items)
    mixed, targets = zip(*out, strict=True)
    return np.concatenate(mixed), list(targets)


@frozen
class State:
    """All that the next step depends on: `arrays` by name, and `facts` that JSON can hold."""

    arrays: Mapping[str, mx.array]
    facts: Mapping[str, Any]


class Training:
    """Parts being trained, a step at a time.

    `step()` takes one; `record(figures)` closes a period, as every validation does; `state()` is
    what `restore` goes on from, bit for bit on the same machine: draws, transforms and dropout
    depend on the step's number alone. `best`: the weights of the best score so far. `optimizer`: a
    new one of `mlx.optimizers`, or one's own, with its rate; None: Adam, whose rate is
    `options.learning_rate` after the warm-up and half a cosine to 0 from there. `mixer`: what mixes
    the images of every draw after `augment`.

    Raises ConfigError where there is nothing to train.
    """

    def __init__(
        self,
        objective: Objective,
        dataset: Dataset,
        sampler: Sampler[Draw],
        options: TrainingOptions = TrainingOptions(),
        augment: Sequence[Transform] = (),
        learner: Learner = plain(),
        seed: int = 0,
        optimizer: Optimizer | None = None,
        mixer: Mixer = Mixer(None),
    ) -> None:
        require_trainable(objective.learned, options.steps)
        self.objective, self.options = objective, options
        self.history = History()
        self._dataset, self._sampler, self._learner = dataset, sampler, learner
        self._augment, self._mixer = augment, mixer
        self._seed = seed
        if optimizer is None:
            schedule = cosine(DecayOptions(), scheduled_steps(options))
            optimizer = adam(AdamOptions(), learning_rate(options, schedule))
        self._optimizer = optimizer
        self._optimizer.init(self.learned.trainable_parameters())
        self.best = snapshot(self.learned)
        self._stale, self._images = 0, 0
        self._sums, self._since = np.zeros(2), 0
        self._begin()

    @property
    def learned(self) -> Learned:
        """What is trained."""
        return self.objective.learned

    @property
    def due(self) -> bool:
        """Whether a period is over that `record` has not closed yet."""
        steps, every = self.history.steps, self.options.validate_every
        return self._since > 0 and (steps % every == 0 or steps >= self.options.steps)

    @property
    def ended(self) -> bool:
        """Whether all steps are taken or patience is over."""
        return self.history.steps >= self.options.steps or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether `patience` records in a row brought nothing better."""
        return bool(self.options.patience) and self._stale >= self.options.patience

    def _begin(self) -> None:
        """Get ready to take the step after `history.steps`."""
        done = self.history.steps
        self._batches: Iterator[_Drawn] = ahead(
            lambda i: self._drawn(done + i), max(0, self.options.steps - done)
        )
        self._state = [self.learned.state, self._optimizer.state, mx.random.state]
        self._update: Callable[..., tuple[mx.array, ...]] = self._learn
        if not on_cpu():
            self._update = mx.compile(self._learn, inputs=self._state, outputs=self._state)

    def _drawn(self, step: int) -> _Drawn:
        count = self.options.draws_per_step
        draws = [self._sampler.draw(self._seed, step * count + i) for i in range(count)]
        items = np.concatenate([draw.items for draw in draws])
        rng = generator(self._seed, "augment", step)
        images = gather(self._dataset, items)
        augment: Sequence[Transform] = self._augment
        targets: list[NDArray[np.float32]] = []

        def mixed(images: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
            images, rows = _mixed(self._mixer, draws, images, generator(self._seed, "mix", step))
            targets.extend(rows)
            return images

        if self._mixer.mix is not None:
            augment = [*augment, mixed]
        return draws, self.objective.embedder.prepared(images, augment, rng), targets

    def _learn(self, *batch: Any) -> tuple[mx.array, ...]:
        weights = self.learned.trainable_parameters()
        figures, gradients = self._learner.step(self.learned, self.objective, Batch(*batch))
        self.learned.update(weights)
        self._optimizer.update(self.learned, gradients)
        return figures

    def step(self) -> None:
        """Take one; raises TrainingError where the loss is no longer finite."""
        began, history = time.perf_counter(), self.history
        draws, pixels, targets = next(self._batches)
        batch = batch_of(mx.array(pixels), draws, targets)
        if history.steps == 0:
            require_made(self.learned, partial(self.objective, batch))
            self.learned.train()
        mx.random.seed(mlx_seed(self._seed, "dropout", history.steps + 1))
        figures = self._update(batch.images, batch.draws, batch.sizes, batch.n_ways)
        mx.eval(self._state, figures)
        value, above_zero = (float(np.array(figure)) for figure in figures[:2])
        history.steps += 1
        history.seconds += time.perf_counter() - began
        self._images += len(pixels)
        history.images_per_second = self._images / history.seconds
        if not np.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {history.steps}: lower training.learning_rate"
            )
        self._sums += (value, above_zero)
        self._since += 1

    def record(self, figures: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Means since the last record and these figures, of which "score" decides on the best.

        Without a score the last weights are the best.
        """
        history = self.history
        loss, above_zero = self._sums / max(1, self._since)
        self._sums, self._since = np.zeros(2), 0
        record: dict[str, Any] = {
            "step": history.steps,
            "loss": float(loss),
            "above_zero": float(above_zero),
            "images_per_second": history.images_per_second,
            **(figures or {}),
        }
        score = record.get("score")
        if score is None or history.best_score is None or score > history.best_score:
            self.best, self._stale = snapshot(self.learned), 0
            history.best_step, history.best_score = history.steps, score
        else:
            self._stale += 1
        history.records.append(record)
        return record

    def state(self) -> State:
        """All that the next step depends on."""
        parts: dict[str, Any] = {
            "weights": snapshot(self.learned),
            "best": self.best,
            "optimizer": tree_flatten(self._optimizer.state),
        }
        arrays = {f"{part}.{name}": a for part, named in parts.items() for name, a in named}
        facts = {
            "history": attrs.asdict(self.history),
            "stale": self._stale,
            "images": self._images,
            "sums": self._sums.tolist(),
            "since": self._since,
        }
        return State(arrays, facts)

    def restore(self, state: State) -> None:
        """Go on from there, whatever the parts and the optimizer have come to since.

        ValueError where the arrays are not those of these parts.
        """
        parts: dict[str, list[tuple[str, mx.array]]] = {"weights": [], "best": [], "optimizer": []}
        for name, array in state.arrays.items():
            part, _, rest = name.partition(".")
            parts[part].append((rest, array))
        self.learned.load_weights(parts["weights"])
        self.best = parts["best"]
        self._optimizer.state = tree_unflatten(parts["optimizer"])
        self._optimizer.init(self.learned.trainable_parameters())  # layers without weights
        facts = state.facts
        self.history = History(**{**facts["history"], "stopped": "steps"})
        self.history.records = list(self.history.records)
        self._stale, self._images, self._since = facts["stale"], facts["images"], facts["since"]
        self._sums = np.array(facts["sums"])
        self.learned.train()
        self._begin()

    def finish(self) -> None:
        """Leave the best weights, in eval mode."""
        self.learned.load_weights(self.best, strict=False)  # of parts that were refused, what was
        mx.eval(self.learned.parameters())
        self.learned.eval()


def train(
    training: Training,
    validate: Callable[[], Mapping[str, float]] | None = None,
    on_record: Callable[[dict[str, Any]], None] | None = None,
    on_best: Callable[[nn.Module], object] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    on_step: Callable[[Training], object] | None = None,
) -> History:
    """Take the steps and records that are left; the parts end with the best weights, in eval mode.

    `validate()` gives named figures, of which "score" (higher is better) decides on the best
    weights and on early stopping; without it the last weights are kept. Every `validate_every`
    steps `on_record` gets the figures since the last time, `on_best` the learned parts when they
    are the best so far; `on_step(training)`, which may take its state, and `progress(step, steps,
    speed)` are called after every step. Ctrl-C ends training as "interrupted" with the best weights
    so far.
    """
    options, history = training.options, training.history
    try:
        while True:
            if training.due:
                record = training.record(validate() if validate is not None else None)
                if on_best is not None and history.best_step == history.steps:
                    on_best(training.learned)
                if on_record is not None:
                    on_record(record)
            if training.ended:
                break
            training.step()
            if on_step is not None:
                on_step(training)
            if progress is not None:
                progress(history.steps, options.steps, f"{history.images_per_second:.0f} images/s")
        history.stopped = "patience" if training.out_of_patience else "steps"
    except KeyboardInterrupt:
        history.stopped = "interrupted"
        if validate is None or not history.records:
            training.best = snapshot(training.learned)
    finally:
        training.finish()
    return history


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
    miner: Miner = Miner(None),
    learner: Learner = plain(),
    optimizer: Optimizer | None = None,
    mixer: Mixer = Mixer(None),
) -> History:
    """Train backbone, metric, loss and head in place: a `Training` from its first step to its last.

    `sampler` draws from `dataset` (its indices); the rest is as in `Training` and `train`. No
    step: the weights as they are. The same seed, arguments and machine give the same weights.
    Raises ConfigError where parts do not fit (`check_fits`) or leave nothing to train,
    TrainingError where the loss is no longer finite.
    """
    check_fits(embedder, sampler, loss, metric, head, miner, learner, mixer)
    proxies = proxies_of(sampler, loss, embedder.backbone.embedding_dim, seed)
    learned = Learned(
        embedder.backbone, metric, loss, head, proxies, embedder.centre, learner.module
    )
    objective = Objective(embedder, metric, loss, head, miner, learned, sampler.layout)
    training = Training(
        objective, dataset, sampler, options, augment, learner, seed, optimizer, mixer
    )
    return train(training, validate, on_record, on_best, progress)

"""What training changes weights by."""

from typing import Any, Literal

import mlx.optimizers as optimizers
from attrs import frozen

from ..core.errors import ConfigError
from ..core.options import at_least, option, positive, share


@frozen
class TrainingOptions:
    """How `fit` trains."""

    steps: int = option(300, "optimizer steps at the most", at_least(0))
    draws_per_step: int = option(1, "draws (batches, episodes) in one step", positive)
    optimizer: Literal["adam", "adamw", "sgd"] = option("adam", "the optimizer")
    learning_rate: float = option(1e-3, "at the start of the schedule", positive)
    schedule: Literal["constant", "cosine"] = option("cosine", "cosine: decays to 0 over `steps`")
    warmup: int = option(0, "steps of linear rise before the schedule", at_least(0))
    weight_decay: float = option(0.0, "adamw and sgd only", at_least(0))
    momentum: float = option(0.9, "sgd only", share)
    validate_every: int = option(50, "steps between two validations", positive)
    patience: int = option(
        8, "validations without a better score before training stops; 0: never", at_least(0)
    )
    validation_pool: int = option(30, "images of a class that validation draws from", at_least(6))


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

"""The kinds of component."""

from collections.abc import Callable
from typing import Any

import mlx.nn as nn

from ..core.interfaces import Adapter, Backbone, Dataset, Head, Loss, Metric, Sampler

KINDS = (
    *("backbone", "metric", "loss", "sampler", "head", "adapter"),
    *("dataset", "transform", "preset", "study"),
)  # fmt: skip

# What each kind's factory must make: an instance of every one of these.
_MADE: dict[str, tuple[Any, ...]] = {
    "backbone": (nn.Module, Backbone),
    "metric": (Metric,),
    "loss": (Loss,),
    "sampler": (Sampler,),
    "head": (Head,),
    "adapter": (Adapter,),
    "dataset": (Dataset,),
    "transform": (Callable,),
}

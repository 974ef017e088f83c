"""What is told of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from ..core.components import Component
from ..core.errors import ConfigError
from ..core.interfaces import Observer
from ..core.options import option


@frozen
class TensorboardOptions:
    """Options of the TensorBoard observer."""

    folder: str = option("", "where to write; else `tensorboard` in the run folder")


def tensorboard(options: TensorboardOptions = TensorboardOptions()) -> Observer:
    """Every figure of a record as a scalar by its step, for `tensorboard --logdir`.

    Raises ConfigError where tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "the observer tensorboard needs tensorboardX: pip install 'fewshot[tensorboard]'"
        ) from error
    writers: list[Any] = []

    def start(folder: Path, config: Mapping[str, Any]) -> None:
        writers.append(SummaryWriter(options.folder or str(folder / "tensorboard")))

    def record(figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            if name != "step" and value is not None:
                writers[-1].add_scalar(name, value, figures["step"])

    def end(results: Mapping[str, Any] | None) -> None:
        writers.pop().close()

    return Observer(start, record, end)


COMPONENTS = (
    Component("tensorboard", tensorboard, TensorboardOptions, "figures as scalars for TensorBoard"),
)

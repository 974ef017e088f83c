"""The kinds of part that a plugin can offer: one record each, read by everything that lists them.

A new kind is a record here, an interface in `core.interfaces`, a hook in `hooks`, a file of
built-in parts and a file of laws, and a template.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from ..core.components import Component, Preset, Study


@frozen
class Kind:
    """One kind of part.

    `makes`: the interface of what its factory makes, "" for a kind without factory; `module`:
    whether that is an `mlx.nn.Module` too. `takes`: what the factory is given; `may_take`: what it
    is given besides, where it has a parameter of that name. `sections`: where a configuration
    names parts of this kind: one part under the kind's own name, a list under any other. `flag`:
    how a run is asked for one.
    """

    name: str
    makes: str = ""
    module: bool = False
    takes: tuple[str, ...] = ("options",)
    may_take: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    flag: str = ""
    plural: str = ""
    record: type[Component | Preset | Study] = Component

    @property
    def hook(self) -> str:
        """The hook that offers parts of this kind."""
        return f"fewshot_{self.plural or f'{self.name}s'}"

    def interfaces(self) -> Iterator[tuple[str, Any]]:
        """The names and types of which what a factory makes is an instance."""
        if self.module:
            import mlx.nn as nn

            yield "Module", nn.Module
        if self.makes == "Callable":
            yield self.makes, Callable
        else:
            from ..core import interfaces  # NumPy and all: `--help` does not wait for it

            yield self.makes, getattr(interfaces, self.makes)


def asked_for(factory: Callable[..., Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What is known that a factory has a parameter for."""
    parameters = inspect.signature(factory).parameters
    return {name: value for name, value in known.items() if name in parameters}


_WIDTH = ("embedding_dim",)

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "backbone", "Backbone", True, ("options", "input_shape"), ("saved",),
            sections=("backbone",), flag="--backbone",
        ),
        Kind(
            "metric", "Metric", may_take=_WIDTH, sections=("metric",), flag="--metric"
        ),
        Kind(
            "loss", "Loss", may_take=_WIDTH, sections=("loss",), flag="--loss",
            plural="losses",
        ),
        Kind(
            "sampler", "Sampler", takes=("options", "labels", "groups"),
            may_take=("role", "parents"), sections=("sampler",),
            flag="--loss prototypical --sampler",
        ),
        Kind("miner", "Miner", may_take=_WIDTH, sections=("miner",), flag="--miner"),
        Kind(
            "head", "Head", may_take=(*_WIDTH, "has_text"), sections=("head",), flag="--head"
        ),
        Kind(
            "adapter", "Adapter", may_take=("learner", "loss", "head"), sections=("adapter",),
            flag="--adapter",
        ),
        Kind(
            "learner", "Learner", may_take=("backbone",), sections=("learner",), flag="--learner"
        ),
        Kind(
            "optimizer", "Optimizer", takes=("options", "learning_rate"),
            sections=("optimizer",), flag="--optimizer",
        ),
        Kind(
            "schedule", "Callable", takes=("options", "steps"),
            sections=("schedule",), flag="--schedule",
        ),
        Kind("dataset", "Dataset", sections=("dataset",), flag="--dataset"),
        Kind("transform", "Callable", sections=("augment", "preprocess"), flag="--augment"),
        Kind("mixer", "Mixer", sections=("mixer",), flag="--loss prototypical --mixer"),
        Kind("observer", "Observer", sections=("observers",), flag="--observe"),
        Kind("preset", flag="--preset", record=Preset),
        Kind("study", plural="studies", record=Study),
    )
}  # fmt: skip

# Kinds whose parts may hold weights, which the weights file keeps.
LEARNED = ("backbone", "metric", "loss", "head")

# Sections of a configuration that name one part each, and those that list parts, by their kind.
PARTS = tuple(name for name, kind in KINDS.items() if kind.sections == (name,))
LISTS = {
    section: name for name, kind in KINDS.items() for section in kind.sections if section != name
}

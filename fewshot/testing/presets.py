"""The laws of a preset."""

from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..catalogue.kinds import KINDS
from ..catalogue.loading import build_registry
from ..catalogue.registry import Registered, Registry
from ..core.components import Component, Preset
from ..core.errors import ConfigError, FewshotError, UnknownComponentError
from ..data.datasets import ArrayDataset
from ..data.split import SplitOptions
from ..engine.protocol import EvaluationOptions
from ..experiments import assembly
from ..experiments.config import RunConfig, resolve
from .laws import Kind, fail, law, laws_of

_STAND_IN = "stand-in/images"


def check_preset(preset: Preset, registry: Registry | None = None) -> None:
    """Raise LawBroken where a preset breaks a law; `registry`: the components it may name.

    Without one: the built-ins' and those of all installed plugins.
    """
    KIND.check(preset, registry)


@frozen
class Tried:
    """A preset among the components it may name, and a data set in place of its own."""

    preset: Preset
    registry: Registry

    def config(self) -> RunConfig:
        """The configuration that it comes to."""
        return resolve(self.registry, [{"preset": "preset/tried"}])


def _stand_in(_: Any) -> ArrayDataset:
    """120 classes of 60 images 64x64x3, all of one noise and the memory of one."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return ArrayDataset(
        images=np.broadcast_to(noise, (7200, *noise.shape)),
        labels=np.arange(7200) % 120,
        classes=[f"class {i}" for i in range(120)],
    )


def _subject(preset: Any, registry: Registry | None) -> Tried:
    known = build_registry()[0] if registry is None else registry
    ours = Registry()
    for kind in KINDS:
        ours.add(known.all(kind))
    ours.add([Registered("dataset", Component("images", _stand_in), "stand-in", "")])
    if isinstance(preset, Preset):
        ours.add([Registered("preset", evolve(preset, name="tried"), "preset", "")])
    return Tried(preset, ours)


@law()
def made(tried: Tried) -> None:
    """It is a `Preset`."""
    if not isinstance(tried.preset, Preset):
        fail(f"{tried.preset!r} is no Preset")


@law()
def summary(tried: Tried) -> None:
    """`summary` says in one line what it is, for `fewshot list`."""
    if not tried.preset.summary.strip():
        fail("summary is empty")


def _refusal(tried: Tried) -> ConfigError | None:
    """Why the preset comes to no configuration; None where it does."""
    try:
        tried.config()
    except ConfigError as error:
        return error.__cause__ if isinstance(error.__cause__, ConfigError) else error
    return None


@law()
def components(tried: Tried) -> None:
    """Every component that it names exists."""
    refusal = _refusal(tried)
    if isinstance(refusal, UnknownComponentError):
        fail(str(refusal))


@law()
def keys(tried: Tried) -> None:
    """Every section and option exists, every value is of its type and in its range."""
    refusal = _refusal(tried)
    if refusal and not isinstance(refusal, UnknownComponentError):
        fail(str(refusal))


@law()
def fits(tried: Tried) -> None:
    """Its parts fit together: a run on a data set of 120 classes could begin."""
    if _refusal(tried):
        return  # the laws before say it
    stand_in = resolve(tried.registry, [{"preset": "preset/tried"}, {"dataset": _STAND_IN}])
    config = evolve(
        tried.config(),
        dataset=stand_in.dataset,
        split=SplitOptions(),
        evaluation=EvaluationOptions(k_shot=(1,), repeats=2, pairs=0),
    )
    try:
        assembly.check(assembly.build(config, tried.registry))
    except FewshotError as error:
        fail(str(error))


KIND = Kind("preset", _subject, laws_of(globals()))

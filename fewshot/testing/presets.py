"""The laws of a preset."""

from typing import Any

import numpy as np
from attrs import evolve, frozen

from .. import assembly
from ..config import RunConfig, resolve
from ..datasets import ArrayDataset
from ..errors import ConfigError, DataError, UnknownComponentError
from ..plugins import build_registry
from ..records import Component, EvaluationOptions, Preset, SplitOptions
from ..registry import KINDS, Registered, Registry
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
    """40 classes of 60 images 64x64x3, all of one noise and the memory of one."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return ArrayDataset(
        images=np.broadcast_to(noise, (2400, *noise.shape)),
        labels=np.arange(2400) % 40,
        classes=[f"class {i}" for i in range(40)],
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
    if not tried.preset.summary.strip() or "\n" in tried.preset.summary:
        fail(f"summary is {tried.preset.summary!r}")


@law()
def components(tried: Tried) -> None:
    """Every component that it names exists."""
    try:
        tried.config()
    except UnknownComponentError as error:
        fail(str(error))
    except ConfigError:
        return  # the next law's


@law()
def keys(tried: Tried) -> None:
    """Every section and option exists, every value is of its type and in its range."""
    try:
        tried.config()
    except UnknownComponentError:
        return  # the law before
    except ConfigError as error:
        fail(str(error))


@law()
def fits(tried: Tried) -> None:
    """Its parts fit together: a run on a data set of 40 classes could begin."""
    try:
        config = tried.config()
    except ConfigError:
        return  # the laws before
    stand_in = resolve(tried.registry, [{"preset": "preset/tried"}, {"dataset": _STAND_IN}])
    config = evolve(
        config,
        dataset=stand_in.dataset,
        split=SplitOptions(),
        evaluation=EvaluationOptions(k_shot=(1,), repeats=2, pairs=0),
    )
    try:
        assembly.check(assembly.build(config, tried.registry))
    except (ConfigError, DataError) as error:
        fail(str(error))


KIND = Kind("preset", _subject, laws_of(globals()))

"""The laws of a study."""

from typing import Any

from attrs import frozen

from ..catalogue.loading import build_registry
from ..catalogue.registry import Registry
from ..core.components import Study
from ..core.errors import ConfigError
from ..experiments.study import study_configs
from .laws import Kind, fail, law, laws_of


def check_study(study: Study, registry: Registry | None = None) -> None:
    """Raise LawBroken where a study breaks a law; `registry`: the components it may name.

    Without one: the built-ins' and those of all installed plugins.
    """
    KIND.check(study, registry)


@frozen
class Tried:
    """A study among the components it may name."""

    study: Study
    registry: Registry


def _subject(study: Any, registry: Registry | None) -> Tried:
    return Tried(study, build_registry()[0] if registry is None else registry)


@law()
def made(tried: Tried) -> None:
    """It is a `Study`."""
    if not isinstance(tried.study, Study):
        fail(f"{tried.study!r} is no Study")


@law()
def summary(tried: Tried) -> None:
    """`summary` says in one line what it is, for `fewshot list`."""
    if not tried.study.summary.strip():
        fail("summary is empty")


@law()
def rows(tried: Tried) -> None:
    """Every row comes to a configuration whose components, options and values exist."""
    try:
        study_configs(tried.study, tried.registry)
    except ConfigError as error:
        fail(str(error))


KIND = Kind("study", _subject, laws_of(globals()))

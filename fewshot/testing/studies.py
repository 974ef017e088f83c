"""The laws of a study."""

from typing import Any

from attrs import evolve, frozen

from ..catalogue.loading import build_registry
from ..catalogue.registry import Registry
from ..core.components import Study
from ..core.errors import ConfigError, DataError
from ..experiments.study import is_absent, study_configs
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
    """Every row comes to a configuration that can be made, or is absent, if these are optional."""
    for row, layer in tried.study.rows.items():
        try:
            study_configs(evolve(tried.study, rows={row: layer}, published={}), tried.registry)
        except (ConfigError, DataError) as error:
            if not (tried.study.optional and is_absent(error)):
                fail(str(error))


KIND = Kind("study", _subject, laws_of(globals()))

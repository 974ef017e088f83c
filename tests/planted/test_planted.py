"""Every planted bug is caught by the law it breaks; nothing that is sound is."""

from typing import Any

import pytest
from hypothesis import Phase, settings

from fewshot.testing import LAWS
from fewshot.testing.laws import Law
from planted import (
    Case,
    adapters,
    backbones,
    datasets,
    heads,
    learners,
    losses,
    metrics,
    miners,
    mixers,
    observers,
    optimizers,
    parts,
    samplers,
    schedules,
    transforms,
)

KINDS = (
    adapters, backbones, datasets, heads, learners, losses, metrics, miners, mixers, observers,
    optimizers, parts, samplers, schedules, transforms,
)  # fmt: skip
CASES = [case for module in KINDS for case in module.CASES]
BROKEN = [case for case in CASES if case.law]
SOUND = [case for case in CASES if not case.law]


def by_name(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.kind}-{case.name}")


# Found is enough: examples need not be small. Sound ones are many, a third of the examples will do.
FOUND = settings(phases=[Phase.generate])
FEWER = settings(max_examples=settings().max_examples // 3)


def law_of(case: Case) -> Law:
    (found,) = (law for law in LAWS[case.kind].laws if law.name == case.law)
    return found


@by_name(BROKEN)
def test_a_planted_bug_is_caught_by_its_law(case: Case) -> None:
    law = law_of(case)
    kind = LAWS[case.kind]
    subject = kind.subject(case.factory, case.options)
    assert law is kind.laws[0] or kind.laws[0].try_on(subject).example is None
    assert law is kind.laws[0] or law.when(subject)
    example = law.try_on(subject, FOUND).example
    assert example, f"{case.name} passes as {case.law}"


@by_name(SOUND)
def test_what_is_sound_keeps_every_law(case: Case) -> None:
    outcomes = LAWS[case.kind].demanded(case.factory, case.options, FEWER)
    assert [(o.law.name, o.example) for o in outcomes if o.example is not None] == []


def test_at_least_forty_laws_and_every_one_that_there_is_are_broken_by_something() -> None:
    broken = {(case.kind, case.law) for case in BROKEN}
    assert len(broken) >= 40
    assert broken == {(kind.name, law.name) for kind in LAWS.values() for law in kind.laws}

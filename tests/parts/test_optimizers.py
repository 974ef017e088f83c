"""What an optimizer does to weights, and the shapes of schedules, against closed forms."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import REGISTRY

from fewshot.catalogue.registry import make
from fewshot.parts.optimizers import SgdOptions


def chosen(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    entry = REGISTRY.get(kind, name)
    return make(entry, entry.component.options(**options), *arguments)


def steps(optimizer: Any, weight: float, gradients: list[float]) -> list[float]:
    """A weight (a 1 x 1 matrix) after every update by the gradients."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = mx.array([[weight]])
    found = []
    for gradient in gradients:
        optimizer.update(layer, {"weight": mx.array([[gradient]])})
        found.append(layer.weight.item())
    return found


@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 0.1]),
    gradients=st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=4),
)
def test_sgd_is_that_of_its_formula(
    momentum: float, nesterov: bool, decay: float, gradients: list[float]
) -> None:
    nesterov = nesterov and momentum > 0
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    weight, velocity, expected = 2.0, 0.0, []
    for gradient in gradients:
        whole = gradient + decay * weight
        velocity = momentum * velocity + whole
        weight -= 0.1 * (whole + momentum * velocity if nesterov else velocity)
        expected.append(weight)
    found = steps(chosen("optimizer", "sgd", 0.1, **options), 2.0, gradients)
    assert found == pytest.approx(expected, rel=1e-5)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum above 0"):
        SgdOptions(momentum=0.0, nesterov=True)


DECAYING = [
    name
    for name in REGISTRY.names("optimizer")
    if hasattr(REGISTRY.get("optimizer", name).component.options(), "weight_decay")
]


def test_weights_decay_where_told_to() -> None:
    assert {"adamw", "sgd", "lion"} <= set(DECAYING)


@pytest.mark.parametrize("name", DECAYING)
def test_a_weight_without_gradient_stays_unless_decay_is_asked_for(name: str) -> None:
    kept = steps(chosen("optimizer", name, 0.1), 2.0, [0.0, 0.0])
    decayed = steps(chosen("optimizer", name, 0.1, weight_decay=0.5), 2.0, [0.0, 0.0])
    assert kept == [2.0, 2.0]
    assert 0 < decayed[1] < decayed[0] < 2.0


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_decay_apart_from_the_gradient_is_a_share_of_the_weight(name: str) -> None:
    found = steps(chosen("optimizer", name, 0.1, weight_decay=0.5), 2.0, [0.0])
    assert found == pytest.approx([2.0 * (1 - 0.1 * 0.5)])


# ---------------------------------------------------------------------------------- schedules

FORMULAS: dict[str, tuple[dict[str, Any], Callable[[float], float]]] = {
    "constant": ({}, lambda share: 1.0),
    "cosine": ({"end": 0.25}, lambda share: 0.25 + 0.75 * (1 + np.cos(np.pi * share)) / 2),
    "linear": ({"end": 0.25}, lambda share: 1 - 0.75 * share),
    "exponential": ({"end": 0.25}, lambda share: 0.25**share),
    "step": (
        {"factor": 0.5, "at": (0.25, 0.75)},
        lambda share: 0.5 ** ((share >= 0.25) + (share >= 0.75)),
    ),
}


def test_every_schedule_has_its_formula_here() -> None:
    assert sorted(FORMULAS) == REGISTRY.names("schedule")


@pytest.mark.parametrize("name", FORMULAS)
@given(length=st.sampled_from([1, 4, 37, 1000]))
def test_a_schedule_is_that_of_its_formula_and_stays_at_its_end(name: str, length: int) -> None:
    options, formula = FORMULAS[name]
    at = np.arange(length + 3)
    found = chosen("schedule", name, length, **options)(mx.array(at, mx.uint64))
    expected = [formula(min(1.0, float(step / length))) for step in at]
    assert np.array(found) == pytest.approx(np.array(expected), abs=2e-6)

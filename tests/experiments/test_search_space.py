"""What a search varies: the grammar of `--over`, and trials that depend on seed and number only."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.errors import ConfigError
from fewshot.experiments.search_space import (
    METHODS,
    Choice,
    Range,
    grid,
    method,
    parameter,
    parameters,
    random,
    tpe,
    trial_count,
)

SPACE = [
    parameter("training.learning_rate", "log:0.0001:0.01"),
    parameter("backbone.width", "4:9"),
    parameter("sampler.classes", "log:2:64"),
    parameter("loss.margin", "0.5,1,2"),
    parameter("augment", '[],["crop"],["crop","colour"]'),
]
CHOICES = SPACE[3:]

seeds = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.5,1,2", Choice("loss.margin", (0.5, 1, 2))),
        ("euclidean, cosine", Choice("loss.margin", ("euclidean", "cosine"))),
        ('"a,b",true', Choice("loss.margin", ("a,b", True))),
        ('[],["crop"]', Choice("loss.margin", ([], ["crop"]))),
        ("7", Choice("loss.margin", (7,))),
        ("0:0.5", Range("loss.margin", 0, 0.5, log=False, whole=False)),
        ("log:1e-4:1e-2", Range("loss.margin", 1e-4, 1e-2, log=True, whole=False)),
        ("8:128", Range("loss.margin", 8, 128, log=False, whole=True)),
        ("-2:-1.5", Range("loss.margin", -2, -1.5, log=False, whole=False)),
    ],
)
def test_values_and_ranges_are_read(text: str, wanted: Any) -> None:
    assert parameter("loss.margin", text) == wanted


def test_a_table_says_the_same_as_flags() -> None:
    table = {
        "training": {"learning_rate": "log:0.0001:0.01"},
        "backbone.width": "4:9",
        "sampler.classes": "log:2:64",
        "loss.margin": [0.5, 1, 2],
        "augment": [[], ["crop"], ["crop", "colour"]],
    }
    assert parameters(table) == SPACE
    assert parameters({"loss": {"margin": [7]}, "loss.margin": "0.5,1,2"}) == SPACE[3:4]


@pytest.mark.parametrize("text", ["", "1,,2", "2:1", "1:1", "log:0:1", "log:-1:1"])
def test_what_holds_no_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"loss\.margin"):
        parameter("loss.margin", text)


@pytest.mark.parametrize("key", ["split.test", "evaluation.groups", "dataset.size", "adapter"])
def test_what_a_score_means_cannot_be_varied(key: str) -> None:
    with pytest.raises(ConfigError, match="cannot vary"):
        parameter(key, "1,2")
    with pytest.raises(ConfigError, match="cannot vary"):
        parameters({key: [1, 2]})


def test_nothing_to_vary_is_refused() -> None:
    with pytest.raises(ConfigError, match="--over"):
        parameters({})
    with pytest.raises(ConfigError, match="empty"):
        parameters({"loss.margin": []})


def lies_in(value: Any, entry: Any) -> bool:
    if isinstance(entry, Choice):
        return value in entry.values
    return entry.low <= value <= entry.high and (not entry.whole or isinstance(value, int))


@given(seed=seeds, number=numbers)
def test_random_trials_lie_in_the_space_and_depend_on_seed_and_number_alone(
    seed: int, number: int
) -> None:
    values = random(SPACE, seed)(number, [])
    assert all(lies_in(values[entry.key], entry) for entry in SPACE)
    assert list(values) == [entry.key for entry in SPACE]
    assert random(SPACE, seed)(number, [{"values": {}, "score": 1.0}]) == values


def test_random_trials_spread_evenly_in_what_they_vary() -> None:
    drawn = [random(SPACE, 0)(i, []) for i in range(3000)]
    rates = [math.log10(d["training.learning_rate"]) for d in drawn]
    assert np.quantile(rates, [0.25, 0.5, 0.75]) == pytest.approx([-3.5, -3, -2.5], abs=0.07)
    for key, count in (("backbone.width", 6), ("loss.margin", 3)):
        times = Counter(d[key] for d in drawn)
        assert len(times) == count
        assert min(times.values()) > 0.85 * 3000 / count


def test_a_grid_is_every_combination_once() -> None:
    propose = grid(CHOICES, 0)
    every = [propose(i, []) for i in range(9)]
    assert trial_count("grid", CHOICES, None) == 9
    assert len({str(values) for values in every}) == 9
    assert all(lies_in(values[entry.key], entry) for values in every for entry in CHOICES)


def test_a_grid_wants_values() -> None:
    for make in (lambda: grid(SPACE, 0), lambda: trial_count("grid", SPACE, 5)):
        with pytest.raises(ConfigError, match=r"training\.learning_rate.*random"):
            make()


def test_the_number_of_trials() -> None:
    assert trial_count("grid", CHOICES, 4) == 4
    assert trial_count("grid", CHOICES, 40) == 9
    assert trial_count("random", SPACE, None) == trial_count("optuna", SPACE, None) == 20
    assert trial_count("random", SPACE, 3) == 3


def test_an_unknown_method_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        method("radnom")
    assert method("grid") is METHODS["grid"]


# ------------------------------------------------------------------------------ Optuna


def records(count: int) -> list[dict[str, Any]]:
    """Trials whose score grows with the learning rate; every seventh failed."""
    drawn = [random(SPACE, 1)(i, []) for i in range(count)]
    return [
        {"trial": i, "values": values}
        | ({"error": "no"} if i % 7 == 6 else {"score": math.log(values["training.learning_rate"])})
        for i, values in enumerate(drawn)
    ]


def test_optuna_proposes_within_the_space_the_same_from_the_same_records() -> None:
    for count in (0, 5, 25):
        values = tpe(SPACE, 0)(count, records(count))
        assert all(lies_in(values[entry.key], entry) for entry in SPACE)
        assert tpe(SPACE, 0)(count, records(count)) == values


def test_optuna_learns_from_the_records() -> None:
    done, propose = records(40), tpe(SPACE, 0)
    rates = [propose(i, done)["training.learning_rate"] for i in range(40, 60)]
    assert np.mean(np.array(rates) > 1e-3) > 0.7  # half of them by chance


def test_without_optuna_its_method_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'fewshot\[optuna\]'"):
        tpe(SPACE, 0)

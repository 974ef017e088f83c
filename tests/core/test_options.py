"""What an option takes, as people read it."""

from collections.abc import Callable
from typing import Any

import pytest
from attrs import fields, make_class, validators
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.options import (
    ZeroOr,
    above,
    at_least,
    at_most,
    below,
    option,
    range_of,
    share,
    within,
)

TESTS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}


def accepted(text: str, value: float) -> bool:
    """Whether a number is in a range, by its text alone."""
    if text.startswith("0 or "):
        return value == 0 or accepted(text.removeprefix("0 or "), value)
    if " to " in text:
        low, high = map(float, text.split(" to "))
        return low <= value <= high
    return all(
        TESTS[sign](value, float(bound))
        for sign, bound in (part.split(" ") for part in text.split(" and "))
    )


BOUNDS = st.integers(-5, 5)
VALIDATORS = st.one_of(
    BOUNDS.map(at_least),
    BOUNDS.map(at_most),
    BOUNDS.map(above),
    BOUNDS.map(below),
    st.builds(ZeroOr, st.integers(1, 5)),
    st.builds(lambda a, b: within(at_least(a), at_most(b)), BOUNDS, BOUNDS),
    st.builds(lambda a, b: within(above(a), below(b)), BOUNDS, BOUNDS),
)


@given(validator=VALIDATORS, value=st.integers(-7, 7))
def test_the_text_of_a_range_says_what_is_taken(validator: Any, value: int) -> None:
    options = make_class("Options", {"number": option(0, "a number", validator)})
    field = fields(options).number
    taken = True
    try:
        validator(None, field, value)
    except ValueError:
        taken = False
    assert accepted(range_of(validator), value) == taken


@given(validator=VALIDATORS)
def test_the_range_of_entries_and_of_what_may_be_missing_is_told(validator: Any) -> None:
    for outer in (
        validators.optional(validator),
        validators.and_(validators.min_len(1), validators.deep_iterable(validator)),
    ):
        assert range_of(outer) == range_of(validator)


@pytest.mark.parametrize("validator", [None, validators.in_(["a", "b"]), validators.min_len(1)])
def test_what_is_no_range_has_no_text(validator: Any) -> None:
    assert range_of(validator) == ""


def test_a_share_is_from_0_to_1() -> None:
    assert range_of(share) == "0 to 1"

"""A line for every error, also for one whose own text cannot be made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.errors import DataError, one_line, text_of

RAISED = [ValueError("no"), KeyError(), SystemExit(3), KeyboardInterrupt(), RecursionError()]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("base", [Exception, OSError, BaseException, DataError])
def test_an_error_whose_text_raises_has_a_line(
    raised: BaseException, base: type[BaseException]
) -> None:
    class Broken(base):  # type: ignore[misc, valid-type]
        def __str__(self) -> str:
            raise raised

        __repr__ = __str__

    assert "its text cannot be made" in one_line(Broken())
    assert text_of(Broken()) == "(its text cannot be made)"


def test_so_has_one_whose_text_is_none() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            return 3  # type: ignore[return-value]

    assert "its text cannot be made" in one_line(BrokenError())


@given(st.text(st.characters(exclude_categories=[]), max_size=400))
def test_it_is_one_line_that_can_be_printed(text: str) -> None:
    line = one_line(ValueError(text))
    assert line.isprintable()
    assert len(line) <= 300
    assert line.startswith("ValueError:")

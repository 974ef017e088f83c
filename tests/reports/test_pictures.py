"""Pictures of classes with any names."""

import pytest
from attrs import evolve
from figures import rows
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.figures import KShotRow
from fewshot.reports import pictures


def test_letters_that_no_font_has_still_tell_names_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        pictures, "_fonts", lambda: (["DejaVu Sans"], frozenset(map(ord, "abc<>0")))
    )
    drawn = [pictures._plain(name) for name in ("abc", "a\u82f9", "a\u679c")]
    assert drawn == ["abc", "a<82f9>", "a<679c>"]


@given(rows(), st.booleans(), st.booleans())
def test_nothing_is_called_trained_where_nothing_was(row: KShotRow, trained: bool, random: bool):
    before = row.accuracy if random else 1 - row.accuracy
    row = evolve(row, untrained=before, untrained_ci95=row.ci95)
    lines = pictures.k_shot_lines([row], trained)
    names = [name for name, _, _ in lines]
    assert ("trained" in names) == trained
    assert "raw pixels" in names
    if not trained:  # one line for one network
        drawn = [points for _, _, points in lines[:-1]]
        assert drawn.count([(row.accuracy, row.ci95)]) == 1

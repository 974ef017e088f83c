"""Pictures of classes with any names."""

import pytest

from fewshot.reports import pictures


def test_letters_that_no_font_has_still_tell_names_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        pictures, "_fonts", lambda: (["DejaVu Sans"], frozenset(map(ord, "abc<>0")))
    )
    drawn = [pictures._plain(name) for name in ("abc", "a\u82f9", "a\u679c")]
    assert drawn == ["abc", "a<82f9>", "a<679c>"]

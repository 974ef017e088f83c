"""Pictures of classes with any names."""

import warnings
from pathlib import Path

import pytest
from PIL import Image

from fewshot.reports import pictures

NAMES = {
    "Chinese": ["\u82f9\u679c", "\u9999\u8549"],
    "Korean": ["\uc11c\uc6b8", "\ubd80\uc0b0"],
    "formulas": ["$a_b^", "a$b$"],
    "controls": ["a\nb", "\x07"],
    "long": ["x" * 200 + "1", "x" * 200 + "2"],
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_confusion_matrix_has_room_for_any_names_and_letters_for_them(kind: str, tmp_path: Path):
    names = [*NAMES[kind], "plain"]
    answers = {name: dict.fromkeys(names, 1) for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of letters that no font has, and of no room
        pictures.confusion(answers, names, "", tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) < 900


def test_letters_that_no_font_has_still_tell_names_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        pictures, "_fonts", lambda: (["DejaVu Sans"], frozenset(map(ord, "abc<>0")))
    )
    drawn = [pictures._plain(name) for name in ("abc", "a\u82f9", "a\u679c")]
    assert drawn == ["abc", "a<82f9>", "a<679c>"]

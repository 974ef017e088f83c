"""Pictures of classes with any names, seen on any ground."""

import re
from pathlib import Path

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


def light_of(colour: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_is_drawn_can_be_seen_in_the_dark(tmp_path: Path):
    path, ground = tmp_path / "curves.svg", light_of("#0d1117")
    names = ("loss", "score", "pair_accuracy", "train_pair_accuracy", "auc")
    pictures.curves([{"step": i, **dict.fromkeys(names, 0.5)} for i in (1, 2)], path)
    first = path.read_bytes()
    pictures.curves([{"step": i, **dict.fromkeys(names, 0.5)} for i in (1, 2)], path)
    assert path.read_bytes() == first
    dark = path.read_text().split("prefers-color-scheme:dark")[1]
    rules = dict(re.findall(r"(?:fill|stroke): (#\w{6})[^{]*\{\w+:(#\w{6})!important", dark))
    drawn = {*re.findall(r"(?:fill|stroke): (#\w{6})", dark.partition("</style>")[2])}
    assert len(drawn) > 4
    for colour in drawn - {"#ffffff"}:  # grounds of legends
        assert light_of(rules.get(colour, colour)) + 0.05 > 3 * (ground + 0.05), colour
    assert light_of(rules["#ffffff"]) == ground
    assert "fill: #ffffff; opacity: 0.8" in dark
    assert dark.count("fill: #ffffff") == 1 + 3  # the rule, the legends: no ground of its own

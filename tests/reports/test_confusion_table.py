"""The table of confusion: one row is seen at a time, and of many classes the hardest."""

import re

import numpy as np

from fewshot.core.figures import KShotRow
from fewshot.reports.confusion_table import section


def row(k_shot: int, confusion: dict[str, dict[str, int]]) -> KShotRow:
    return KShotRow(
        k_shot=k_shot, n_way=len(confusion), accuracy=0.5, ci95=(0.0, 1.0), ci95_classes=(0.0, 1.0),
        floor=0.1, floor_ci95=(0.0, 1.0), untrained=None, untrained_ci95=None, groups="none",
        episodes=2, queries=4, per_class=dict.fromkeys(confusion, 0.5), per_episode=(0.5,),
        confusion=confusion, digest="",
    )  # fmt: skip


def test_every_row_can_be_chosen_and_the_first_to_be_shown_is():
    of = {"a": {"a": 3, "b": 1}, "b": {"b": 4}}
    drawn = section({f"K = {k}": row(k, of) for k in (1, 5, 20)}, "K = 5")
    assert re.findall(r'id="(k\d)"( checked)?>', drawn) == [
        ("k0", ""), ("k1", " checked"), ("k2", ""),
    ]  # fmt: skip
    assert drawn.count("<svg") == 3
    assert drawn.count("#k1:checked~#of-k1{display:block}") == 1


def test_the_cells_are_the_shares_of_a_row():
    drawn = section({"x": row(5, {"a": {"a": 3, "b": 1}, "b": {"b": 4}})}, "x")
    said = re.findall(r"<title>(.*?)</title>", drawn)
    assert said == ["a answered a: 75 %", "a answered b: 25 %", "b answered b: 100 %"]
    assert "<b>a</b> taken for <b>b</b>: 1 of 4" in drawn


def test_of_many_classes_the_hardest_are_shown_with_what_they_are_taken_for():
    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(100)]
    confusion = {
        name: {name: 100 - i, names[int(rng.integers(100))]: i or 1} for i, name in enumerate(names)
    }
    drawn = section({"x": row(5, confusion)}, "x")
    assert "The 40 hardest of 100 classes" in drawn
    assert drawn.count("<rect") < 200
    labels = re.findall(r'text-anchor="end">(.*?)</text>', drawn)
    assert len(labels) == 40
    assert "class 99" in labels
    assert "class 2" not in labels


def test_names_are_text():
    drawn = section({"<b>": row(1, {"<i>": {"<i>": 1, "&": 1}, "&": {"&": 1}})}, "<b>")
    assert "<i>" not in drawn
    assert '<label for="k0">&lt;b&gt;</label>' in drawn
    assert "&lt;i&gt; answered &amp;: 50 %" in drawn

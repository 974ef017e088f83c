"""The sentence that a run comes to says what its figures say."""

import re

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from fewshot.core.figures import KShotRow, RunResults, Speed
from fewshot.reports.verdict import hundredths, mistakes, telling_row, verdict


@st.composite
def rows(draw: st.DrawFn) -> KShotRow:
    classes = [f"class {i}" for i in range(draw(st.integers(2, 5)))]
    counts = st.integers(0, 9)
    confusion = {
        truth: {answer: n for answer in classes if (n := draw(counts))} for truth in classes
    }
    confusion = {truth: answered for truth, answered in confusion.items() if answered}
    assume(confusion)
    accuracy = draw(st.floats(0, 1))
    return KShotRow(
        k_shot=draw(st.integers(0, 20)), n_way=len(classes), accuracy=accuracy,
        ci95=(accuracy / 2, 1.0), ci95_classes=(0.0, 1.0), floor=draw(st.floats(0, 1)),
        floor_ci95=(0.0, 1.0), untrained=None, untrained_ci95=None, groups="none", episodes=2,
        queries=4, per_class=dict.fromkeys(confusion, 0.5), per_episode=(accuracy, accuracy),
        confusion=confusion, digest="",
    )  # fmt: skip


results = st.lists(rows(), min_size=1, max_size=3).map(
    lambda found: RunResults(tuple(found), None, Speed(1.0, 1.0, 1.0, 1.0))
)


@given(results)
def test_verdict_holds_the_figures_of_its_row(found: RunResults) -> None:
    row, said = telling_row(found.k_shot), verdict(found)
    right, guessing, pixels = re.search(
        r"it names (.+) of 100 .*images; guessing would be (.+), raw pixels (.+?)\. ?", said
    ).groups()  # type: ignore[union-attr]
    for text, share in ((right, row.accuracy), (guessing, 1 / row.n_way), (pixels, row.floor)):
        number = float(text.removeprefix("over ").removeprefix("under "))
        assert abs(number - 100 * share) <= 1
        assert (text == "100") <= (share == 1)
        assert (text == "0") <= (share == 0)
    assert ("no better than guessing" in said) == (row.ci95[0] <= 1 / row.n_way)
    if row.k_shot:
        assert re.search(rf"Shown {row.k_shot} images? of each of {row.n_way} classes", said)


@given(results)
def test_no_row_of_its_setting_is_nearer_to_five(found: RunResults) -> None:
    row = telling_row(found.k_shot)
    same = [other for other in found.k_shot if other.n_way == found.k_shot[0].n_way]
    assert row in same
    assert all(abs(row.k_shot - 5) <= abs(other.k_shot - 5) for other in same)


@given(rows())
def test_mistakes_are_all_of_them_and_in_order(row: KShotRow) -> None:
    found = mistakes(row)
    wrong = sum(
        n for truth, answered in row.confusion.items() for a, n in answered.items() if a != truth
    )
    assert sum(each.times for each in found) == wrong
    assert [each.times for each in found] == sorted((e.times for e in found), reverse=True)
    for each in found:
        assert each.truth != each.answer
        assert row.confusion[each.truth][each.answer] == each.times <= each.asked


@given(results)
def test_one_class_is_said_to_say_nothing(found: RunResults) -> None:
    alone = tuple(evolve(row, n_way=1) for row in found.k_shot)
    assert "say nothing" in verdict(evolve(found, k_shot=alone))


@given(st.floats(0, 1))
def test_all_and_none_are_said_of_nothing_else(share: float) -> None:
    assert (hundredths(share) == "100") == (share == 1)
    assert (hundredths(share) == "0") == (share == 0)

"""The sentence that a run comes to says what its figures say."""

import re

from attrs import evolve
from figures import results, rows
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.figures import (
    KShotRow,
    PairedRows,
    PairedTest,
    RunResults,
    StudyFigures,
    StudyResults,
)
from fewshot.reports.verdict import hundredths, mistakes, study_verdict, telling_row, verdict


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
    assert "of them, it names" not in said  # but what was asked of these
    assert ("no better than guessing" in said) == (row.ci95[0] <= 1 / row.n_way)
    if row.k_shot:
        assert re.search(
            rf"Shown {row.k_shot} images?(?: or more)? of each of {row.n_way} classes", said
        )


@given(results)
def test_no_row_of_its_setting_is_nearer_to_five(found: RunResults) -> None:
    row = telling_row(found.k_shot)
    same = [other for other in found.k_shot if other.n_way == found.k_shot[0].n_way]
    assert row in same  # leave-one-out takes the place of Ks that are too many: it is of them
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


@given(rows(), st.lists(st.floats(0, 1), min_size=1, max_size=4), st.floats(0, 1))
def test_a_study_is_told_from_its_best_row(row: KShotRow, accuracies: list[float], p: float):
    of = StudyFigures(
        k_shot=row.k_shot, n_way=row.n_way, groups="none", episodes=2, digest="", accuracy=0.0,
        ci95_seeds=None, ci95_draws=row.ci95, ci95_classes=row.ci95, draw_std=0.0,
        floor=row.floor, untrained=None, per_draw=((0.0,),), per_class=row.per_class,
        confusion=row.confusion,
    )  # fmt: skip
    figures = {f"row{i}": [evolve(of, accuracy=share)] for i, share in enumerate(accuracies)}
    best, *others = sorted(figures, key=lambda name: -figures[name][0].accuracy)
    test = PairedTest(0.0, (0.0, 0.0), p, 2)
    pairs = [PairedRows((best, other), of.k_shot, of.n_way, "none", test, test) for other in others]
    said = study_verdict(StudyResults("s", {}, tuple(pairs), (), {}, {}, ()), figures)
    assert f"{best} names {hundredths(max(accuracies))} of 100 other images" in said
    assert f"raw pixels {hundredths(row.floor)}." in said
    assert ("may be chance" in said) == (len(others) > 0 and p >= 0.05)
    if others:
        assert f", {others[0]} {hundredths(figures[others[0]][0].accuracy)}" in said

"""What a run came to, in sentences that need no table."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from ..core.figures import KShotRow, PairedRows, RunResults, StudyFigures, StudyResults, part_of
from ..core.wording import counted


@frozen
class Mistake:
    """How often queries of class `truth` were answered as `answer`, of `asked` of the class."""

    truth: str
    answer: str
    times: int
    asked: int


def telling_row(rows: Sequence[KShotRow]) -> KShotRow:
    """The row that stands for a run: of the first setting, by whatever protocol, K nearest 5."""
    return min(of_first_setting(rows), key=lambda row: abs(row.k_shot - 5))


def of_first_setting(rows: Sequence[KShotRow]) -> list[KShotRow]:
    """The rows of the first n_way and grouping, one for each K; leave-one-out has the last Ks."""
    return [row for row in rows if part_of(row)[1:] == part_of(rows[0])[1:]]


def mistakes(row: KShotRow | StudyFigures) -> list[Mistake]:
    """Every class that was taken for another, the most frequent first."""
    found = [
        Mistake(truth, answer, times, sum(answered.values()))
        for truth, answered in row.confusion.items()
        for answer, times in answered.items()
        if answer != truth and times
    ]
    return sorted(found, key=lambda wrong: (-wrong.times, -wrong.times / wrong.asked))


def verdict(results: RunResults) -> str:
    """What was shown and asked, how much was right, what guessing and raw pixels make of it."""
    row = telling_row(results.k_shot)
    if row.n_way == 1:
        return (
            "There is one class in the test, and with nothing to tell it from every answer is "
            "right: these figures say nothing. Two test classes or more would."
        )
    together = ", asked together" if results.queries == "together" else ""
    other = "images" if row.k_shot == 0 else "other images"
    trained = results.training is None or results.training.steps > 0
    sentences = [
        f"{_shown(row, trained)}, it names {hundredths(row.accuracy)} of 100 {other}{together}; "
        f"guessing would be {hundredths(1 / row.n_way)}, raw pixels {hundredths(row.floor)}."
    ]
    if row.ci95[0] <= 1 / row.n_way:
        sentences.append("That may be no better than guessing.")
    elif row.ci95[0] <= row.floor:
        sentences.append("That may be no better than raw pixels.")
    if len(row.per_class) == 1:
        sentences.append("Only one class was asked: nothing follows for others.")
    if worst := mistakes(row)[:1]:
        sentences.append(f"Most often wrong: {worst[0].truth} taken for {worst[0].answer}.")
    return " ".join(sentences)


def study_verdict(results: StudyResults, rows: Mapping[str, Sequence[StudyFigures]]) -> str:
    """The same of a study's rows in one setting, and whether the best two differ beyond chance."""
    k_shot = min((of.k_shot for of in next(iter(rows.values()))), key=lambda k: abs(k - 5))
    of_k = {name: of for name, each in rows.items() for of in each if of.k_shot == k_shot}
    best, *others = sorted(of_k, key=lambda name: -of_k[name].accuracy)
    row = of_k[best]
    trained = any(each.cost.steps > 0 for each in results.rows.values())
    named = f"{best} names {hundredths(row.accuracy)} of 100 other images"
    if others:
        named += f", {others[0]} {hundredths(of_k[others[0]].accuracy)}"
    if others[1:]:
        named += f", the last of {len(of_k)} rows, {others[-1]}, "
        named += hundredths(of_k[others[-1]].accuracy)
    floors = sorted(of.floor for of in of_k.values())
    pixels = " to ".join(dict.fromkeys(hundredths(floor) for floor in (floors[0], floors[-1])))
    said = (
        f"{_shown(row, trained)}, {named}; guessing would be {hundredths(1 / row.n_way)}, raw "
        f"pixels {pixels}."
    )
    for pair in results.paired:
        if {*pair.rows} == {best, *others[:1]} and _same(pair, row):
            likely = max(pair.draws.p, pair.classes.p)
            if not likely < 0.05:
                said += f" That {best} is better than {others[0]} may be chance."
    return said


def _same(pair: PairedRows, row: StudyFigures) -> bool:
    """Whether two rows were compared in the setting of `row`."""
    return (pair.k_shot, pair.n_way, pair.groups, pair.dirichlet) == (
        row.k_shot, row.n_way, row.groups, row.dirichlet,
    )  # fmt: skip


def hundredths(share: float) -> str:
    """A share as a number out of 100, never one that would say all or none where it is not so."""
    whole = round(100 * share)
    if whole == 100 and share < 1:
        return "over 99"
    if whole == 0 and share > 0:
        return "under 1"
    return str(whole)


def _shown(row: KShotRow | StudyFigures, trained: bool) -> str:
    asked = len(row.per_class)  # where fewer than are shown, training knew the others
    some = f", {asked} of them" if asked < row.n_way else ""
    how = " held out of training" if trained else " asked about" if some else ""
    classes = f"{row.n_way} classes{some}{how}"
    if row.k_shot == 0:
        return f"Told the names of {classes}"
    images = counted(row.k_shot, "image")
    if row.protocol == "leave-one-out":
        images += " or more"
    return f"Shown {images} of each of {classes}"

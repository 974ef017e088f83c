"""Which classes are taken for which: a table of colours, one of several, and the worst pairs."""

import html
from collections.abc import Mapping, Sequence

from ..core.figures import Answered, KShotRow, StudyFigures
from .verdict import mistakes

_MOST = 40  # query classes in one table
_PAIRS = 10
_CELL = 22  # pixels


def section(rows: Mapping[str, KShotRow | StudyFigures], first: str) -> str:
    """Rows by name, one of which is seen at a time, `first` at first, as HTML."""
    buttons, panels, rules = "", "", ""
    for i, (name, row) in enumerate(rows.items()):
        checked = " checked" if name == first else ""
        buttons += (
            f'<input type="radio" class="choice" name="k" id="k{i}"{checked}>'
            f'<label for="k{i}">{html.escape(name)}</label>'
        )
        panels += f'<div class="of-k" id="of-k{i}">{_panel(name, row)}</div>'
        rules += f"#k{i}:checked~#of-k{i}{{display:block}}"
    return f"<style>{rules}</style><div>{buttons}{panels}</div>"


def _panel(name: str, row: KShotRow | StudyFigures) -> str:
    found = mistakes(row)[:_PAIRS]
    pairs = "".join(
        f"<li><b>{html.escape(each.truth)}</b> taken for <b>{html.escape(each.answer)}</b>: "
        f"{each.times} of {each.asked}</li>"
        for each in found
    )
    listed = f"<h3>Most confused</h3><ol>{pairs}</ol>" if pairs else ""
    shown = _hardest(row.confusion)
    few = f"The {len(shown)} hardest of {len(row.confusion)} classes. " if len(shown) < len(
        row.confusion
    ) else ""  # fmt: skip
    return (
        f'<figure><div class="scroll" tabindex="0">{_table(row.confusion, shown)}</div>'
        f"<figcaption>{few}{html.escape(name)}. Rows: what images are; columns: what they were "
        "answered, in percent of the row. Green is right, red is wrong.</figcaption></figure>"
        f"{listed}"
    )


def _hardest(answers: Answered) -> list[str]:
    """The query classes that are most often wrong, in their usual order."""

    def right(name: str) -> float:
        return answers[name].get(name, 0) / sum(answers[name].values())

    kept = {*sorted(answers, key=right)[:_MOST]}
    return [name for name in answers if name in kept]


def _columns(answers: Answered, rows: Sequence[str]) -> list[str]:
    """The rows' classes, and others that are most often answered for them."""
    others: dict[str, float] = {}
    for name in rows:
        total = sum(answers[name].values())
        for answer, times in answers[name].items():
            if answer not in rows:
                others[answer] = others.get(answer, 0) + times / total
    more = sorted(others, key=lambda name: -others[name])[: max(8, _MOST - len(rows))]
    return [*rows, *more]


def _table(answers: Answered, rows: Sequence[str]) -> str:
    columns = _columns(answers, rows)
    longest = max(map(len, map(_short, columns)))
    side = 12 + 6 * longest
    cells = ""
    for j, name in enumerate(columns):
        x = side + _CELL * (j + 0.5) + 4
        cells += (
            f'<text transform="translate({x:g} {side - 6}) rotate(-90)">'
            f"{html.escape(_short(name))}</text>"
        )
    for i, name in enumerate(rows):
        y = side + _CELL * i
        at = f'x="{side - 8}" y="{y + 15}" text-anchor="end"'
        cells += f"<text {at}>{html.escape(_short(name))}</text>"
        cells += _cells(answers[name], name, columns, side, y)
    width, height = side + _CELL * len(columns) + 2, side + _CELL * len(rows) + 2
    frame = (
        f'<rect x="{side}" y="{side}" width="{_CELL * len(columns)}" '
        f'height="{_CELL * len(rows)}" fill="none" stroke="var(--line)"/>'
    )
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Confusion of {len(rows)} classes">{cells}{frame}</svg>'
    )


def _cells(answered: Mapping[str, int], own: str, columns: Sequence[str], left: int, y: int) -> str:
    drawn, total = "", sum(answered.values())
    for j, name in enumerate(columns):
        share = answered.get(name, 0) / total
        if share < 0.005:
            continue
        x, colour = left + _CELL * j, "good" if name == own else "bad"
        number = f"{100 * share:.0f}"
        drawn += (
            f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" fill="var(--{colour})" '
            f'fill-opacity="{0.08 + 0.48 * share:.2f}">'
            f"<title>{html.escape(own)} answered {html.escape(name)}: {number} %</title></rect>"
            f'<text x="{x + _CELL / 2:g}" y="{y + 15}" text-anchor="middle" '
            f'pointer-events="none">{number}</text>'
        )
    return drawn


def _short(name: str) -> str:
    """The two ends of a long name."""
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"

"""A study's tables as Markdown, for a page of documentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import OutputError
from ..core.figures import HeadRow, KShotRow, StudyFigures, StudyResults, StudyRow

# What stands above in a page is written by hand, and stays.
MARK = "<!-- below: `fewshot study … --page`; change the code, not these lines -->"

Rows = Sequence[HeadRow] | Sequence[StudyFigures]


def write(path: Path, results: StudyResults) -> None:
    """Put the tables into a page, in place of all below `MARK`.

    Raises OutputError where the page cannot be read or written.
    """
    try:
        above = path.read_text(encoding="utf-8").partition(MARK)[0] if path.exists() else ""
        path.write_text(f"{above}{MARK}\n\n{tables(results)}", encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error


def tables(results: StudyResults) -> str:
    """Other heads over all rows that have any and row by row, then the rows side by side."""
    versions = ", ".join(f"{name} {v}" for name, v in results.manifest["versions"].items() if v)
    parts = [f"Begun {results.manifest['started']} on {results.manifest['machine']}; {versions}."]
    parts += [f"Not done: {name}: {why}" for name, why in results.failed.items()]
    rows = list(results.rows.values())
    with_heads = [row for row in rows if row.runs[0].heads]
    if len(with_heads) > 1:
        parts += ["## Heads over all rows", _over_rows(with_heads)]
    for row in with_heads:
        parts += [f"## Heads: {row.row}", _heads(row)]
    for titles in dict.fromkeys(_titles(row.figures) for row in rows):
        alike = [row for row in rows if _titles(row.figures) == titles]
        parts += [f"## Rows: {', '.join(titles)}", _side_by_side(titles, alike), _floors(alike)]
    return "\n\n".join(parts) + "\n"


def _title(row: HeadRow | StudyFigures | KShotRow) -> str:
    """A setting in a few words."""
    words = f"{row.n_way}-way K = {row.k_shot}"
    words += f", {row.groups}" if row.groups == "mixed" else ""
    words += f", Dirichlet({row.dirichlet:g})" if row.dirichlet else ""
    return words + (", leave-one-out" if row.protocol == "leave-one-out" else "")


def _titles(rows: Rows) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_title, rows)))


def _share(accuracy: float, ends: tuple[float, float] | None) -> str:
    width = "" if ends is None else f" ± {50 * (ends[1] - ends[0]):.1f}"
    return f"{100 * accuracy:.1f}{width}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of_head(row: StudyRow) -> dict[str, list[HeadRow]]:
    """A study row's first run's other heads, setting by setting."""
    found: dict[str, list[HeadRow]] = {}
    for one in row.runs[0].heads:
        found.setdefault(one.head, []).append(one)
    return found


def _heads(row: StudyRow) -> str:
    """Accuracy in % with half its interval, and CPU time of an episode in the first setting."""
    of_head = _of_head(row)
    titles = _titles(row.runs[0].heads)
    header = ["head", "asks", *titles, f"CPU ms, {_title(row.runs[0].heads[0])}"]
    best = [max(rows[i].accuracy for rows in of_head.values()) for i in range(len(titles))]
    cells = []
    for name, rows in of_head.items():
        shares = [_share(one.accuracy, one.ci95) for one in rows]
        shown = [
            f"**{text}**" if one.accuracy == most else text
            for one, text, most in zip(rows, shares, best, strict=True)
        ]
        cells.append([f"`{name}`", rows[0].queries, *shown, f"{1000 * rows[0].cpu_seconds:.2g}"])
    balances = dict(zip(titles, (one.balance for one in row.runs[0].heads), strict=False))
    even = "; ".join(f"{title}: {balance:.2f}" for title, balance in balances.items())
    return f"{_table(header, cells)}\n\nHow even the queries' classes were (1: all alike): {even}."


def _over_rows(rows: Sequence[StudyRow]) -> str:
    """Mean gain over the runs' own head in points, setting by setting, and the worst of a row."""
    every = [_of_head(row) for row in rows]
    names = [name for name in every[0] if all(name in of_head for of_head in every)]
    several = [dict.fromkeys(map(_title, column)) for column in zip(
        *(of_head[names[0]] for of_head in every), strict=False
    )]  # fmt: skip
    titles = [
        next(iter(same)) if len(same) == 1 else f"all classes K = {next(iter(same)).split()[-1]}"
        for same in several
    ]
    cells = []
    for name in names:
        gains = np.array([[100 * one.gain for one in of[name][: len(titles)]] for of in every])
        shown = [
            f"{mean:+.1f} ({low:+.1f})"
            for mean, low in zip(gains.mean(axis=0), gains.min(axis=0), strict=True)
        ]
        cells.append([f"`{name}`", every[0][name][0].queries, *shown])
    return (
        f"Points gained over the rows' own head, the mean of {len(rows)} rows (in brackets the "
        f"least):\n\n{_table(['head', 'asks', *titles], cells)}"
    )


def _side_by_side(titles: Sequence[str], rows: Sequence[StudyRow]) -> str:
    """Accuracy in % with half its interval over seeds, from three on, else over draws."""
    cells = []
    for row in rows:
        shares = [
            _share(of.accuracy, (of.ci95_seeds if len(row.runs) > 2 else None) or of.ci95_draws)
            for of in row.figures
        ]
        seeds, seconds = len(row.runs), row.cost.training_seconds
        cells.append([f"`{row.row}`", str(seeds), *shares, f"{seconds:.0f}"])
    return _table(["row", "seeds", *titles, "training s"], cells)


def _floors(rows: Sequence[StudyRow]) -> str:
    """What accuracies are to be compared with, where it was measured: pixels, and no training."""

    def shown(of: StudyFigures) -> str:
        before = "" if of.untrained is None else f" / {_share(of.untrained, None)}"
        return f"{_share(of.floor, None)}{before}"

    cells = [[f"`{row.row}`", *map(shown, row.figures)] for row in rows]
    header = ["raw pixels / network before training", *_titles(rows[0].figures)]
    return f"Floors, the same head on the same episodes:\n\n{_table(header, cells)}"

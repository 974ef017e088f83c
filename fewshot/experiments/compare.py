"""Runs against each other on the same episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, OutputError
from ..core.files import read_json
from ..engine.statistics import over_classes, paired_test
from ..reports.page import p_value, percent


def compare_runs(folders: Sequence[Path]) -> tuple[list[str], list[list[str]]]:
    """A table: for each K that all runs share, every run against the first.

    Paired by episode and, again, by class. Raises ConfigError where the runs have no K on the same
    episodes, OutputError for a folder without results.
    """
    results = [_rows(folder) for folder in folders]
    header = ["K", "way", "groups", "run", "accuracy", "difference"]
    header += ["95 %", "p", "95 % by class", "p by class"]
    rows: list[list[str]] = []
    first = results[0]
    for setting, base in first.items():
        others = [result[setting] for result in results if setting in result]
        if [row["digest"] for row in others] != [base["digest"]] * len(results):
            continue
        for folder, row in zip(folders, others, strict=True):
            rows.append(_line(folder, base, row, is_first=row is base))
    if not rows:
        raise ConfigError(
            "these runs share no K on the same episodes: evaluate them on the same images with "
            "the same --k-shot, --n-way, --groups, repeats and evaluation seed (fewshot eval)"
        )
    return header, rows


def _rows(folder: Path) -> dict[tuple[int, str, int], dict[str, Any]]:
    """A run's rows by n_way, grouping and K."""
    path = folder / "results.json"
    try:
        rows = read_json(path)["k_shot"]
        return {(row["n_way"], row["groups"], row["k_shot"]): row for row in rows}
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path}: not the results of a run") from error


def _line(folder: Path, base: dict[str, Any], row: dict[str, Any], is_first: bool) -> list[str]:
    cells = [str(row["k_shot"]), str(row["n_way"]), row["groups"], str(folder)]
    cells.append(percent(row["accuracy"]))
    if is_first:
        return [*cells, "", "", "", "", ""]
    draws = paired_test(np.array(base["per_episode"]), np.array(row["per_episode"]))
    classes = over_classes(base["per_class"], row["per_class"])
    cells.append(f"{100 * draws.difference:+.1f}")
    for test in (draws, classes):
        low, high = test.ci95
        cells += [f"{100 * low:+.1f} to {100 * high:+.1f}", p_value(test.p, test.n)]
    return cells

"""Runs against each other on the same episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from .checkpoint import read_json
from .errors import ConfigError, OutputError
from .report import percent


def paired_test(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Mean of b − a over the same episodes, its 95 % t interval, and the two-sided p-value.

    Without any spread the interval is the mean itself, and p is 1 for no difference, else 0.
    """
    difference = b - a
    n, mean = len(difference), float(np.mean(difference))
    error = float(np.std(difference, ddof=1)) / n**0.5
    if error == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = float(stdtrit(n - 1, 0.975)) * error
    return mean, mean - half, mean + half, 2 * float(stdtr(n - 1, -abs(mean) / error))


def compare_runs(folders: Sequence[Path]) -> tuple[list[str], list[list[str]]]:
    """A table: for each K that all runs share, every run against the first, paired by episode.

    Raises ConfigError where the runs have no K on the same episodes, OutputError for a folder
    without results.
    """
    results = [_rows(folder) for folder in folders]
    header = ["K", "way", "run", "accuracy", "difference", "95 %", "p"]
    rows: list[list[str]] = []
    first = results[0]
    for k, base in first.items():
        others = [result[k] for result in results if k in result]
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


def _rows(folder: Path) -> dict[int, dict[str, Any]]:
    """A run's rows by K."""
    path = folder / "results.json"
    try:
        return {row["k_shot"]: row for row in read_json(path)["k_shot"]}
    except (KeyError, TypeError) as error:
        raise OutputError(f"{path}: not the results of a run") from error


def _line(folder: Path, base: dict[str, Any], row: dict[str, Any], is_first: bool) -> list[str]:
    cells = [str(row["k_shot"]), str(row["n_way"]), str(folder), percent(row["accuracy"])]
    if is_first:
        return [*cells, "", "", ""]
    mean, low, high, p = paired_test(np.array(base["per_episode"]), np.array(row["per_episode"]))
    return [
        *cells,
        f"{100 * mean:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{p:.2g}" if p >= 0.0001 else "<0.0001",
    ]

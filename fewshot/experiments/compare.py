"""Runs against each other on the same episodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import ConfigError
from ..core.figures import Compared, KShotRow, part_of
from ..engine.statistics import over_classes, paired_test
from .folder import read_results


def compare_runs(folders: Sequence[Path]) -> list[Compared]:
    """For each K that all runs share: every run beside the first.

    Paired by episode and, again, by class. Raises ConfigError where the runs have no K on the same
    episodes, OutputError for a folder without results.
    """
    first, *others = (_by_setting(folder) for folder in folders)
    compared: list[Compared] = []
    for setting, base in first.items():
        rows = [rows[setting] for rows in others if setting in rows]
        if [row.digest for row in rows] != [base.digest] * len(others):
            continue
        compared.append(Compared(str(folders[0]), base))
        for folder, row in zip(folders[1:], rows, strict=True):
            draws = paired_test(np.array(base.per_episode), np.array(row.per_episode))
            classes = over_classes(base.per_class, row.per_class)
            compared.append(Compared(str(folder), row, draws, classes))
    if not compared:
        raise ConfigError(
            "these runs share no K on the same episodes: evaluate them on the same images with "
            "the same --k-shot, --n-way, --groups, repeats and evaluation seed (fewshot eval)"
        )
    return compared


def _by_setting(folder: Path) -> dict[tuple[str, int, str, float, int], KShotRow]:
    """A run's rows by protocol, n_way, grouping and K."""
    rows = read_results(folder).k_shot
    return {(*part_of(row), row.k_shot): row for row in rows}

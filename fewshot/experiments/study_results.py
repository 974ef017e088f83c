"""What a study's runs come to: means over seeds, intervals, spread of draws, paired tests."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ..core.components import Study
from ..engine.statistics import bootstrap_interval, over_classes, paired_test, t_interval
from .folder import FinishedRun, read_run


def tabulate(study: Study, folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """A study's figures as JSON can hold them; a row without a finished run has no figures.

    `rows`: for each row its runs and its figures in every setting; `paired`: every two rows on the
    same episodes; both in the order of the runs' own results.
    """
    runs = {row: [read_run(folder) for folder in of] for row, of in folders.items() if of}
    rows = {row: _row(row, of, study.published.get(row, {})) for row, of in runs.items()}
    first = next(iter(runs.values()))[0]
    return {
        "study": study.name,
        "rows": rows,
        "paired": [
            pair for a, b in combinations(rows, 2) for pair in _paired(a, b, rows[a], rows[b])
        ],
        "classes": sorted(name for part in first.manifest["classes"].values() for name in part),
        "manifest": first.manifest,
    }


def _row(row: str, runs: Sequence[FinishedRun], published: Mapping[int, float]) -> dict[str, Any]:
    settings = [run.results["k_shot"] for run in runs]
    figures = [_figures(list(same)) for same in zip(*settings, strict=True)]
    for of_k in figures:
        main = (of_k["n_way"], of_k["groups"]) == (figures[0]["n_way"], figures[0]["groups"])
        of_k["published"] = published.get(of_k["k_shot"]) if main else None
    return {
        "row": row,
        "figures": figures,
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.manifest["seed"],
                "parameters": run.manifest["parameters"],
                "training": run.results["training"],
                "speed": run.results["speed"],
                "verification": run.results["verification"],
                "records": run.records,
            }
            for run in runs
        ],
    }


def _figures(same: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One setting of one row, over its seeds.

    `per_draw`: by seed and draw. `ci95_seeds`: Student t over the seeds' accuracies, None for one
    seed; `ci95_draws`: over draws, and `ci95_classes`: bootstrap over classes, both of means over
    seeds. `draw_std`: standard deviation of a single draw, within a seed.
    """
    draws = np.array([row["per_episode"] for row in same])
    classes = {
        name: float(np.mean([row["per_class"][name] for row in same]))
        for name in same[0]["per_class"]
    }
    of_seed = draws.mean(axis=1)
    answers: dict[str, dict[str, int]] = {}
    for row in same:
        for name, given in row["confusion"].items():
            total = answers.setdefault(name, {})
            for answer, count in given.items():
                total[answer] = total.get(answer, 0) + count
    one = same[0]
    return {
        **{key: one[key] for key in ("k_shot", "n_way", "groups", "episodes", "digest")},
        "accuracy": float(draws.mean()),
        "ci95_seeds": t_interval(of_seed) if len(same) > 1 else None,
        "ci95_draws": t_interval(draws.mean(axis=0)),
        "ci95_classes": bootstrap_interval(np.array(list(classes.values()))),
        "draw_std": float(np.sqrt(draws.var(axis=1, ddof=1).mean())),
        "floor": float(np.mean([row["floor"] for row in same])),
        "untrained": float(np.mean([row["untrained"] for row in same])),
        "per_draw": draws.tolist(),
        "per_class": classes,
        "confusion": answers,
    }


def _paired(a: str, b: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Any]:
    """Two rows in every setting where they met the same episodes, means over seeds."""
    theirs = {of["digest"]: of for of in other["figures"]}
    found = []
    for of in one["figures"]:
        if of["digest"] not in theirs:
            continue
        match = theirs[of["digest"]]
        means = [np.mean(figures["per_draw"], axis=0) for figures in (of, match)]
        found.append(
            {
                "rows": [a, b],
                **{key: of[key] for key in ("k_shot", "n_way", "groups")},
                "draws": attrs.asdict(paired_test(*means)),
                "classes": attrs.asdict(over_classes(of["per_class"], match["per_class"])),
            }
        )
    return found

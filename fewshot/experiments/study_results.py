"""What a study's runs come to: means over seeds, intervals, spread of draws, paired tests."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from ..core.components import Study
from ..core.figures import (
    Cost,
    KShotRow,
    PairedRows,
    StudiedRun,
    StudyFigures,
    StudyResults,
    StudyRow,
    TrainingSummary,
    part_of,
)
from ..engine.statistics import (
    bootstrap_interval,
    lower_next,
    over_classes,
    paired_test,
    t_interval,
)
from .folder import FinishedRun, read_run


def tabulate(
    study: Study,
    folders: Mapping[str, Sequence[Path]],
    failed: Mapping[str, str],
    changed: Sequence[Mapping[str, Any]],
) -> StudyResults:
    """A study's figures; a row without a finished run has none.

    `rows`: for each row its runs and its figures in every setting; `paired`: every two rows on the
    same episodes; both in the order of the runs' own results. `failed`, `changed`: kept with them.
    """
    runs = {row: [read_run(folder) for folder in done] for row, done in folders.items() if done}
    rows = {row: _row(row, done, study.published.get(row, {})) for row, done in runs.items()}
    first = next(iter(runs.values()))[0]
    return StudyResults(
        study=study.name,
        rows=rows,
        paired=tuple(pair for a, b in combinations(rows.values(), 2) for pair in _paired(a, b)),
        classes=tuple(sorted(c for part in first.manifest["classes"].values() for c in part)),
        manifest=first.manifest,
        failed=failed,
        changed=tuple(changed),
    )


def _row(row: str, runs: Sequence[FinishedRun], published: Mapping[int, float]) -> StudyRow:
    settings = [run.results.k_shot for run in runs]
    figures = [_figures(same) for same in zip(*settings, strict=True)]
    main = part_of(figures[0])
    for i, one in enumerate(figures):
        if part_of(one) == main:
            figures[i] = one = evolve(one, published=published.get(one.k_shot))
        after = figures[i + 1] if i + 1 < len(figures) else None
        if after is not None and part_of(after) == part_of(one):
            figures[i] = evolve(one, lower_next=lower_next(one.per_draw, after.per_draw))
    studied = tuple(_run(run) for run in runs)
    return StudyRow(row, tuple(figures), _cost(studied), studied)


def _run(run: FinishedRun) -> StudiedRun:
    training = run.results.training
    assert isinstance(training, TrainingSummary)  # read_run refuses a run without
    return StudiedRun(
        folder=str(run.folder),
        seed=run.manifest["seed"],
        parameters=run.manifest["parameters"],
        training=training,
        speed=run.results.speed,
        verification=run.results.verification,
        records=tuple(run.records),
        heads=run.results.heads,
    )


def _cost(runs: Sequence[StudiedRun]) -> Cost:
    return Cost(
        parameters=runs[0].parameters,
        training_images_per_second=_mean([run.training.images_per_second for run in runs]),
        training_seconds=_mean([run.training.seconds for run in runs]),
        steps=_mean([run.training.steps for run in runs]),
        best_step=_mean([run.training.best_step for run in runs]),
        embedding_images_per_second=_mean([run.speed.batch_images_per_second for run in runs]),
        one_image_ms=_mean([run.speed.single_latency_ms for run in runs]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _figures(same: Sequence[KShotRow]) -> StudyFigures:
    """One setting of one row, over its seeds."""
    draws = np.array([row.per_episode for row in same])
    classes = {name: _mean([row.per_class[name] for row in same]) for name in same[0].per_class}
    answers: dict[str, dict[str, int]] = {}
    for row in same:
        for name, given in row.confusion.items():
            total = answers.setdefault(name, {})
            for answer, count in given.items():
                total[answer] = total.get(answer, 0) + count
    one = same[0]
    before = [row.untrained for row in same if row.untrained is not None]
    return StudyFigures(
        k_shot=one.k_shot,
        n_way=one.n_way,
        groups=one.groups,
        episodes=one.episodes,
        digest=one.digest,
        accuracy=float(draws.mean()),
        ci95_seeds=t_interval(draws.mean(axis=1)) if len(same) > 1 else None,
        ci95_draws=t_interval(draws.mean(axis=0)),
        ci95_classes=bootstrap_interval(np.array(list(classes.values()))),
        draw_std=float(np.sqrt(draws.var(axis=1, ddof=1).mean())),
        floor=_mean([row.floor for row in same]),
        untrained=_mean(before) if before else None,
        per_draw=tuple(row.per_episode for row in same),
        per_class=classes,
        confusion=answers,
        protocol=one.protocol,
        dirichlet=one.dirichlet,
        balance=_mean([row.balance for row in same]),
    )


def _paired(one: StudyRow, other: StudyRow) -> list[PairedRows]:
    """Two rows in every setting where they met the same episodes, means over seeds."""
    theirs = {figures.digest: figures for figures in other.figures}
    return [
        PairedRows(
            rows=(one.row, other.row),
            k_shot=ours.k_shot,
            n_way=ours.n_way,
            groups=ours.groups,
            draws=paired_test(
                np.mean(ours.per_draw, axis=0), np.mean(theirs[ours.digest].per_draw, axis=0)
            ),
            classes=over_classes(ours.per_class, theirs[ours.digest].per_class),
            dirichlet=ours.dirichlet,
        )
        for ours in one.figures
        if ours.digest in theirs
    ]

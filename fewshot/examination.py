"""Everything that is found out about trained parts: figures, floors, pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np

from . import checkpoint, pictures, report
from .adaptation import adapted_embeddings, evaluate_adapted, gain
from .assembly import Parts
from .calibration import calibrated, held_out_episodes
from .datasets import image_names, write_episode
from .draws import EpisodeBlock
from .embedding import embed, raw_pixels
from .evaluation import embedding_speed, evaluate, needed, predict, unembedded
from .interfaces import Metric
from .metrics import euclidean
from .records import Evaluation
from .training import snapshot
from .verification import verify

# (stage, done, total, what to show beside it, a line worth keeping or "")
Progress = Callable[[str, int, int, str, str], None]


def silent(stage: str, done: int, total: int, status: str, line: str) -> None:
    """No progress shown."""


def _embeddings(
    parts: Parts, what: str, progress: Progress, more: Sequence[EpisodeBlock] = ()
) -> Any:
    """Embeddings of every image that the evaluation, and `more`, needs."""
    tasks = [task for k in parts.episodes for task in parts.episodes[k]]
    tasks += more
    return embed(
        parts.embedder,
        parts.dataset,
        needed([*tasks, *(parts.pairs or ())]),
        progress=lambda done, total: progress(f"embedding, {what}", done, total, "", ""),
    )


def examine(
    parts: Parts, blank: list[tuple[str, mx.array]], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Every figure and picture of an evaluation; floor rows on the same episodes.

    `blank`: the learned parts' weights before training.
    """
    dataset, memory = parts.dataset, parts.config.evaluation.memory
    names = image_names(dataset)
    total = 3 * len(parts.episodes)

    def evaluations(rows: Any, metric: Metric, before: int) -> dict[int, Evaluation]:
        found, missing = {}, unembedded(rows)
        for done, (k, tasks) in enumerate(parts.episodes.items(), start=1):
            found[k] = evaluate(
                rows, tasks, parts.head, metric, dataset.classes, names, memory, missing
            )
            progress("episodes", before * len(parts.episodes) + done, total, "", "")
        return found

    # One after the other: of many images each table is large.
    held_out = held_out_episodes(dataset, parts.split, parts.config.evaluation)
    asked = [block for both in held_out.values() for blocks in both for block in blocks]
    rows = _embeddings(parts, "trained backbone", progress, asked)
    unknown = calibrated(rows, held_out, parts.head, parts.metric)
    ours = evaluations(rows, parts.metric, 0)
    first = {k: blocks[0].episode(0) for k, blocks in parts.episodes.items()}
    shown = first[min(first, key=lambda k: abs(k - 5))]
    verification = None
    if parts.pairs is not None:
        margin = parts.loss.margin if parts.loss.layout == "pairs" else None
        verification = attrs.asdict(verify(rows, *parts.pairs, parts.metric, margin))
    gains: dict[int, dict[str, Any]] = {k: {} for k in ours}
    if parts.config.adapter.name != "none":
        ours, gains = _adapted(parts, ours, names, progress)
        task = (parts.adapter, parts.embedder, dataset, shown, parts.metric, parts.config.seed)
        rows, _ = adapted_embeddings(*task)
    answers = predict(rows, shown, parts.head, parts.metric, memory)
    weights = snapshot(parts.learned)
    parts.learned.load_weights(blank)
    rows = _embeddings(parts, "untrained backbone", progress)
    untrained = evaluations(rows, parts.metric, 1)
    parts.learned.load_weights(weights)
    rows = raw_pixels(dataset, needed(t for k in parts.episodes for t in parts.episodes[k]))
    floor = evaluations(rows, euclidean(), 2)

    table = [
        _row(k, tasks, ours[k], floor[k], untrained[k], parts) | gains[k]
        for k, tasks in parts.episodes.items()
    ]
    for k, evaluation in ours.items():
        pictures.confusion(evaluation, f"K = {k}", folder / f"confusion_k{k}.png")
    pictures.k_shot(table, folder / "k_shot.png")
    if unknown:
        pictures.calibration(min(unknown, key=lambda row: abs(row["k_shot"] - 5)), folder)
    pictures.episode(dataset, shown, answers, folder / "episodes.png")
    written = {str(k): write_episode(dataset, task) for k, task in first.items()}
    checkpoint.write_json(folder / "episodes.json", written)
    return {
        "k_shot": table,
        "verification": verification,
        "unknown": unknown,
        "speed": embedding_speed(parts.embedder, parts.shape),
    }


def _adapted(
    parts: Parts, frozen: dict[int, Evaluation], names: Sequence[str], progress: Progress
) -> tuple[dict[int, Evaluation], dict[int, dict[str, Any]]]:
    """The evaluations with the adapter, and its gains."""
    total = sum(len(block) for blocks in parts.episodes.values() for block in blocks)
    found: dict[int, Evaluation] = {}
    gains: dict[int, dict[str, Any]] = {}
    before = 0
    for k, blocks in parts.episodes.items():

        def shown(done: int, before: int = before) -> None:
            progress("adapting", before + done, total, "", "")

        found[k], seconds = evaluate_adapted(
            parts.adapter,
            parts.embedder,
            parts.dataset,
            blocks,
            parts.head,
            parts.metric,
            names,
            parts.config.seed,
            parts.config.evaluation.memory,
            shown,
        )
        gains[k] = gain(frozen[k], found[k], seconds)
        before += len(found[k].per_episode)
        with_it, without = (report.percent(each[k].accuracy) for each in (found, frozen))
        progress("adapting", before, total, "", f"K = {k}: {with_it}, without {without}")
    return found, gains


def _row(
    k: int,
    tasks: list[EpisodeBlock],
    ours: Evaluation,
    floor: Evaluation,
    untrained: Evaluation,
    parts: Parts,
) -> dict[str, Any]:
    has_groups = parts.dataset.groups is not None
    return {
        "k_shot": k,
        "n_way": tasks[0].n_way,
        "accuracy": ours.accuracy,
        "ci95": ours.ci95,
        "ci95_classes": ours.ci95_classes,
        "floor": floor.accuracy,
        "floor_ci95": floor.ci95,
        "untrained": untrained.accuracy,
        "untrained_ci95": untrained.ci95,
        "groups": parts.config.evaluation.groups if has_groups else "none",
        "episodes": sum(len(block) for block in tasks),
        "queries": sum(block.query.size for block in tasks),
        "per_class": ours.per_class,
        "per_episode": ours.per_episode.tolist(),
        "confusion": {
            name: {
                ours.classes[j]: int(ours.confusion[i, j])
                for j in np.flatnonzero(ours.confusion[i])
            }
            for i, name in enumerate(ours.classes)
            if ours.confusion[i].any()
        },
        "digest": ours.digest,
    }

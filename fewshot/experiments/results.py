"""Everything that is found out about trained parts: figures, floors, pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import numpy as np

from ..compute.modules import snapshot
from ..core import files
from ..core.draws import EpisodeBlock
from ..core.interfaces import Head, Metric
from ..core.progress import Progress
from ..data.replay import image_names, write_episode
from ..engine.adaptation import adapted_embeddings, evaluate_adapted, gain
from ..engine.calibration import calibrated
from ..engine.embedding import embed, raw_pixels
from ..engine.evaluation import Evaluation, evaluate, predict, unembedded
from ..engine.protocol import Setting, held_out_episodes, needed
from ..engine.speed import embedding_speed
from ..engine.verification import verify
from ..parts.heads import nearest_prototype
from ..parts.metrics import euclidean
from ..reports import pictures
from ..reports.page import percent
from .assembly import Parts


def _embeddings(
    parts: Parts, what: str, progress: Progress, more: Sequence[EpisodeBlock] = ()
) -> Any:
    """Embeddings of every image that the evaluation, and `more`, needs."""
    tasks = [task for blocks in parts.episodes.values() for task in blocks]
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

    def evaluations(
        rows: Any, head: Head, metric: Metric, before: int
    ) -> dict[Setting, Evaluation]:
        found, missing = {}, unembedded(rows)
        for done, (setting, tasks) in enumerate(parts.episodes.items(), start=1):
            found[setting] = evaluate(
                rows, tasks, head, metric, dataset.classes, names, memory, missing
            )
            progress("episodes", before * len(parts.episodes) + done, total, "", "")
        return found

    # One after the other: of many images each table is large.
    held_out = {}
    if parts.head.queries == "alone":  # else no query has an answer of its own
        held_out = held_out_episodes(dataset, parts.split, parts.config.evaluation)
    asked = [block for both in held_out.values() for blocks in both for block in blocks]
    rows = _embeddings(parts, "trained backbone", progress, asked)
    unknown = calibrated(rows, held_out, parts.head, parts.metric)
    ours = evaluations(rows, parts.head, parts.metric, 0)
    main = next(iter(parts.episodes))
    first = {
        setting.k_shot: blocks[0].episode(0)
        for setting, blocks in parts.episodes.items()
        if (setting.n_way, setting.groups) == (main.n_way, main.groups)
    }
    shown = first[min(first, key=lambda k: abs(k - 5))]
    verification = None
    if parts.pairs is not None:
        margin = parts.loss.margin if parts.loss.layout == "pairs" else None
        verification = attrs.asdict(verify(rows, *parts.pairs, parts.metric, margin))
    gains: dict[Setting, dict[str, Any]] = {setting: {} for setting in ours}
    if parts.config.adapter.name != "none":
        ours, gains = _adapted(parts, ours, names, progress)
        task = (parts.adapter, parts.embedder, dataset, shown, parts.metric, parts.config.seed)
        rows, _ = adapted_embeddings(*task)
    answers = predict(rows, shown, parts.head, parts.metric, memory)
    weights = snapshot(parts.learned)
    parts.learned.load_weights(blank)
    rows = _embeddings(parts, "untrained backbone", progress)
    untrained = evaluations(rows, parts.head, parts.metric, 1)
    parts.learned.load_weights(weights)
    # A learned head is one of embeddings of the backbone's length.
    plain = parts.head if parts.head.module is None else nearest_prototype()
    rows = raw_pixels(
        dataset, needed(task for blocks in parts.episodes.values() for task in blocks)
    )
    floor = evaluations(rows, plain, euclidean(), 2)

    table = [
        _row(setting, tasks, ours[setting], floor[setting], untrained[setting]) | gains[setting]
        for setting, tasks in parts.episodes.items()
    ]
    pictured = table[: len(first)]
    answerable = parts.split.test if main.n_way else dataset.classes
    for row in pictured:
        path = folder / f"confusion_k{row['k_shot']}.png"
        text = f"K = {row['k_shot']}: {row['accuracy']:.1%}"
        pictures.confusion(row["confusion"], answerable, text, path)
    pictures.k_shot(pictured, folder / "k_shot.png")
    if unknown:
        pictures.calibration(min(unknown, key=lambda row: abs(row["k_shot"] - 5)), folder)
    pictures.episode(dataset, shown, answers, folder / "episodes.png")
    written = {str(k): write_episode(dataset, task) for k, task in first.items()}
    files.write_json(folder / "episodes.json", written)
    return {
        "k_shot": table,
        "queries": parts.head.queries,
        "verification": verification,
        "unknown": unknown,
        "speed": embedding_speed(parts.embedder, parts.shape),
    }


def _adapted(
    parts: Parts, frozen: dict[Setting, Evaluation], names: Sequence[str], progress: Progress
) -> tuple[dict[Setting, Evaluation], dict[Setting, dict[str, Any]]]:
    """The evaluations with the adapter, and its gains."""
    total = sum(len(block) for blocks in parts.episodes.values() for block in blocks)
    found: dict[Setting, Evaluation] = {}
    gains: dict[Setting, dict[str, Any]] = {}
    before = 0
    for setting, blocks in parts.episodes.items():

        def shown(done: int, before: int = before) -> None:
            progress("adapting", before + done, total, "", "")

        found[setting], seconds = evaluate_adapted(
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
        gains[setting] = gain(frozen[setting], found[setting], seconds)
        before += len(found[setting].per_episode)
        with_it, without = (percent(each[setting].accuracy) for each in (found, frozen))
        line = f"K = {setting.k_shot}: {with_it}, without {without}"
        progress("adapting", before, total, "", line)
    return found, gains


def _row(
    setting: Setting,
    tasks: list[EpisodeBlock],
    ours: Evaluation,
    floor: Evaluation,
    untrained: Evaluation,
) -> dict[str, Any]:
    return {
        "k_shot": setting.k_shot,
        "n_way": tasks[0].n_way,
        "accuracy": ours.accuracy,
        "ci95": ours.ci95,
        "ci95_classes": ours.ci95_classes,
        "floor": floor.accuracy,
        "floor_ci95": floor.ci95,
        "untrained": untrained.accuracy,
        "untrained_ci95": untrained.ci95,
        "groups": setting.groups,
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

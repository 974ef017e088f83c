"""From a configuration to a run folder: the one path of the command line and of library users."""

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen

from . import checkpoint, report
from .config import LISTS, Chosen, RunConfig, read_toml, to_toml
from .datasets import ArrayDataset, decode, image_names, split_classes, write_episode
from .embedding import Embedder, embed, raw_pixels
from .errors import ClassTooSmallError, ConfigError, DataError, InterruptedRunError, OutputError
from .evaluation import (
    class_ids,
    embedding_speed,
    evaluate,
    k_shot_episodes,
    needed,
    only,
    predict,
    validation,
    verification_pairs,
    verify,
)
from .interfaces import Dataset, Head, Loss, Metric, Sampler, Transform
from .metrics import euclidean
from .records import ClassSplit, Draw, EpisodeBlock, Evaluation, History, Pairs, SplitOptions
from .registry import Registry
from .runtime import Runtime
from .seeding import generator, mlx_seed
from .training import Learned, check_fits, fit, make_optimizer, parameter_count, snapshot

# (stage, done, total, what to show beside it, a line worth keeping or "")
Progress = Callable[[str, int, int, str, str], None]


def _silent(stage: str, done: int, total: int, status: str, line: str) -> None:
    """No progress shown."""


@frozen
class Parts:
    """Everything a configuration names, made."""

    config: RunConfig
    origins: dict[str, str]
    dataset: Dataset
    split: ClassSplit
    embedder: Embedder
    metric: Metric
    loss: Loss
    head: Head
    sampler: Sampler[Draw]
    augment: tuple[Transform, ...]
    episodes: dict[int, list[EpisodeBlock]]
    pairs: tuple[Pairs, Pairs] | None
    shape: tuple[int, int, int]

    @property
    def learned(self) -> nn.Module:
        """What the weights file holds."""
        return Learned(self.embedder.backbone, self.metric, self.loss)


@contextmanager
def _naming(classes: tuple[str, ...]) -> Iterator[None]:
    """A class too small is named, not numbered."""
    try:
        yield
    except ClassTooSmallError as error:
        raise error.named(classes) from error


def build(config: RunConfig, registry: Registry) -> Parts:
    """Make every part; nothing is decoded yet.

    Raises ConfigError for what a part refuses, DataError for classes too small.
    """
    origins: dict[str, str] = {}

    def make(kind: str, chosen: Chosen, *arguments: Any) -> Any:
        entry = registry.get(kind, chosen.name)
        origins[f"{kind} {entry.qualified}"] = f"{entry.provider} {entry.version}"
        return entry.component.factory(chosen.options, *arguments)

    metric, loss, head = (make(kind, getattr(config, kind)) for kind in ("metric", "loss", "head"))
    augment, preprocess = (
        tuple(make("transform", chosen) for chosen in getattr(config, key)) for key in LISTS
    )
    dataset = make("dataset", config.dataset)
    split = split_classes(dataset, config.split)
    with _naming(dataset.classes):
        training = only(dataset.labels, class_ids(dataset, split.train))
        sampler = make("sampler", config.sampler, training, dataset.groups)
        episodes = k_shot_episodes(dataset, split, config.evaluation)
        pairs = verification_pairs(dataset, split, config.evaluation)
    shape = dataset[0].shape
    mx.random.seed(mlx_seed(config.seed, "backbone"))
    backbone = make("backbone", config.backbone, shape)
    mx.eval(backbone.parameters())
    embedder = Embedder(backbone, preprocess, config.embedding.normalize)
    return Parts(
        config, origins, dataset, split, embedder, metric, loss, head, sampler, augment,
        episodes, pairs, shape,
    )  # fmt: skip


def check(parts: Parts) -> None:
    """Refuse, before anything is decoded, what cannot be trained.

    Raises ConfigError for parts that do not fit and for transforms in the wrong list, DataError for
    classes too small to validate on.
    """
    try:
        check_fits(parts.embedder, parts.sampler, parts.loss, parts.metric, parts.head)
    except ConfigError as error:
        named = ("loss", "sampler", "metric", "head")
        listed = ", ".join(f"{kind} '{getattr(parts.config, kind).name}'" for kind in named)
        raise ConfigError(f"{listed}: {error}") from error
    make_optimizer(parts.config.training)
    _validation(parts)
    copies = np.repeat(parts.dataset[0][None], 8, axis=0).astype(np.float32) / np.float32(255)
    for chosen, transform in zip(parts.config.augment, parts.augment, strict=True):
        changed = transform(copies, generator(0, "check"))
        if changed.min() < 0 or changed.max() > 1:
            raise ConfigError(f"augment: '{chosen.name}' leaves [0, 1]; it belongs in preprocess")
    for chosen, transform in zip(parts.config.preprocess, parts.embedder.preprocess, strict=True):
        changed = transform(copies, generator(0, "check"))
        if not np.array_equal(changed, transform(copies, generator(1, "check"))):
            raise ConfigError(f"preprocess: '{chosen.name}' is random; it belongs in augment")


def run(
    config: RunConfig,
    registry: Registry,
    out: Path | None = None,
    runtime: Runtime | None = None,
    progress: Progress = _silent,
) -> Path:
    """Train, evaluate and write a run folder (`out`, or the next number under `runs`).

    Interrupted in training, the folder holds the best weights so far and `status` "interrupted" in
    its manifest; `evaluate_run` then examines them.
    """
    parts = build(config, registry)
    check(parts)
    folder = checkpoint.new_folder(Path("runs")) if out is None else checkpoint.named_folder(out)
    try:
        parts = _decoded(parts, progress)
    except BaseException:
        folder.rmdir()  # nothing is in it yet
        raise
    config = evolve(config, split=_named(config.split, parts.split))
    checkpoint.write_text(folder / "config.toml", to_toml(config))
    manifest = _manifest(parts, runtime)

    def note(**facts: Any) -> None:
        manifest.update(facts)
        checkpoint.write_json(folder / "manifest.json", manifest)

    note(status="training")
    try:
        blank = snapshot(parts.learned)
        history = _train(parts, folder, progress)
        note(
            weights_sha256=checkpoint.save_weights(parts.learned, folder / checkpoint.WEIGHTS),
            training=attrs.asdict(history, filter=lambda a, _: a.name != "records"),
        )
        report.curves(history.records, folder / "curves.png")
        if history.stopped == "interrupted":
            note(status="interrupted")
            raise InterruptedRunError(
                f"interrupted at step {history.steps}; the best weights so far are kept: "
                f"fewshot eval {folder}"
            )
        results = _examine(parts, blank, folder, progress)
        results["training"] = manifest["training"]
        checkpoint.write_json(folder / "results.json", results)
        report.page(folder, "Run", manifest, results, to_toml(config))
        note(status="finished", finished=_now())
    except (Exception, KeyboardInterrupt) as error:
        if manifest["status"] != "interrupted":
            note(status=f"ended early: {type(error).__name__}: {error}")
        raise
    return folder


def load_run(folder: Path) -> dict[str, Any]:
    """The configuration of a run folder as a layer. Raises OutputError where it is none."""
    path = folder / "config.toml"
    if not path.is_file():
        raise OutputError(f"{folder}: not a run folder (it has no config.toml)")
    return read_toml(path)


def evaluate_run(
    folder: Path, config: RunConfig, registry: Registry, progress: Progress = _silent
) -> Path:
    """Evaluate a run's weights under another configuration, into a folder inside the run's.

    Raises DataError for test classes that the run was trained on, OutputError for damaged weights.
    """
    manifest = checkpoint.read_json(folder / "manifest.json")
    weights = folder / checkpoint.WEIGHTS
    if not weights.is_file():
        raise OutputError(f"{folder}: no weights yet (its status: {manifest.get('status')})")
    parts = build(config, registry)
    known = {*manifest["classes"]["train"], *manifest["classes"]["val"]} & {*parts.split.test}
    if known:
        raise DataError(f"the run was trained or stopped on {', '.join(sorted(known))}: no test")
    if load_run(folder)["metric"]["name"] != config.metric.name:
        parts = evolve(parts, loss=evolve(parts.loss, margin=None))  # it was another metric's
    blank = snapshot(parts.learned)
    checkpoint.load_weights(parts.learned, weights, manifest.get("weights_sha256"))
    parts = _decoded(parts, progress)
    out = checkpoint.new_folder(folder, "eval-")
    checkpoint.write_text(out / "config.toml", to_toml(config))
    results = _examine(parts, blank, out, progress)
    checkpoint.write_json(out / "results.json", results)
    report.page(out, "Evaluation", manifest, results, to_toml(config))
    return out


# -------------------------------------------------------------------------------- steps


def _named(options: SplitOptions, split: ClassSplit) -> SplitOptions:
    """The split by its names, so that it stays what it was when the data or defaults change."""
    named = attrs.asdict(split, recurse=False)
    return evolve(options, **named, file=None, draw=False)


def _decoded(parts: Parts, progress: Progress) -> Parts:
    if isinstance(parts.dataset, ArrayDataset):
        return parts
    total = len(parts.dataset.labels)
    images = decode(
        parts.dataset,
        lambda done, total: progress("images", done, total, "", ""),
        lambda line: progress("images", 0, total, "", line),
    )
    return evolve(parts, dataset=images)


def _embeddings(parts: Parts, what: str, progress: Progress) -> Any:
    """Embeddings of every image that the evaluation needs."""
    tasks = [task for k in parts.episodes for task in parts.episodes[k]]
    return embed(
        parts.embedder,
        parts.dataset,
        needed([*tasks, *(parts.pairs or ())]),
        progress=lambda done, total: progress(f"embedding, {what}", done, total, "", ""),
    )


def _validation(parts: Parts) -> Callable[[], Mapping[str, float]] | None:
    config = parts.config
    with _naming(parts.dataset.classes):
        return validation(
            parts.embedder,
            parts.dataset,
            parts.split,
            parts.head,
            parts.metric,
            config.evaluation.groups,
            config.training.validation_pool,
        )


def _train(parts: Parts, folder: Path, progress: Progress) -> History:
    config = parts.config

    def keep(record: Mapping[str, Any]) -> None:
        checkpoint.append_line(folder / "metrics.jsonl", record)
        progress("training", record["step"], config.training.steps, "", _line(record))

    return fit(
        parts.embedder,
        parts.dataset,
        parts.sampler,
        parts.loss,
        parts.metric,
        parts.head,
        config.training,
        parts.augment,
        _validation(parts),
        config.seed,
        on_record=keep,
        on_best=lambda model: checkpoint.save_weights(model, folder / checkpoint.WEIGHTS),
        progress=lambda done, total, speed: progress("training", done, total, speed, ""),
    )


def _line(record: Mapping[str, Any]) -> str:
    """A record as one line of text."""
    parts = [f"loss {record['loss']:.4f}", f"{record['above_zero']:.0%} above 0"]
    parts += [f"{name} {record[name]:.3f}" for name in ("score", "auc") if name in record]
    return ", ".join([*parts, f"{record['images_per_second']:.0f} images/s"])


def _examine(
    parts: Parts, blank: list[tuple[str, mx.array]], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Every figure and picture of an evaluation; floor rows on the same episodes.

    `blank`: the learned parts' weights before training.
    """
    dataset, memory = parts.dataset, parts.config.evaluation.memory
    names = image_names(dataset)
    total = 3 * len(parts.episodes)

    def evaluations(rows: Any, metric: Metric, before: int) -> dict[int, Evaluation]:
        found = {}
        for done, (k, tasks) in enumerate(parts.episodes.items(), start=1):
            found[k] = evaluate(rows, tasks, parts.head, metric, dataset.classes, names, memory)
            progress("episodes", before * len(parts.episodes) + done, total, "", "")
        return found

    # One after the other: of many images each table is large.
    rows = _embeddings(parts, "trained backbone", progress)
    ours = evaluations(rows, parts.metric, 0)
    first = {k: blocks[0].episode(0) for k, blocks in parts.episodes.items()}
    shown = first[min(first, key=lambda k: abs(k - 5))]
    answers = predict(rows, shown, parts.head, parts.metric, memory)
    verification = None
    if parts.pairs is not None:
        margin = parts.loss.margin if parts.loss.layout == "pairs" else None
        verification = attrs.asdict(verify(rows, *parts.pairs, parts.metric, margin))
    weights = snapshot(parts.learned)
    parts.learned.load_weights(blank)
    rows = _embeddings(parts, "untrained backbone", progress)
    untrained = evaluations(rows, parts.metric, 1)
    parts.learned.load_weights(weights)
    rows = raw_pixels(dataset, needed(t for k in parts.episodes for t in parts.episodes[k]))
    floor = evaluations(rows, euclidean(), 2)

    table = [
        _row(k, tasks, ours[k], floor[k], untrained[k], parts)
        for k, tasks in parts.episodes.items()
    ]
    for k, evaluation in ours.items():
        report.confusion(evaluation, f"K = {k}", folder / f"confusion_k{k}.png")
    report.k_shot(table, folder / "k_shot.png")
    report.episode(dataset, shown, answers, folder / "episodes.png")
    written = {str(k): write_episode(dataset, task) for k, task in first.items()}
    checkpoint.write_json(folder / "episodes.json", written)
    return {
        "k_shot": table,
        "verification": verification,
        "speed": embedding_speed(parts.embedder, parts.shape),
    }


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


# ----------------------------------------------------------------------------- manifest


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _manifest(parts: Parts, runtime: Runtime | None) -> dict[str, Any]:
    """What a figure depends on beside the configuration."""
    packages = ("fewshot", "mlx", "numpy", "pillow", "scipy")
    return {
        "started": _now(),
        "seed": parts.config.seed,
        "components": parts.origins,
        "classes": attrs.asdict(parts.split),
        "parameters": parameter_count(parts.learned),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "data": _data(parts.dataset),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(mx.default_device()),
        "runtime": None if runtime is None else attrs.asdict(runtime),
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    """Which images: by the names and contents of their files, where there are any, else pixels."""
    assert isinstance(dataset, ArrayDataset)
    images = dataset.images
    of_what = {"files_sha256": dataset.files_sha256}
    if dataset.files_sha256 is None:
        of_what = {"pixels_sha256": sha256(np.ascontiguousarray(images).data).hexdigest()}
    return {
        "images": len(images),
        "shape": list(images.shape[1:]),
        **of_what,
        "decoded": str(getattr(images, "filename", "memory")),
    }

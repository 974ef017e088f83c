"""From a configuration to a run folder: the one path of the command line and of library users."""

import platform
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import attrs
import mlx.core as mx
import numpy as np
from attrs import evolve, frozen

from ..catalogue.registry import Registry
from ..compute.modules import parameter_count, snapshot
from ..compute.runtime import Runtime
from ..core import files
from ..core.errors import ConfigError, DataError, InterruptedRunError, OutputError
from ..core.figures import RunResults, TrainingSummary, collapsed
from ..core.interfaces import Dataset, Observer
from ..core.locks import held
from ..core.progress import Progress, silent
from ..data.datasets import ArrayDataset, decode
from ..data.episode_files import write_episode
from ..data.split import named, one_for_test
from ..engine.checkpoints import CHECKPOINT, checkpoints, go_on
from ..engine.embedding import recentre
from ..engine.training import History, Training, train
from ..engine.validation import validating
from ..engine.weights import INITIAL, WEIGHTS, fill, read_weights, save_weights
from ..reports import run_page
from ..reports.advice import advice
from .assembly import Draws, Parts, build, check, drawn, initialise
from .config import RunConfig, resolve, to_toml, to_tree
from .folder import (
    CONFIG,
    RESULTS,
    from_json,
    hashes_of_shown,
    run_config,
    run_weights,
    to_json,
    whole_weights,
)
from .manifest import read_manifest, write_manifest
from .results import Examination, examine
from .schema import Tree
from .status import LOCK, METRICS, require_empty, run_folder, run_status


def run(
    config: RunConfig,
    registry: Registry,
    out: Path | None = None,
    runtime: Runtime | None = None,
    progress: Progress = silent,
    images: ArrayDataset | None = None,
) -> Path:
    """Train, evaluate and write a run folder (`out`, or the next number under `runs`).

    `images`: the configuration's data set, where it is decoded already.

    Interrupted or killed, `resume` goes on with it; the folder holds the best weights so far, which
    `evaluate_run` examines. Raises OutputError where another process is at work in the folder.
    """
    parts = build(config, registry, images)
    draws = check(parts)
    begun = _initialised(parts, registry)
    folder = run_folder(out)
    with held(folder / LOCK, str(folder)):
        require_empty(folder)
        try:
            parts = evolve(parts, dataset=decoded(parts.dataset, progress))
        except BaseException:
            rmtree(folder)  # nothing is in it yet
            raise
        config = evolve(config, split=named(config.split, parts.split))
        parts = evolve(parts, config=config)
        manifest = _manifest(parts, runtime)
        manifest["files"] = {CONFIG: files.write_text(folder / CONFIG, to_toml(config))}
        return _carried_out(parts, draws, begun, folder, manifest, progress)


def resume(
    folder: Path,
    registry: Registry,
    runtime: Runtime | None = None,
    progress: Progress = silent,
    images: ArrayDataset | None = None,
    data: Path | None = None,
) -> Path:
    """Go on with a run that was interrupted or killed, from its last checkpoint; returns `folder`.

    What it comes to is what it would have come to left alone, bit for bit but for times, on the
    same machine, cores and releases; others are told in a line of progress. A run that is finished
    is left as it is. `images`: its data set, where it is decoded already; `data`: where its images
    have moved to.

    Raises OutputError where the folder is no run, is damaged or another process is at work in it,
    DataError where the images are no longer the run's.
    """
    run_status(folder)  # it is a run, before it gets a lock
    with held(folder / LOCK, str(folder)):
        if run_status(folder).finished:
            return folder
        layers: list[Tree] = [run_config(folder)]
        if data is not None:
            layers.append({"dataset": {"path": str(data)}})
        parts = build(resolve(registry, layers), registry, images)
        draws = check(parts)
        kept = read_manifest(folder)
        begun = _initialised(parts, registry, folder, kept.get("initial_sha256"))
        parts = evolve(parts, dataset=decoded(parts.dataset, progress))
        manifest = _manifest(parts, runtime)
        _require_same(kept, manifest, folder, progress)
        manifest |= {**kept, "resumed": [*kept.get("resumed", []), _now()]}
        return _carried_out(parts, draws, begun, folder, manifest, progress)


def trained(folder: Path, registry: Registry) -> Parts:
    """A run's parts with its trained weights, in eval mode; its images are not decoded.

    `embed(parts.embedder, …)`, `parts.metric` and `parts.head` serve any images of `parts.shape`.
    Raises OutputError for a folder that is no run, has no weights yet or damaged ones.
    """
    config = resolve(registry, [run_config(folder)])
    weights = whole_weights(folder, config)
    parts = build(config, registry, saved=weights)
    fill(parts.learned, weights, f"{folder}: its weights")
    parts.learned.eval()
    return parts


def evaluate_run(
    folder: Path, config: RunConfig, registry: Registry, progress: Progress = silent
) -> Path:
    """Evaluate a run's weights under another configuration, into a folder inside the run's.

    Raises DataError for test classes that the run was trained on, OutputError for damaged weights,
    ConfigError for another metric or head that has learned parts.
    """
    files.sweep(folder)  # what a killed run has left
    manifest = read_manifest(folder)
    parts = build(config, registry, saved=run_weights(folder))
    try:
        split = manifest["classes"]
        known = {*split["train"], *split["val"]} & {*parts.split.test}
    except (KeyError, TypeError) as error:
        raise OutputError(f"{folder}: its manifest does not tell its classes") from error
    if known:
        raise DataError(f"the run was trained or stopped on {', '.join(sorted(known))}: no test")
    if run_config(folder)["metric"]["name"] != config.metric.name:
        parts = evolve(parts, loss=evolve(parts.loss, margin=None))  # it was another metric's
    draws = drawn(parts)
    if (folder / INITIAL).is_file():
        initial = read_weights(folder / INITIAL, manifest.get("initial_sha256"))
        fill(parts.learned, _with_centre(initial, parts), f"{folder / INITIAL}: its weights")
    blank = snapshot(parts.learned)
    weights = _kept_weights(folder, parts)
    fill(parts.learned, _with_centre(weights, parts), f"{folder}: its weights")
    parts = evolve(parts, dataset=decoded(parts.dataset, progress))
    whole = parts.of_centre.keys() <= weights.keys()
    if not whole or "weights_sha256" not in manifest:  # none, or not the last
        recentre(parts.embedder, parts.dataset, parts.training_images)
    _tell_instead(parts, draws, progress)
    out = files.new_folder(folder, "eval-")
    hashed = {CONFIG: files.write_text(out / CONFIG, to_toml(config))}
    done = _training_done(manifest, folder)
    if done is not None and done.steps > 0:
        done = None  # it is of the run, and not of this evaluation
    examination = examine(parts, draws, blank, progress)
    _report(out, "Evaluation", parts, examination, manifest, hashed, done)
    facts = {"of": "an evaluation", "weights": manifest.get("weights_sha256"), "finished": _now()}
    write_manifest(out, {**facts, "files": hashed})
    return out


def _kept_weights(folder: Path, parts: Parts) -> dict[str, mx.array]:
    """A run's weights, but for those of a metric or head that is now another.

    Raises ConfigError where the other one would have to be trained first.
    """
    weights, learned = run_weights(folder), parts.learned.children()
    for kind in ("metric", "head"):
        name = getattr(parts.config, kind).name
        if run_config(folder)[kind]["name"] == name:
            continue
        if kind in learned:
            raise ConfigError(
                f"{kind} '{name}' has learned parts, which {folder} did not train: "
                f"fewshot run --{kind} {name}"
            )
        weights = {k: v for k, v in weights.items() if not k.startswith(f"{kind}.")}
    return weights


def _with_centre(weights: Mapping[str, mx.array], parts: Parts) -> dict[str, mx.array]:
    """Weights with a centre just where the parts have one: the weights' own, else zeros."""
    own = parts.of_centre
    return own | {n: a for n, a in weights.items() if not n.startswith("centre.") or n in own}


def decoded(dataset: Dataset, progress: Progress = silent) -> ArrayDataset:
    """All images of a dataset, decoded where they are not."""
    if isinstance(dataset, ArrayDataset):
        return dataset
    total = len(dataset.labels)
    for note in getattr(dataset, "notes", ()):
        progress("images", 0, total, "", note)
    return decode(
        dataset,
        lambda done, total: progress("images", done, total, "", ""),
        lambda line: progress("images", 0, total, "", line),
    )


def identity(images: ArrayDataset) -> dict[str, Any]:
    """Which images: by the names and contents of their files, where there are any, else pixels."""
    of_what = {"files_sha256": images.files_sha256}
    if images.files_sha256 is None:
        of_what = {"pixels_sha256": sha256(np.ascontiguousarray(images.images).data).hexdigest()}
    return {"images": len(images.images), "shape": list(images.images.shape[1:]), **of_what}


# -------------------------------------------------------------------------------- steps


@frozen
class _Begun:
    """What training begins with: `blank`, the weights that the floor of the run has.

    `initialised`: whether training begins with weights from elsewhere, which are that floor.
    """

    blank: list[tuple[str, mx.array]]
    initialised: bool


def _initialised(
    parts: Parts, registry: Registry, folder: Path | None = None, sha256: str | None = None
) -> _Begun:
    """Give the parts the weights they have from elsewhere, those kept in a run's folder first."""
    if folder is not None and sha256 is not None:
        fill(parts.learned, read_weights(folder / INITIAL, sha256), str(folder / INITIAL))
        return _Begun(snapshot(parts.learned), True)
    blank = snapshot(parts.learned)
    if initialise(parts, registry) and parts.sampler is not None:
        return _Begun(snapshot(parts.learned), True)
    return _Begun(blank, False)


def _carried_out(
    parts: Parts,
    draws: Draws,
    begun: _Begun,
    folder: Path,
    manifest: dict[str, Any],
    progress: Progress,
) -> Path:
    """Do what is left of a run, by its manifest and what is in its folder."""

    hashed = manifest["files"]

    def note(**facts: Any) -> None:
        manifest.update(facts)
        write_manifest(folder, manifest)

    audience = _Audience(parts, progress)
    done = _training_done(manifest, folder)
    if done is None:  # what is known of weights that were interrupted is true of them no longer
        manifest.pop("training", None)
        manifest.pop("weights_sha256", None)
    note(status="training" if done is None else "evaluating")
    try:
        audience.tell("start", folder, to_tree(parts.config))
        _tell_instead(parts, draws, progress)
        if done is None:
            if begun.initialised:  # `eval` has the same floor, without what they came from
                note(initial_sha256=save_weights(parts.learned, folder / INITIAL))
            history = _train(parts, draws, folder, audience, progress)
            recentre(parts.embedder, parts.dataset, parts.training_images)
            done = TrainingSummary(
                **{f.name: getattr(history, f.name) for f in attrs.fields(TrainingSummary)}
            )
            interrupted = done.stopped == "interrupted"
            note(
                weights_sha256=save_weights(parts.learned, folder / WEIGHTS),
                training=attrs.asdict(done),
                status="interrupted" if interrupted else "evaluating",
            )
            if history.records:
                from ..reports import pictures  # late, as in run_page

                pictures.curves(history.records, folder / "curves.svg")
            if interrupted:
                raise InterruptedRunError(
                    f"interrupted at step {done.steps}; the best weights so far are kept: "
                    f"`fewshot resume {folder}` goes on, `fewshot eval {folder}` examines them"
                )
        else:
            weights = read_weights(folder / WEIGHTS, manifest.get("weights_sha256"))
            fill(parts.learned, weights, f"{folder}: its weights")
            parts.learned.eval()
        examination = examine(parts, draws, begun.blank, progress)
        results = _report(folder, "Run", parts, examination, manifest, hashed, done)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        note(status="finished", finished=_now())
    except (Exception, KeyboardInterrupt) as error:
        audience.tell("end", None)
        if isinstance(error, KeyboardInterrupt):
            note(status="interrupted")
            line = f"interrupted: `fewshot resume {folder}` goes on"
            raise InterruptedRunError(line) from error
        if not isinstance(error, InterruptedRunError):
            note(status=f"ended early: {type(error).__name__}: {error}")
        raise
    audience.tell("end", to_json(results))
    return folder


def _training_done(manifest: Mapping[str, Any], folder: Path) -> TrainingSummary | None:
    """What came of a run's training, where it is over and only its evaluation is left."""
    if "training" not in manifest:
        return None
    done = from_json(TrainingSummary, manifest["training"], f"{folder}: damaged manifest")
    return None if done.stopped == "interrupted" else done


def _require_same(
    kept: Mapping[str, Any], now: Mapping[str, Any], folder: Path, progress: Progress
) -> None:
    """Refuse other images; tell what else a run's bits depend on and is no longer what it was."""

    def of(manifest: Mapping[str, Any]) -> dict[str, Any]:
        data = {**manifest["data"]}
        data.pop("decoded")  # where to, which may be anywhere
        return data

    if of(kept) != of(now):
        raise DataError(f"{folder}: its images are not those that it began with")
    keys = ("components", "versions", "machine", "device", "runtime")
    changed = [key for key in keys if kept.get(key) != now[key]]
    if changed:
        line = f"not what the run began with: {', '.join(changed)}; figures may differ a little"
        progress("resume", 0, 0, "", line)


class _Audience:
    """The observers that are told of a run, each a copy of what there is to tell.

    One that raises is switched off, with a line of progress.
    """

    def __init__(self, parts: Parts, progress: Progress) -> None:
        names = [chosen.name for chosen in parts.config.observers]
        self._listening: list[tuple[str, Observer]] = [*zip(names, parts.observers, strict=True)]
        self._count, self._progress = len(names), progress

    def tell(self, what: Literal["start", "record", "end"], *news: Any) -> None:
        for listener in [*self._listening]:
            name, observer = listener
            try:
                getattr(observer, what)(*deepcopy(news))
            except (Exception, SystemExit) as error:
                self._listening.remove(listener)
                said = " ".join(f"{type(error).__name__}: {error}".split())
                line = f"'{name}' is switched off: its {what} raised {said}"
                self._progress("observers", len(self._listening), self._count, "", line)


def _report(
    folder: Path,
    title: str,
    parts: Parts,
    examination: Examination,
    manifest: Mapping[str, Any],
    hashed: dict[str, str],
    training: TrainingSummary | None = None,
) -> RunResults:
    """Write what was found out: figures, episodes, pictures, page; `hashed` gets their SHA-256."""

    results = evolve(examination.results, training=training)
    hashed[RESULTS] = files.write_json(folder / RESULTS, to_json(results))
    episodes = {str(k): write_episode(parts.dataset, e) for k, e in examination.first.items()}
    files.write_json(folder / "episodes.json", episodes)
    shown = examination.shown
    run_page.draw(folder, results)
    records = folder / METRICS
    trained_so = files.read_lines(records) if records.is_file() else []
    run_page.page(
        folder, title, manifest, results, to_toml(parts.config), parts.dataset, shown,
        advice(results, trained_so, manifest, to_tree(parts.config)),
    )  # fmt: skip
    hashed.update(hashes_of_shown(folder))
    return results


def _tell_instead(parts: Parts, draws: Draws, progress: Progress) -> None:
    """Say where the test is of one class, and which K have given way to leave-one-out."""
    line = one_for_test(parts.split)
    if line is not None:
        progress("episodes", 0, 3 * len(draws.episodes), "", line)
    folds = [tasks for setting, tasks in draws.episodes.items() if setting.protocol != "episodes"]
    if not folds:
        return
    kept = {setting.k_shot for setting in draws.episodes if setting.protocol == "episodes"}
    gone = ", ".join(str(k) for k in parts.config.evaluation.k_shot if k not in kept) or "some K"
    line = (
        f"too few images of a class for K = {gone} and queries: leave-one-out over "
        f"{sum(task.query.size for task in folds[0])} images of {folds[0][0].n_way} classes instead"
    )
    progress("episodes", 0, 3 * len(draws.episodes), "", line)


def _train(
    parts: Parts, draws: Draws, folder: Path, audience: _Audience, progress: Progress
) -> History:
    """Train; without a sampler there is nothing to do."""
    config = parts.config
    if parts.sampler is None:
        parts.learned.eval()
        return History()

    def keep(record: Mapping[str, Any]) -> None:
        files.append_line(folder / METRICS, record)
        audience.tell("record", record)
        progress("training", record["step"], config.training.steps, "", _line(record))

    training = Training(
        parts.objective, parts.dataset, parts.sampler, config.training, parts.augment,
        parts.learner, config.seed, parts.optimizer, parts.mixer,
    )  # fmt: skip
    go_on(training, folder / CHECKPOINT)
    lines = map(files.line_of, training.history.records)
    files.write_text(folder / METRICS, "".join(lines))  # none from beyond the checkpoint
    validate = None
    untaken = [*parts.of_centre]  # until training is over
    if draws.validation is not None:  # which takes the centre
        untaken = []
        validate = validating(
            parts.embedder, parts.dataset, parts.head, parts.metric, draws.validation
        )
    return train(
        training,
        validate,
        on_record=keep,
        on_best=lambda model: save_weights(model, folder / WEIGHTS, without=untaken),
        progress=lambda done, total, speed: progress("training", done, total, speed, ""),
        on_step=checkpoints(folder / CHECKPOINT, config.training.checkpoint_every),
    )


def _line(record: Mapping[str, Any]) -> str:
    """A record as one line of text."""
    parts = [f"loss {record['loss']:.4f}"]
    if record["above_zero"] < 1:  # of other losses than those with a margin it always is
        parts[0] += f" from {record['above_zero']:.0%} of terms"
    parts += [f"{name} {record[name]:.3f}" for name in ("score", "auc") if name in record]
    parts += [f"{record['images_per_second']:.0f} images/s", *collapsed(record.get("spread"))]
    return ", ".join(parts)


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
    assert isinstance(parts.dataset, ArrayDataset)
    packages = ("fewshot", "mlx", "numpy", "pillow", "scipy")
    return {
        "started": _now(),
        "seed": parts.config.seed,
        "components": parts.origins,
        "classes": attrs.asdict(parts.split),
        "parameters": parameter_count(parts.learned),
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in packages},
        "data": {
            **identity(parts.dataset),
            "decoded": str(getattr(parts.dataset.images, "filename", "memory")),
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(mx.default_device()),
        "runtime": None if runtime is None else attrs.asdict(runtime),
    }

"""Hyper-parameter search: trials of a configuration, scored on folds of classes held out."""

import fcntl
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from attrs import asdict, evolve, frozen, validators

from ..catalogue.registry import Registry, make
from ..core import files
from ..core.errors import ConfigError, DataError, InterruptedRunError, OutputError, TrainingError
from ..core.options import at_least, option, positive
from ..core.progress import Progress, silent
from ..core.reading import parse_toml, read_toml
from ..core.seeding import generator
from ..data.datasets import ArrayDataset
from ..data.split import ClassSplit, named, split_classes
from ..engine.checkpoints import checkpoints, go_on
from ..engine.embedding import embed_task, recentre
from ..engine.evaluation import evaluate
from ..engine.protocol import needed
from ..engine.training import Training
from ..engine.training import train as train_all
from ..reports import pictures
from ..reports.page import percent
from .assembly import build, check, embedded, initialise
from .config import RunConfig, nested, resolve, to_toml, to_tree
from .manifest import MANIFEST, hashes, read_manifest, write_hashes
from .run import decoded
from .schema import Tree
from .search_space import Parameter, Propose, method, trial_count

TRIALS = "trials.jsonl"
CLAIMS = "claims"

Record = Mapping[str, Any]


@frozen
class SearchOptions:
    """How a search goes about it."""

    method: str = option("random", "grid, random or optuna")
    trials: int | None = option(
        None,
        "trials in all, those of earlier calls included; else the whole grid, or 20",
        validators.optional(positive),
    )
    folds: int = option(3, "sets of held-out classes that a trial is scored on", positive)
    held_out: int = option(3, "classes in each", at_least(2))
    k_shot: int = option(5, "support images per class", positive)


def search(
    layers: Sequence[Tree],
    registry: Registry,
    space: Sequence[Parameter],
    out: Path | None = None,
    options: SearchOptions = SearchOptions(),
    progress: Progress = silent,
) -> Path:
    """Try values of the parameters over the configuration that the layers come to.

    Each trial is trained `folds` times, without `held_out` of the classes that are not for test;
    its score is the accuracy on these, with support of all classes but the test classes. Every
    trial becomes a line of `trials.jsonl` in the folder (`out`, or the next number under
    `searches`); one that cannot be trained is a line with its error. Called again, or by other
    processes at the same time, with the same folder, trials that are done or being done are left
    out. Returns the folder; the best trial's configuration is its `best.toml`.

    Raises ConfigError for parameters that no trial can have, DataError for too few classes,
    OutputError for the folder of another search, TrainingError where every trial failed.
    """
    base = resolve(registry, layers)
    propose = method(options.method)(space, base.seed)
    count = trial_count(options.method, space, options.trials)
    _check(layers, registry, propose, count)
    dataset = make(registry.get("dataset", base.dataset.name), base.dataset.options)
    split = split_classes(dataset, base.split)
    folds = held_out_folds(split, options, base.seed)
    folder = files.new_folder(Path("searches")) if out is None else out
    _open(folder, base, space, options)
    dataset = decoded(dataset, progress)
    progress("trials", len(recorded(folder)), count, "", "")
    for number in _claimed(folder, count):
        values = propose(number, recorded(folder))
        began = time.perf_counter()
        try:
            config = _trial(layers, registry, values)
            scores = _scores(config, registry, dataset, folds, options, folder, number, progress)
            outcome: dict[str, Any] = {"score": float(np.mean(scores)), "folds": scores}
        except InterruptedRunError:
            raise
        except Exception as error:  # whatever is wrong with this one, the others go on
            outcome = {"error": f"{type(error).__name__}: {error}"}
        outcome["seconds"] = time.perf_counter() - began
        record = {"trial": number, "values": values, **outcome}
        files.append_line(folder / TRIALS, record)
        progress("trials", len(recorded(folder)), count, "", _line(record))
        for path in (folder / CLAIMS).glob(f"{number:04d}-*"):
            path.unlink(missing_ok=True)
        _keep_best(folder, layers, registry, split)
    records = recorded(folder)
    if _keep_best(folder, layers, registry, split):
        pictures.trials(records, [entry.key for entry in space], folder / "search.svg")
    elif records:
        raise TrainingError(f"every trial failed; the first: {records[0]['error']}")
    if len(records) == count:  # nobody is at work on another
        write_hashes(folder, "a search", ("search.toml", "best.toml", TRIALS, "search.svg"))
    return folder


def recorded(folder: Path) -> list[Record]:
    """The records of a folder's trials that are done, by number."""
    found = {record["trial"]: record for record in files.read_lines(folder / TRIALS)}
    return [found[number] for number in sorted(found)]


def best(records: Sequence[Record]) -> Record | None:
    """The record of the highest score, of equal ones the first; None where all failed."""
    done = [record for record in records if "score" in record]
    return max(done, key=lambda record: record["score"], default=None)


def spread(record: Record) -> float | None:
    """Standard deviation of a trial's score over its folds; None for a single fold."""
    return float(np.std(record["folds"], ddof=1)) if len(record["folds"]) > 1 else None


# --------------------------------------------------------------------------------- folds


def held_out_folds(
    split: ClassSplit, options: SearchOptions, seed: int
) -> list[tuple[list[str], list[str]]]:
    """(training classes, held-out classes) of every fold, among those that are not for test.

    No class is held out twice. Raises DataError where they are too few.
    """
    known = sorted([*split.train, *split.val])
    wanted = options.folds * options.held_out
    if len(known) < wanted or len(known) < options.held_out + 2:
        raise DataError(
            f"{options.folds} folds of {options.held_out} held-out classes need "
            f"{max(wanted, options.held_out + 2)} classes that are not for test, there are "
            f"{len(known)}: ask for fewer with --folds or --held-out"
        )
    order = [known[i] for i in generator(seed, "folds").permutation(len(known))]
    starts = range(0, wanted, options.held_out)
    held = [sorted(order[start : start + options.held_out]) for start in starts]
    return [([c for c in known if c not in out], out) for out in held]


def _scores(
    config: RunConfig,
    registry: Registry,
    dataset: ArrayDataset,
    folds: Sequence[tuple[list[str], list[str]]],
    options: SearchOptions,
    folder: Path,
    number: int,
    progress: Progress,
) -> list[float]:
    """Accuracy on the held-out classes of every fold, at the last step: nothing chosen on them.

    A trial that was killed is gone on with: folds that are done, and the state of the one that is
    not, are kept under `claims` until it is done.
    """
    digest = sha256(to_toml(config).encode()).hexdigest()[:12]  # optuna may now propose another
    stem = f"{number:04d}-{digest}"
    kept = folder / CLAIMS / f"{stem}.jsonl"
    scores = [float(record["score"]) for record in files.read_lines(kept)]
    for i, (train, held_out) in enumerate(folds, start=1):
        if i <= len(scores):
            continue
        split = evolve(
            config.split, train=tuple(train), val=(), test=tuple(held_out), file=None, draw=False
        )
        asked = evolve(
            config.evaluation,
            k_shot=(options.k_shot,),
            n_way=(0,),
            groups=config.evaluation.groups[:1],
            pairs=0,
        )
        parts = build(evolve(config, split=split, evaluation=asked), registry, dataset)
        draws = check(parts)
        initialise(parts, registry)
        where = f"trial {number}, fold {i} of {len(folds)}"

        def shown(done: int, total: int, _: str, where: str = where) -> None:
            progress("training", done, total, where, "")

        def say(line: str, where: str = where) -> None:
            progress("embedding", 0, len(folds), where, line)

        if parts.sampler is not None:
            training = Training(
                parts.objective, dataset, parts.sampler, config.training, parts.augment,
                parts.learner, config.seed, parts.optimizer, parts.mixer,
            )  # fmt: skip
            checkpoint = folder / CLAIMS / f"{stem}-{i}.safetensors"
            go_on(training, checkpoint)
            keep = checkpoints(checkpoint, config.training.checkpoint_every)
            history = train_all(training, progress=shown, on_step=keep)
            if history.stopped == "interrupted":
                raise InterruptedRunError(
                    f"interrupted in {where}; trials that are done are kept: the same command "
                    "goes on"
                )
        (tasks,) = draws.episodes.values()
        recentre(parts.embedder, dataset, parts.training_images)
        rows, crops = embed_task(
            parts.embedder, dataset, needed(tasks), tasks, kept=embedded(parts, say)
        )
        memory = config.evaluation.memory
        text = parts.embedder.of_names(dataset.classes) if parts.head.names else None
        found = evaluate(
            rows, tasks, parts.head, parts.metric, dataset.classes,
            memory=memory, text=text, crops=crops,
        )  # fmt: skip
        scores.append(found.accuracy)
        files.append_line(kept, {"score": found.accuracy})
    return scores


# -------------------------------------------------------------------------------- trials


def _trial(layers: Sequence[Tree], registry: Registry, values: Mapping[str, Any]) -> RunConfig:
    paths = [(key.split("."), value) for key, value in values.items()]
    return resolve(registry, [*layers, nested(paths)])


def _check(layers: Sequence[Tree], registry: Registry, propose: Propose, count: int) -> None:
    """Raise ConfigError where none of the first trials is a configuration: a key is misspelt."""
    errors = []
    for number in range(min(8, count)):
        try:
            _trial(layers, registry, propose(number, []))
        except ConfigError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _claimed(folder: Path, count: int) -> Iterator[int]:
    """Numbers below `count` of trials that no process has done or is doing.

    A trial is this process's from when it is given until the next is asked for. A lock on a file
    says so, which ends with the process, however it ends.
    """
    claims = folder / CLAIMS
    claims.mkdir(exist_ok=True)

    def done(number: int) -> bool:
        return any(record["trial"] == number for record in recorded(folder))

    found = True
    while found:  # again, for trials of processes that ended before they were done
        found = False
        for number in range(count):
            if done(number):
                continue
            with (claims / f"{number:04d}").open("a") as claim:
                try:
                    fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if not done(number):
                    found = True
                    yield number


# -------------------------------------------------------------------------------- folder


def _open(
    folder: Path, base: RunConfig, space: Sequence[Parameter], options: SearchOptions
) -> None:
    """Make the folder of this search, or go on in it; OutputError where it is another's."""
    facts = asdict(options)
    facts.pop("trials")  # may grow
    over = [{k: v for k, v in asdict(entry).items() if v is not None} for entry in space]
    text = tomli_w.dumps({"search": {**facts, "over": over}, **to_tree(base)})
    path = folder / "search.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if (folder / MANIFEST).is_file():
                files.require_sha256(path, hashes(read_manifest(folder)).get(path.name))
            if read_toml(path, OutputError) != parse_toml(text, "this search"):
                raise OutputError(
                    f"{folder} holds another search (see its search.toml): name another --out"
                )
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise OutputError(f"{folder} holds something else: name another --out")
        else:
            files.write_text(path, text)
        write_hashes(folder, "a search", [path.name])  # the rest changes
    except OSError as error:
        raise OutputError(f"{folder}: cannot be used for a search: {error}") from error


def _keep_best(folder: Path, layers: Sequence[Tree], registry: Registry, split: ClassSplit) -> bool:
    """Write `best.toml`, a configuration for `fewshot run --config`; False where no trial is.

    Where it trains nothing, it says which classes are for test: a run would take all.
    """
    record = best(recorded(folder))
    if record is not None:
        config = _trial(layers, registry, record["values"])
        if not config.needs_training_classes:
            config = evolve(config, split=named(config.split, split))
        files.write_text(folder / "best.toml", f"# {_line(record)}\n{to_toml(config)}")
    return record is not None


def _line(record: Record) -> str:
    """A record as one line of text."""
    values = ", ".join(f"{key} {value}" for key, value in record["values"].items())
    if "error" in record:
        return f"trial {record['trial']} failed ({values}): {record['error']}"
    return f"trial {record['trial']}: {percent(record['score'])} ({values})"

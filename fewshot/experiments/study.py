"""A study's runs: planned, each done once, taken up again where they stopped."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, evolve, frozen

from ..catalogue.registry import Registry, make
from ..compute.runtime import Runtime
from ..core import files
from ..core.components import Study
from ..core.errors import (
    ConfigError,
    DataError,
    InterruptedRunError,
    OutputError,
    TrainingError,
    UnknownComponentError,
    choose_from,
)
from ..core.figures import StudyResults
from ..core.locks import held
from ..core.progress import Progress, silent
from ..data.datasets import ArrayDataset
from ..data.split import named, split_classes
from ..reports import study_page
from .assembly import build, check
from .config import RunConfig, chooses, names_path, partial_to_toml, resolve, to_tree
from .folder import read_run, to_json
from .manifest import write_hashes
from .run import decoded, identity, resume, run
from .schema import Tree
from .status import LOCK, unfinished
from .study_results import tabulate


@frozen
class StudyRun:
    """One run of a study: a row's configuration with one seed, and its run folder."""

    row: str
    config: RunConfig
    images: ArrayDataset
    folder: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.row}, seed {self.config.seed}"


def study_configs(
    study: Study, registry: Registry, above: Sequence[Tree] = (), below: Sequence[Tree] = ()
) -> list[tuple[str, RunConfig]]:
    """(row, configuration) of every run, all rows with one seed before the next.

    `above`: layers above the rows' own; `below`: layers between the base and the rows. Raises
    ConfigError, naming the row, DataError for an environment variable that is not set.
    """
    configs, seeds = {}, {}
    for row, layer in study.rows.items():
        with _naming(row):
            own = {key: value for key, value in layer.items() if key != "seeds"}
            if chooses(own, "dataset") and any("dataset" in each for each in below):
                raise ConfigError("it names a data set of its own: leave out --dataset and --data")
            layers = [_expanded(dict(study.base)), *below, _expanded(own), *above]
            configs[row] = resolve(registry, layers)
            seeds[row] = layer.get("seeds", study.seeds)
            if not isinstance(seeds[row], int) or seeds[row] < 1:
                raise ConfigError(f"seeds wants a whole number from 1, got {seeds[row]!r}")
    return [
        (row, evolve(config, seed=config.seed + i))
        for i in range(max(seeds.values()))
        for row, config in configs.items()
        if i < seeds[row]
    ]


def _expanded(value: Any) -> Any:
    """A layer with its "$NAME" replaced. Raises DataError for a variable that is not set."""
    if isinstance(value, Mapping):
        return {key: _expanded(each) for key, each in value.items()}
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value[1:] not in os.environ:
        raise DataError(f"the environment variable {value[1:]} is not set")
    return os.environ[value[1:]]


def is_absent(error: ConfigError | DataError) -> bool:
    """Whether a row's error is that something is not there, and not that something is wrong."""
    return isinstance(error, DataError) or isinstance(error.__cause__, UnknownComponentError)


def at_hand(
    study: Study,
    registry: Registry,
    above: Sequence[Tree] = (),
    below: Sequence[Tree] = (),
    progress: Progress = silent,
) -> Study:
    """An optional study without the rows that cannot be run here, each told in a line.

    Whose plugins are missing, or whose images; data sets are opened for it, not decoded. Raises
    ConfigError where no row is left.
    """
    rows, missing = {}, []
    opened: set[str] = set()
    for row, layer in study.rows.items():
        alone = evolve(study, rows={row: layer}, published={})
        try:
            ((_, config), *_) = study_configs(alone, registry, above, below)
            with _naming(row):
                if repr(config.dataset) not in opened:
                    entry = registry.get("dataset", config.dataset.name)
                    make(entry, config.dataset.options)
        except (ConfigError, DataError) as error:
            if not is_absent(error):
                raise
            missing.append(str(error))
            progress("study", 0, 0, "", f"left out: {error}")
        else:
            rows[row] = layer
            opened.add(repr(config.dataset))
    if not rows:
        raise ConfigError(f"no row can be run here: {missing[0]}")
    published = {row: of for row, of in study.published.items() if row in rows}
    return evolve(study, rows=rows, published=published)


def rows_name_path(study: Study, registry: Registry) -> bool:
    """Whether the data set of every row, its own or the base's, has an option `path`.

    Raises ConfigError, naming the row.
    """
    found = []
    for row, layer in study.rows.items():
        own = {key: value for key, value in layer.items() if key != "seeds"}
        try:
            with _naming(row):
                found.append(names_path(registry, [dict(study.base), own]))
        except ConfigError:
            if not study.optional:
                raise
    return all(found)


def run_study(
    study: Study,
    registry: Registry,
    out: Path,
    above: Sequence[Tree] = (),
    only: Sequence[str] = (),
    below: Sequence[Tree] = (),
    runtime: Runtime | None = None,
    progress: Progress = silent,
) -> StudyResults:
    """Do the runs of a study that are not done, and write `study.json` and `report.html` to `out`.

    Returns what `study.json` holds. `only`: the rows to run; the report has every run that is done.
    `above`, `below`: as for `study_configs`.

    A run is done where its folder `out/runs/ROW-SEED-DIGEST`, named by a digest of configuration
    and images, is whole. One that was interrupted or killed is gone on with (`resume`); one that
    is damaged since it was done is named and done again. Training that cannot
    go on ends its run and not the study; the results name it under "failed".

    All that is asked for is checked before the first run. Raises ConfigError and DataError, naming
    the row, ConfigError for two rows of the same settings, InterruptedRunError on Ctrl-C,
    OutputError where another process is at work in `out`, TrainingError where no run could be done.
    """
    for row in only:
        if row not in study.rows:
            raise ConfigError(f"the study has no row '{row}': {choose_from(row, study.rows)}")
    if study.optional:
        study = at_hand(study, registry, above, below, progress)
    configs = study_configs(study, registry, above, below)
    _refuse_the_same([(row, config) for row, config in configs if not only or row in only])
    with _alone(out):
        runs = _with_images(configs, registry, out / "runs", only, progress)
        done = [each for each in runs if _is_done(each.folder, progress)]
        todo = [each for each in runs if each not in done and (not only or each.row in only)]
        first = {each.row: each for each in reversed(todo)}
        for count, (row, each) in enumerate(first.items(), start=1):
            with _naming(row):
                check(build(each.config, registry, each.images))
            progress("checking", count, len(first), "", "")
        clock = _Clock.of(todo, progress)
        failed = {}
        for each in todo:
            clock.begin(each)
            try:
                _do(each, registry, runtime, clock.within)
            except TrainingError as error:
                failed[each.name] = str(error)
            except InterruptedRunError as error:
                raise InterruptedRunError(
                    f"interrupted in {each.name}; {len(done)} of {len(runs)} runs are done: the "
                    "same command goes on"
                ) from error
            else:
                done.append(each)
            clock.end(each)
        if not done:
            raise TrainingError("; ".join(f"{name}: {why}" for name, why in failed.items()))
        folders = {
            row: [each.folder for each in runs if each.row == row and each in done]
            for row in study.rows
        }
        results = tabulate(study, folders, failed, [*below, *above])
        files.write_json(out / "study.json", to_json(results))
        study_page.page(out, study, partial_to_toml(study), results)
        write_hashes(out, "a study", ("study.json", "report.html", "*.svg"))
    return results


def run_digest(config: RunConfig, data: Mapping[str, Any]) -> str:
    """What tells a run from every other, in 12 characters: configuration and `identity` of data."""
    what = json.dumps([_telling(config), data], sort_keys=True)
    return sha256(what.encode()).hexdigest()[:12]


def _telling(config: RunConfig) -> Tree:
    """A configuration without what changes no figure."""
    tree = to_tree(config)
    del tree["evaluation"]["memory"], tree["training"]["checkpoint_every"]
    return tree


# -------------------------------------------------------------------------------- steps


def _refuse_the_same(configs: Sequence[tuple[str, RunConfig]]) -> None:
    """Raises ConfigError for two rows that would do one run."""
    rows: dict[str, str] = {}
    for row, config in configs:
        other = rows.setdefault(repr(_telling(config)), row)
        if other != row:
            raise ConfigError(
                f"rows '{other}' and '{row}' are the same settings with seed {config.seed}: change "
                "one, leave one out, or name the rows to run with --only"
            )


@contextmanager
def _naming(row: str) -> Iterator[None]:
    """An error says which row it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"row '{row}': {error}") from error
    except ConfigError as error:
        raise ConfigError(f"row '{row}': {error}") from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The folder, held against a second process, which would do the same runs again."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error.strerror}") from error
    with held(out / LOCK, str(out)):
        yield


def _do(each: StudyRun, registry: Registry, runtime: Runtime | None, progress: Progress) -> None:
    """Do a run: from where it stopped, where it was begun, and afresh where it is not whole."""
    begun = None
    with suppress(OutputError):  # damaged
        begun = unfinished(each.folder)
    if begun is not None:
        resume(each.folder, registry, runtime, progress, each.images)
    else:
        shutil.rmtree(each.folder, ignore_errors=True)
        run(each.config, registry, each.folder, runtime, progress, each.images)


def _with_images(
    configs: Sequence[tuple[str, RunConfig]],
    registry: Registry,
    parent: Path,
    only: Sequence[str],
    progress: Progress,
) -> list[StudyRun]:
    """Every run with its images, each data set decoded once, and its folder.

    Without those that are not asked for and were never begun. A run that trains nothing is tested
    on the classes of those that train, where there are any.
    """
    some_train = any(config.needs_training_classes for _, config in configs)
    images: dict[str, ArrayDataset] = {}
    data: dict[str, dict[str, Any]] = {}
    runs = []
    for row, config in configs:
        if only and row not in only and not [*parent.glob(f"{escape(row)}-{config.seed}-*")]:
            continue
        key = repr(config.dataset)
        with _naming(row):
            if key not in images:
                entry = registry.get("dataset", config.dataset.name)
                images[key] = decoded(make(entry, config.dataset.options), progress)
                data[key] = identity(images[key])
            if some_train and not config.needs_training_classes:
                split = split_classes(images[key], config.split)
                config = evolve(config, split=named(config.split, split))
        name = f"{row}-{config.seed}-{run_digest(config, data[key])}"
        runs.append(StudyRun(row, config, images[key], parent / name))
    return runs


def _is_done(folder: Path, progress: Progress) -> bool:
    """Whether a run is done; one that is not whole is named."""
    if not folder.exists():
        return False
    try:
        told = unfinished(folder)
        if told is None:
            read_run(folder)
            return True
    except OutputError as error:
        told = f"{error}; it is done again"
    progress("study", 0, 0, "", told)
    return False


@define
class _Clock:
    """Progress over all runs, with the time left by the steps done so far; of none, by the runs."""

    total: int
    runs: int
    progress: Progress
    began: float
    steps: int = 0
    at: int = 0

    @classmethod
    def of(cls, todo: Sequence[StudyRun], progress: Progress) -> "_Clock":
        steps = sum(each.config.training.steps for each in todo)
        return cls(steps, len(todo), progress, time.monotonic())

    def begin(self, each: StudyRun) -> None:
        """A line for the run that begins."""
        line = f"{each.name}{self._left(0)}"
        self.progress("study", self.at, self.runs, "", line)

    def within(self, stage: str, done: int, total: int, status: str, line: str) -> None:
        """The run's own progress, and the study's."""
        self.progress(stage, done, total, status, line)
        if stage == "training":
            self.progress("study", self.at, self.runs, self._left(done).removeprefix(", "), "")

    def end(self, each: StudyRun) -> None:
        """One run more."""
        self.steps += each.config.training.steps
        self.at += 1
        self.progress("study", self.at, self.runs, "", "")

    def _left(self, inside: int) -> str:
        done, total = (self.steps + inside, self.total) if self.total else (self.at, self.runs)
        if not done:
            return ""
        seconds = (time.monotonic() - self.began) * (total - done) / done
        return f", about {seconds / 60:.0f} min left" if seconds > 90 else ", a minute left"

"""Commands that train, go on, evaluate and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import above, choices, dataset, examination, flag_layer, topmost
from .terminal import (
    echo,
    echo_wrapped,
    fast_mlx,
    load_registry,
    print_results,
    print_table,
    showing_progress,
    tell_unfinished,
)

_MOVED = "The images, where they have moved."
_OTHERS = "The images, where they have moved, or those of --dataset."


@click.command()
@choices
@examination
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; else the next in runs/.")
def run(**given: Any) -> None:
    """Train and evaluate; writes a run folder with weights, figures, pictures and report.html."""
    runtime = fast_mlx()
    from ..core.reading import read_toml
    from ..experiments.assembly import unlike_implied
    from ..experiments.config import chooses, naming_file, resolve, to_tree, with_preset
    from ..experiments.run import run as train_and_evaluate

    registry, _ = load_registry(given["strict_plugins"])
    file = {} if given["config"] is None else read_toml(given["config"])
    with naming_file(given["config"], file, registry):
        layers = [file, *above(registry, [file], given)]
        config = resolve(registry, layers)
    if not any(chooses(layer, "dataset") for layer in with_preset(registry, layers)):
        part = registry.get("dataset", config.dataset.name).part
        echo(f"no data set named: {part.name}, {part.summary}", err=True)
    for line in unlike_implied(registry, config.backbone.name, to_tree(config)):
        echo(line, err=True)
    with showing_progress() as progress:
        folder = train_and_evaluate(config, registry, given["out"], runtime, progress)
    print_results(folder)


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", metavar="PATH", type=click.Path(path_type=Path), help=_MOVED)
def resume(folder: Path, data: Path | None) -> None:
    """Go on with a run that was interrupted or killed.

    On the same machine, weights and figures are, bit for bit, those of a run never interrupted.
    """
    runtime = fast_mlx()
    from ..experiments.run import resume as go_on

    registry, _ = load_registry(strict=False)
    with showing_progress() as progress:
        go_on(folder, registry, runtime, progress, data=data)
    print_results(folder)


@click.command()
@click.argument("folders", metavar="[RUN]...", nargs=-1, type=click.Path(path_type=Path))
def status(folders: tuple[Path, ...]) -> None:
    """How far runs are: those named, else all in runs/."""
    from ..core.errors import OutputError
    from ..experiments.status import run_status

    found = folders or sorted(path.parent for path in Path("runs").glob("*/config.toml"))
    rows, faults = [], []
    for folder in found:
        try:
            rows.append((str(folder), str(run_status(folder))))
        except OutputError as error:
            faults.append(error)
    if rows:
        print_table(("run", "status"), rows)
    elif not faults:
        echo("no runs in runs/: name their folders")
    for fault in faults[:-1]:
        echo(f"Error: {fault}", err=True)
    if faults:
        raise faults[-1]


@click.command("eval")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--metric", metavar="NAME", help="Distance.")
@dataset
@click.option("--data", metavar="PATH", help=_OTHERS)
@examination
def evaluate(folder: Path, **given: Any) -> None:
    """Evaluate a run again with other K, n_way, head, metric or images; no training.

    Images of another data set are scaled to the run's size and as it did, unless told otherwise.
    """
    fast_mlx()
    from ..experiments.config import resolve, settings_layer
    from ..experiments.folder import run_config
    from ..experiments.run import evaluate_run

    registry, _ = load_registry(given["strict_plugins"])
    tell_unfinished(folder)
    flags = flag_layer({**given, "data": None})
    if given["data"] is not None:
        flags.setdefault("dataset", {})["path"] = given["data"]
    kept = run_config(folder)
    said = topmost(settings_layer(given["settings"]), flags)
    config = resolve(registry, [kept, *said])
    scaling = {
        key: kept["dataset"][key]
        for key in ("size", "interpolation")
        if key in kept["dataset"] and hasattr(config.dataset.options, key)
    }
    if scaling:
        own = {"dataset": {"name": config.dataset.name, **scaling}}
        config = resolve(registry, [kept, own, *said])
    with showing_progress() as progress:
        out = evaluate_run(folder, config, registry, progress)
    print_results(out)


@click.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, type=click.Path(path_type=Path))
def compare(folders: tuple[Path, ...]) -> None:
    """Compare runs on the same episodes, with a paired test against the first."""
    from ..experiments.compare import compare_runs
    from ..reports.run_page import by_setting, caption, comparison_table

    if len(folders) < 2:
        raise click.UsageError("compare wants two run folders or more")
    compared = compare_runs(folders)
    print_table(*comparison_table(compared), right=True)
    settings = by_setting([each.row for each in compared])
    if len(settings) == 1:
        echo_wrapped(caption(settings[0]))


COMMANDS = (run, resume, status, evaluate, compare)

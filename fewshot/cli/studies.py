"""The command that runs a table of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import data_choices, examination, flag_layer, topmost
from .terminal import echo, fast_mlx, load_registry, print_table, showing_progress


@click.command()
@click.argument("which", metavar="STUDY")
@click.option("--seeds", type=click.IntRange(min=1), help="Runs of each row; else the study's own.")
@click.option("--only", metavar="ROW", multiple=True, help="Run this row; may be repeated.")
@data_choices
@examination
@click.option(
    "--out", type=click.Path(path_type=Path), help="Its folder; else studies/NAME. It may exist."
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put the tables into this Markdown page too, below what is written there by hand.",
)
def study(which: str, seeds: int | None, only: tuple[str, ...], **given: Any) -> None:
    """Carry out a table of runs, by name (`fewshot list study`) or from a TOML file, with a report.

    If it was interrupted, the same command goes on; runs already done are not repeated.
    """
    runtime = fast_mlx()
    registry, _ = load_registry(given["strict_plugins"])
    from attrs import evolve

    from ..core.errors import TrainingError
    from ..experiments.config import read_study, settings_layer
    from ..experiments.study import rows_name_path, run_study
    from ..reports import study_markdown
    from ..reports.study_page import settings, table, title

    asked = (
        read_study(Path(which)) if which.endswith(".toml") else registry.get("study", which).study
    )
    if seeds is not None:
        asked = evolve(asked, seeds=seeds)
    out = given["out"] or Path("studies") / asked.name
    flags = flag_layer(given, rows_name_path(asked, registry))
    data = [{"dataset": flags.pop("dataset")}] if "dataset" in flags else []
    above = topmost(settings_layer(given["settings"]), flags)
    with showing_progress() as progress:
        results = run_study(asked, registry, out, above, only, data, runtime, progress)
    if given["page"] is not None:
        study_markdown.write(given["page"], results)
    main = settings(results)[0]
    print_table(*table(main), right=True)
    echo(title(main))
    echo(f"everything else: {out / 'report.html'}")
    if results.failed:
        told = "; ".join(f"{name}: {why}" for name, why in results.failed.items())
        raise TrainingError(f"not done: {told}")


COMMANDS = (study,)

"""The command that searches for hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..core.wording import counted
from .options import above, choices, settings
from .terminal import echo, fast_mlx, load_registry, print_table, showing_progress

_SHOWN = 10


@click.command()
@choices
@settings
@click.option("--head", metavar="NAME", help="Few-shot classifier.")
@click.option(
    "--over", metavar="KEY=VALUES", multiple=True,
    help="What to vary: loss.margin=0.5,1,2 or backbone.dropout=0:0.5 or "
    "training.learning_rate=log:0.0001:0.01. Also a table [over] in the file of --config.",
)  # fmt: skip
@click.option(
    "--method", metavar="NAME", default="random", show_default=True, help="grid, random or optuna."
)
@click.option("--trials", type=click.IntRange(1), help="Trials in all; else the whole grid, or 20.")
@click.option(
    "--folds", type=click.IntRange(1), default=3, show_default=True, help="Trainings in each trial."
)
@click.option(
    "--held-out", type=click.IntRange(2), default=3, show_default=True,
    help="Classes held out in each fold.",
)  # fmt: skip
@click.option(
    "--k-shot",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Support images of each class, where trials are scored.",
)
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Folder, of an earlier call to go on with; else the next in searches/.",
)  # fmt: skip
def search(**given: Any) -> None:
    """Search for hyper-parameters on folds of held-out classes; test classes are not read.

    Give the same command again, also several times at once, to go on in the same --out.
    """
    fast_mlx()
    registry, _ = load_registry(given["strict_plugins"])
    from ..core.errors import ConfigError
    from ..core.reading import read_toml
    from ..experiments.config import naming_file
    from ..experiments.search import SearchOptions
    from ..experiments.search import search as try_all
    from ..experiments.search_space import parameters

    over: dict[str, Any] = {}
    file = {} if given["config"] is None else read_toml(given["config"])
    table = file.pop("over", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{given['config']}: [over] is a table of KEY = VALUES, not {table!r}")
    over |= table
    for text in given["over"]:
        key, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"--over wants KEY=VALUES such as loss.margin=0.5,1, got '{text}'")
        over[key] = values
    space = parameters(over)
    options = SearchOptions(
        **{name: given[name] for name in ("method", "trials", "folds", "held_out", "k_shot")}
    )
    layers = [file, *above(registry, [file], {**given, "k_shot": None})]
    with naming_file(given["config"], file, registry), showing_progress() as progress:
        folder = try_all(layers, registry, space, given["out"], options, progress)
    _print(folder, [entry.key for entry in space])


def _print(folder: Path, keys: list[str]) -> None:
    from ..experiments.search import recorded, spread
    from ..reports.page import percent

    records = recorded(folder)
    done = sorted((r for r in records if "score" in r), key=lambda r: -r["score"])
    rows = []
    for record in done[:_SHOWN]:
        apart = spread(record)
        rows.append(
            [
                str(record["trial"]),
                percent(record["score"]),
                "-" if apart is None else percent(apart),
                *(_text(record["values"][key]) for key in keys),
                f"{record['seconds']:.0f}",
            ]
        )
    print_table(["trial", "score", "spread", *keys, "seconds"], rows, right=True)
    failed = len(records) - len(done)
    trials = f"{counted(len(records), 'trial')}{f', {failed} of them failed' if failed else ''}"
    echo(
        f"{trials}; score: accuracy on held-out classes, spread: its standard deviation over the "
        "folds"
    )
    if not done:
        return  # other processes work on all of them
    echo(f"the best: fewshot run --config {folder / 'best.toml'}")
    echo(f"picture: {folder / 'search.svg'}, all trials: {folder / 'trials.jsonl'}")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


COMMANDS = (search,)

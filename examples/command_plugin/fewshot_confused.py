"""The command `fewshot confused RUN`: which classes a run takes for which."""

import json
from pathlib import Path

import click

from fewshot import OutputError


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--most", default=5, show_default=True, help="Lines to print.")
def confused(folder: Path, most: int) -> None:
    """Which classes a run takes for which, most often first."""
    try:
        settings = json.loads((folder / "results.json").read_text())["k_shot"]
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{folder}: no results of a run: {error}") from error
    mistaken = [
        (count, true, answer)
        for true, answers in settings[0]["confusion"].items()
        for answer, count in answers.items()
        if answer != true
    ]
    for count, true, answer in sorted(mistaken, reverse=True)[:most]:
        click.echo(f"{true} taken for {answer}: {count}")

"""What commands print, and what they do first. Progress and complaints go to stderr."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..catalogue.loading import PluginStatus
    from ..catalogue.registry import Registry
    from ..compute.runtime import Runtime
    from ..core.progress import Progress


def load_registry(strict: bool) -> tuple[Registry, list[PluginStatus]]:
    """The registry; a plugin that failed is one line on stderr."""
    from ..catalogue.loading import build_registry

    registry, statuses = build_registry(strict)
    for status in statuses:
        if status.error is not None:
            click.echo(
                f"plugin '{status.name}' from {status.origin} failed to load: {status.error} "
                "(`fewshot plugins` tells more)",
                err=True,
            )
    return registry, statuses


def fast_mlx() -> Runtime:
    """Make MLX fast, before anything imports it; what is missing is one line on stderr."""
    from ..compute.runtime import prepare

    runtime = prepare()
    if runtime.hint:
        click.echo(runtime.hint, err=True)
    return runtime


def tell_unfinished(folder: Path) -> None:
    """A line on stderr where a run, whose weights are about to be used, is not finished."""
    from ..experiments.status import unfinished

    told = unfinished(folder)
    if told is not None:
        click.echo(told, err=True)


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Bars on a terminal; otherwise a line for every stage and every validation."""
    if not sys.stderr.isatty():
        stages: dict[str, float] = {}

        def lines(stage: str, done: int, total: int, status: str, line: str) -> None:
            began = stages.setdefault(stage, time.monotonic())
            if line:
                click.echo(f"{stage} {done}/{total}: {line}", err=True)
            elif done == total and stage not in ("training", "study"):
                click.echo(f"{stage}: {time.monotonic() - began:.1f} s", err=True)
            if done == total:
                del stages[stage]  # a study comes to it again

        yield lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def bars(stage: str, done: int, total: int, status: str, line: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, status="")
            bar.update(tasks[stage], completed=done, total=total)
            if status:
                bar.update(tasks[stage], status=status)
            if line:
                bar.console.print(f"{done}/{total}: {line}", highlight=False)

        yield bars


def print_results(folder: Path) -> None:
    """The table and the facts of a run folder."""
    from ..experiments.folder import read_results
    from ..reports.run_page import by_setting, caption, facts, gains, heads_by_setting, table

    results = read_results(folder)
    for rows in by_setting(results.k_shot):
        for header, cells in (table(rows), gains(rows)):
            if cells:
                print_table(header, cells, right=True)
        _echo_wrapped(caption(rows))
    for text, (header, cells) in heads_by_setting(results):
        print_table(header, cells, right=True)
        _echo_wrapped(f"other heads, {text}")
    for line in facts(results):
        _echo_wrapped(line)
    click.echo(f"everything else: {folder / 'report.html'}")


def columns() -> int | None:
    """The width of the terminal that output goes to; None where nobody watches."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _echo_wrapped(line: str) -> None:
    width = columns()
    click.echo(line if width is None else click.wrap_text(line, width))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> None:
    """A table, wide enough for its cells where nobody watches."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width to fit
    console.print(table)

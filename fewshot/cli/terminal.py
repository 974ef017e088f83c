"""What commands print, and what they do first. Progress and complaints go to stderr.

Commands print by `echo` and `print_table` only: names and files hold anything.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import OutputError
from ..core.wording import not_shown

if TYPE_CHECKING:
    from rich.table import Table

    from ..catalogue.loading import PluginStatus
    from ..catalogue.registry import Registry
    from ..compute.runtime import Runtime
    from ..core.progress import Progress

_SILENT = 10.0  # seconds without a line where nobody watches
_FIGURES = 15  # columns of an interval
_ADVISED = 3  # pieces of advice: the rest is in the report


def printable(text: str) -> str:
    """One line, without what would steer a terminal: a replacement character in its place."""
    return text.translate({ord(c): "\N{REPLACEMENT CHARACTER}" for c in not_shown(text)})


def unwritten(error: OSError) -> OutputError:
    """What is said where standard output cannot be written."""
    return OutputError(f"standard output: cannot be written: {error.strerror}")


@contextmanager
def _printing(err: bool = False) -> Iterator[None]:
    """What cannot be written, such as to a full disk, is an error of ours.

    Whoever reads standard output may have enough: that ends the command, and is none.
    """
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:  # rich exits
        if err:
            raise
        raise click.exceptions.Exit(0) from error
    except OSError as error:
        raise unwritten(error) from error


def echo(*lines: str, err: bool = False) -> None:
    """Print lines, nothing in them but what can be printed."""
    with _printing(err):
        click.echo("\n".join(printable(line.expandtabs()) for line in lines), err=err)


def replace_what_cannot_be_encoded() -> None:
    """A terminal that is not UTF-8 gets replacements in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def written(code: int) -> int:
    """The exit code, after all output is written: 5 and a line where it cannot be.

    Whoever reads it, such as `head`, may have enough: that is 0.
    """
    if sys.stdout is None or sys.stdout.closed:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        if code == 0:  # else it has been told
            echo(f"Error: {unwritten(error)}", err=True)
        return code or OutputError.exit_code
    return code


def load_registry(strict: bool) -> tuple[Registry, list[PluginStatus]]:
    """The registry; a plugin that failed is one line on stderr."""
    from ..catalogue.loading import build_registry

    registry, statuses = build_registry(strict)
    for status in statuses:
        if status.error is not None:
            echo(
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
        echo(runtime.hint, err=True)
    return runtime


def tell_unfinished(folder: Path) -> None:
    """A line on stderr where a run, whose weights are about to be used, is not finished."""
    from ..experiments.status import unfinished

    told = unfinished(folder)
    if told is not None:
        click.echo(told, err=True)


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Bars on a terminal; otherwise a line for every stage, validation and ten seconds."""
    if not sys.stderr.isatty():
        stages: dict[str, float] = {}
        told: dict[str, float] = {}

        def lines(stage: str, done: int, total: int, status: str, line: str) -> None:
            now = time.monotonic()
            began = stages.setdefault(stage, now)
            if line:
                echo(f"{stage}{f' {done}/{total}' if done else ''}: {line}", err=True)
            elif stage in ("training", "study"):
                pass  # they have lines of their own
            elif done == total:
                echo(f"{stage}: {now - began:.1f} s", err=True)
            elif now - told.setdefault(stage, now) >= _SILENT:
                echo(f"{stage} {done}/{total}", err=True)
                told[stage] = now
            if done == total:
                del stages[stage]  # a study comes to it again
                told.pop(stage, None)

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
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[status]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def bars(stage: str, done: int, total: int, status: str, line: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(printable(stage), total=total, status="")
            bar.update(tasks[stage], completed=done, total=total)
            if status:
                bar.update(tasks[stage], status=printable(status))
            if line:
                bar.console.print(
                    f"{f'{done}/{total}: ' if done else ''}{printable(line)}",
                    highlight=False, markup=False, emoji=False,
                )  # fmt: skip

        yield bars


def print_results(folder: Path) -> None:
    """The verdict, the table and the facts of a run folder."""
    from ..experiments.folder import advised, read_results
    from ..reports.run_page import by_setting, caption, facts, gains, heads_by_setting, table
    from ..reports.verdict import verdict

    results = read_results(folder)
    echo_wrapped(verdict(results))
    for rows in by_setting(results.k_shot):
        for header, cells in (table(rows), gains(rows)):
            if cells:
                print_table(header, cells, right=True)
        echo_wrapped(caption(rows))
    for text, (header, cells) in heads_by_setting(results):
        print_table(header, cells, right=True)
        echo_wrapped(f"other heads, {text}")
    for line in facts(results):
        echo_wrapped(line)
    if found := advised(folder)[:_ADVISED]:
        echo("what may help (docs/how-to/poor-accuracy.md):")
        run = folder.parent if folder.name.startswith("eval-") else folder
        for each in found:
            how = each.how.replace(" RUN ", f" {run} ")
            echo_wrapped(f"- {each.topic.replace('-', ' ')}: {each.why}; {how}")
    echo(f"everything else: {folder / 'report.html'}")


def columns() -> int | None:
    """The width of the terminal that output goes to; None where nobody watches."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def echo_wrapped(line: str) -> None:
    """Print a line, broken at words to the terminal's width where there is one."""
    width, line = columns(), printable(line)
    with _printing():
        click.echo(line if width is None else click.wrap_text(line, width))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> None:
    """A table, wide enough for its cells where nobody watches."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width to fit
    made = _table(header, rows, right)
    unlimited = console.options.update(max_width=10_000)
    if Measurement.get(console, unlimited, made).maximum > console.width:
        made = _table(header, rows, right, narrow=True)
    with _printing():
        console.print(made)


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: bool, narrow: bool = False
) -> Table:
    """As it is printed; `narrow`: columns stand close, and names take as many lines as they need.

    Figures are whole however narrow it is.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1))
    for i, name in enumerate(map(printable, header)):
        width = max([1, *(len(row[i]) for row in rows), *map(len, name.split())])
        if narrow:
            name = fill(name, width)
        table.add_column(
            name, justify="right" if right else "left", overflow="fold",
            min_width=width if right and width <= _FIGURES else None,
            no_wrap=right and not narrow,
        )  # fmt: skip
    for row in rows:
        table.add_row(*map(printable, row))
    return table

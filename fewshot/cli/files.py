"""Commands about files that are kept: whether they are whole, and the cache of decoded images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import click

from ..core.wording import counted
from .terminal import echo, print_table

Found = Iterator[tuple[Path, "str | None"]]


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path) -> None:
    """Whether a run, evaluation, study, search, classifier or folder of these is as it was written.

    Every file is read and its SHA-256 compared with the one that was noted when it was saved. A run
    that is not finished is named. The exit code is 0 where all is whole, 5 where it is not.
    """
    _tell(_verified(path), str(path))


def _verified(path: Path) -> Found:
    from ..core.errors import OutputError
    from ..deploy import archive
    from ..experiments import manifest
    from ..experiments.status import unfinished

    if path.is_file():
        archive.read(path)
        yield path, None
        return
    runs = sorted(each.parent for each in path.rglob(manifest.MANIFEST))
    files = sorted(path.rglob("*.fewshot"))
    if not runs and not files:
        raise OutputError(f"{path}: no run, evaluation, study, search or classifier to verify")
    for run in runs:
        try:
            yield from manifest.verify(run)
        except OutputError as error:
            yield run / manifest.MANIFEST, str(error)
        with suppress(OutputError):  # no run, or one whose damage is told already
            if told := unfinished(run):
                echo(told)
    for file in files:
        try:
            yield from _verified(file)
        except OutputError as error:
            yield file, str(error)


def _tell(found: Iterable[tuple[Path, str | None]], what: str) -> None:
    """A line for each that is not whole, and how many there are."""
    from ..core.errors import OutputError

    faults = []
    for _, fault in found:
        faults.append(fault)
        if fault is not None:
            echo(fault)
    bad = sum(fault is not None for fault in faults)
    if bad:
        raise OutputError(f"{what}: {bad} of {len(faults)} files are not whole")
    echo(f"{what}: {counted(len(faults), 'file')}, all whole")


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """The decoded images and embeddings that are kept: show (the default), verify, prune."""
    if context.invoked_subcommand is None:
        context.invoke(show)


@cache.command()
def show() -> None:
    """What is kept: of which images, how many, how much, and of how many networks."""
    from ..data.cache import place
    from ..data.embedded import files
    from ..data.kept import folders

    with _naming():
        rows = folders()
        embedded = [path.stat().st_size for path in files()]
    table = [
        [
            each.of or "unknown", "" if each.there else "gone", f"{each.size}x{each.size}",
            str(each.images), f"{each.bytes / 1e6:.1f}", f"{each.used:.0f}",
        ]
        for each in rows
    ]  # fmt: skip
    if table:
        print_table(["images of", "", "size", "images", "MB", "days old"], table)
    total = sum(each.bytes for each in rows)
    echo(f"{place() or 'not kept'}: {total / 1e6:.1f} MB in {counted(len(rows), 'folder')}")
    if embedded:
        networks = counted(len(embedded), "frozen network")
        echo(f"and {sum(embedded) / 1e6:.1f} MB of embeddings by {networks}")


@cache.command("verify")
def verify_cache() -> None:
    """Whether all that is kept is as it was written; what is not is decoded again when wanted."""
    from ..data.cache import place
    from ..data.embedded import fault, files
    from ..data.kept import folders
    from ..data.kept import verify as verify_folder

    with _naming():
        images = (found for each in folders() for found in verify_folder(each.path, each.size))
        _tell(chain(images, ((path, fault(path)) for path in files())), str(place()))


@cache.command()
@click.option(
    "--all", "every", is_flag=True, help="All, also of images that are still there, and embeddings."
)
def prune(every: bool) -> None:
    """Remove what is kept of images that are gone, and what another release has kept."""
    from ..data.embedded import files
    from ..data.kept import prune as prune_folders

    freed = 0
    with _naming():
        for path in files() if every else ():
            freed += path.stat().st_size
            path.unlink()
            echo(f"removed: embeddings {path.name}")
        for folder, removed in prune_folders(every):
            freed += folder.bytes if removed else 0
            echo(f"{'removed' if removed else 'in use, stays'}: {folder.of or folder.path}")
    echo(f"{freed / 1e6:.1f} MB are free again")


@contextmanager
def _naming() -> Iterator[None]:
    from ..core.errors import OutputError

    try:
        yield
    except OSError as error:
        raise OutputError(f"the cache cannot be looked through: {error}") from error


COMMANDS = (verify, cache)

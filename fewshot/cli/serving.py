"""The command that serves a classifier's page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import engine, max_pixels, without_adapter
from .terminal import echo, fast_mlx, tell_unfinished

if TYPE_CHECKING:
    from ..engine.inference import Name


@click.command()
@click.argument("file", metavar="FILE.fewshot", type=click.Path(path_type=Path))
@click.option(
    "--from", "run", metavar="RUN", type=click.Path(path_type=Path),
    help="Make FILE first, without any class, from this run folder.",
)  # fmt: skip
@without_adapter
@engine
@max_pixels
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8100, show_default=True,
    help="On 127.0.0.1; 0: a free one.",
)  # fmt: skip
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def serve(
    file: Path,
    run: Path | None,
    without_adapter: bool,
    engine: Name,
    max_pixels: int,
    port: int,
    show: bool,
) -> None:
    """A page on this machine: classify from the camera, enrol and remove classes.

    Only programs of this machine can reach it. Every change is saved to FILE at once; Ctrl-C ends
    it.
    """
    fast_mlx()
    from ..core.errors import OutputError
    from ..deploy.serve import Desk
    from ..deploy.serve import serve as serve_page

    def ready(address: str) -> None:
        echo(f"{file} is at {address} (Ctrl-C ends it)")
        if show:
            click.launch(address)

    if run is not None:
        tell_unfinished(run)
    elif not file.exists():
        raise OutputError(f"{file}: no such file; --from RUN makes it, and so does `fewshot enrol`")
    desk = Desk(file, run, without_adapter, engine, max_pixels)
    if desk.hint:
        echo(desk.hint, err=True)
    serve_page(desk, port, ready)


COMMANDS = (serve,)

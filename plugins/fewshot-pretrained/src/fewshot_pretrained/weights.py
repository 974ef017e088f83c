"""The command `fewshot weights`."""

from pathlib import Path

import click

from fewshot import OutputError

from . import state_dicts


@click.group()
def weights() -> None:
    """Make safetensors of PyTorch's files."""


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Else FILE.safetensors.")
def convert(file: Path, out: Path | None) -> None:
    """Make a safetensors file of a state dict that PyTorch saved, without PyTorch.

    Nothing in it is run: what is more than tensors in dicts is refused.
    """
    path = file.with_suffix(".safetensors") if out is None else out
    if path.exists():
        raise OutputError(f"{path} exists: name another file with --out")
    tensors = state_dicts.read(file)
    try:
        state_dicts.save(tensors, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    count = sum(array.size for array in tensors.values())
    click.echo(f"{path}: {len(tensors)} tensors, {count:,} numbers")

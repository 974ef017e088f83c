"""What a run folder holds."""

from pathlib import Path
from typing import Any

import mlx.core as mx
from attrs import frozen

from ..core import files
from ..core.errors import OutputError
from ..core.files import read_json
from ..engine.weights import WEIGHTS, read_weights, require_sha256
from .config import read_toml
from .schema import Tree


@frozen
class FinishedRun:
    """What a finished run's folder holds."""

    folder: Path
    manifest: dict[str, Any]
    results: dict[str, Any]
    records: list[dict[str, Any]]


def read_run(folder: Path) -> FinishedRun:
    """A finished run. Raises OutputError, with the reason, where it is half-done or damaged."""
    manifest = files.read_json(folder / "manifest.json")
    try:
        if manifest["status"] != "finished":
            raise OutputError(f"{folder}: not finished (its status: {manifest['status']})")
        require_sha256(folder / WEIGHTS, manifest["weights_sha256"])
        results = files.read_json(folder / "results.json")
        results["k_shot"][0]["per_episode"], results["training"]["seconds"], results["speed"]
        records = files.read_lines(folder / "metrics.jsonl")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise OutputError(f"{folder}: damaged: {type(error).__name__}: {error}") from error
    return FinishedRun(folder, manifest, results, records)


def run_config(folder: Path) -> Tree:
    """The configuration of a run folder as a layer. Raises OutputError where it is none."""
    path = folder / "config.toml"
    if not path.is_file():
        raise OutputError(f"{folder}: not a run folder (it has no config.toml)")
    return read_toml(path)


def run_weights(folder: Path) -> dict[str, mx.array]:
    """A run's weights by name. Raises OutputError where it has none yet or damaged ones."""
    manifest = read_json(folder / "manifest.json")
    path = folder / WEIGHTS
    if not path.is_file():
        raise OutputError(f"{folder}: no weights yet (its status: {manifest.get('status')})")
    return read_weights(path, manifest.get("weights_sha256"))

"""What a run folder holds, and how its figures are written and read."""

from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from attrs import frozen
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ..core import files
from ..core.errors import OutputError
from ..core.figures import AdapterGain, KShotRow, RunResults
from ..core.reading import read_toml
from ..engine.weights import WEIGHTS, read_weights
from ..reports.advice import Advice, advice
from .config import RunConfig
from .manifest import MANIFEST, hashed, hashes, read_manifest
from .schema import Tree
from .status import METRICS, unfinished

CONFIG = "config.toml"
RESULTS = "results.json"

# What else is hashed when a run is finished.
_SHOWN = (
    "metrics.jsonl", "episodes.json", "curves.svg", "k_shot.svg", "calibration.svg",
    "report.html",
)  # fmt: skip

Record = TypeVar("Record")


@frozen
class FinishedRun:
    """What a finished run's folder holds."""

    folder: Path
    manifest: dict[str, Any]
    results: RunResults
    records: list[dict[str, Any]]


def read_run(folder: Path) -> FinishedRun:
    """A finished run. Raises OutputError, with the reason, where it is half-done or damaged."""
    manifest = read_manifest(folder)
    if manifest.get("status") != "finished":
        raise OutputError(unfinished(folder) or f"{folder}: not finished")
    for name, digest in hashes(manifest).items():
        files.require_sha256(folder / name, digest)
    records = files.read_lines(folder / METRICS)
    results = read_results(folder)
    if not results.k_shot or results.training is None:
        raise OutputError(f"{folder}: damaged: {RESULTS} is not that of a whole run")
    return FinishedRun(folder, manifest, results, records)


def read_results(folder: Path) -> RunResults:
    """The figures of a run or an evaluation. Raises OutputError where there are none."""
    path, manifest = folder / RESULTS, read_manifest(folder)
    if RESULTS not in hashes(manifest):
        raise OutputError(f"{unfinished(folder) or folder}; it has no results yet")
    files.require_sha256(path, hashes(manifest)[RESULTS])
    return from_json(RunResults, files.read_json(path), f"{path}: not the results of a run")


def advised(folder: Path) -> list[Advice]:
    """What to try after a run or an evaluation, by what its folder holds."""
    manifest, records = read_manifest(folder), folder / METRICS
    return advice(
        read_results(folder),
        files.read_lines(records) if records.is_file() else [],
        manifest if "classes" in manifest else read_manifest(folder.parent),
        run_config(folder),
    )


def run_config(folder: Path) -> Tree:
    """The configuration of a run folder as a layer. Raises OutputError where it is none."""
    path = folder / CONFIG
    if not path.is_file():
        raise OutputError(f"{folder}: not a run folder (it has no {CONFIG})")
    digest = hashes(read_manifest(folder)).get(CONFIG)
    if digest is None:
        raise OutputError(f"{folder / MANIFEST}: damaged: it does not tell the hash of {CONFIG}")
    files.require_sha256(path, digest)
    return read_toml(path, OutputError)


def run_weights(folder: Path) -> dict[str, mx.array]:
    """A run's weights by name. Raises OutputError where it has none yet or damaged ones."""
    manifest = read_manifest(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise OutputError(f"{unfinished(folder) or folder}; it has no weights yet")
    return read_weights(path, manifest.get("weights_sha256"))


def whole_weights(folder: Path, config: RunConfig) -> dict[str, mx.array]:
    """`run_weights` for use as they are: with the centre, where embeddings have one.

    Raises OutputError where a run that was killed had not taken it yet.
    """
    weights = run_weights(folder)
    if config.embedding.centre != "none" and "centre.mean" not in weights:
        told = unfinished(folder) or f"{folder}: damaged"
        raise OutputError(f"{told}; the centre of its embeddings is not taken yet")
    return weights


# ------------------------------------------------------------------------------- hashes


def hashes_of_shown(folder: Path) -> dict[str, str]:
    """The SHA-256 of the records, tables and pictures in a folder, by name."""
    return hashed(folder, _SHOWN)


# ------------------------------------------------------------------------------- as JSON


def to_json(record: Any) -> Tree:
    """A record of `core.figures` as JSON holds it."""
    tree: Tree = _CONVERTER.unstructure(record)
    return tree


def from_json(cls: type[Record], tree: Any, fault: str) -> Record:
    """The record that `to_json` gave; keys that it does not know are passed over.

    Raises OutputError, beginning with `fault`, for anything else.
    """
    try:
        return _CONVERTER.structure(tree, cls)
    except KeyError as error:
        raise OutputError(f"{fault}: it has no {error}") from error
    except Exception as error:  # whatever cattrs makes of another type
        raise OutputError(f"{fault}: {error}") from error


def _converter() -> Converter:
    converter = Converter(detailed_validation=False)
    # A row's gains by an adapter stand among its own figures.
    as_row = make_dict_unstructure_fn(KShotRow, converter)
    read_row = make_dict_structure_fn(KShotRow, converter)

    def write(row: KShotRow) -> Tree:
        tree = as_row(row)
        return tree | (tree.pop("adapter") or {})

    def read(tree: Any, _: Any) -> KShotRow:
        adapter = {key: tree[key] for key in AdapterGain.__annotations__ if key in tree}
        return read_row({**tree, "adapter": adapter or None}, KShotRow)

    converter.register_unstructure_hook(KShotRow, write)
    converter.register_structure_hook(KShotRow, read)
    # After its rows' own: what it is made of is looked up now.
    converter.register_unstructure_hook(
        RunResults,
        make_dict_unstructure_fn(RunResults, converter, training=override(omit_if_default=True)),
    )
    return converter


_CONVERTER = _converter()

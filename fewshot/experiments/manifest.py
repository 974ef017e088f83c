"""What a folder's manifest tells: facts of a run, and the SHA-256 of every file it wrote.

It holds its own SHA-256 too: settings, weights, figures and records are used only where they are
those of one run.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import OutputError
from ..engine.checkpoints import CHECKPOINT, read_state
from ..engine.weights import INITIAL, WEIGHTS, read_weights

MANIFEST = "manifest.json"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what a folder holds, with a hash of that."""
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    files.write_json(folder / MANIFEST, {**manifest, "sha256": _sha256(manifest)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote. Raises OutputError where it is missing, damaged or changed."""
    path = folder / MANIFEST
    manifest = files.read_json(path)
    if manifest.pop("sha256", None) != _sha256(manifest):
        raise OutputError(f"{path}: damaged or changed: its SHA-256 is not the one it holds")
    for key in ("files", "classes", "data", "versions"):  # those that are looked into
        if not isinstance(manifest.get(key, {}), dict) or (key == "files" and key not in manifest):
            raise OutputError(f"{path}: '{key}' is no table")
    return manifest


def write_hashes(folder: Path, of: str, patterns: Iterable[str]) -> None:
    """The manifest of what is no run, `of` a study or a search: its files by name or pattern."""
    write_manifest(folder, {"of": of, "files": hashed(folder, patterns)})


def hashed(folder: Path, patterns: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of the files of these names or patterns that are in a folder, by name."""
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in found}


def hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of every file of which a manifest tells it, by name."""
    weights = {WEIGHTS: "weights_sha256", INITIAL: "initial_sha256"}
    known = {name: manifest[key] for name, key in weights.items() if key in manifest}
    return {**known, **manifest.get("files", {})}


def verify(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Every file that a folder's manifest tells of, or that changes yet; None: whole, else why.

    Raises OutputError where the manifest itself is missing or damaged.
    """
    checks: dict[str, Callable[[Path], object]]
    checks = {
        name: partial(files.require_sha256, digest=digest)
        for name, digest in hashes(read_manifest(folder)).items()
    }
    # Of a run that is not finished: these change, and have their own hashes.
    for name, read in ((CHECKPOINT, read_state), (WEIGHTS, read_weights)):
        if (folder / name).exists():
            checks.setdefault(name, read)
    for name, check in checks.items():
        try:
            check(folder / name)
            yield folder / name, None
        except OutputError as error:
            yield folder / name, str(error)
    yield folder / MANIFEST, None


def _sha256(manifest: Mapping[str, Any]) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()

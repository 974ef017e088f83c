"""Run folders that a test has changed on purpose, as if a run had written them so."""

from hashlib import sha256
from pathlib import Path
from typing import Any

from fewshot.core.files import read_json
from fewshot.experiments.folder import CONFIG, RESULTS, hashes_of_shown
from fewshot.experiments.manifest import write_manifest


def sealed(folder: Path, without: tuple[str, ...] = (), **facts: Any) -> Path:
    """The folder with a manifest that fits its settings and figures; the weights' hash stays."""
    manifest = {**read_json(folder / "manifest.json"), **facts}
    there = [name for name in (CONFIG, RESULTS) if (folder / name).exists()]
    own = {name: sha256((folder / name).read_bytes()).hexdigest() for name in there}
    manifest["files"] = {**hashes_of_shown(folder), **own}
    kept = {key: value for key, value in manifest.items() if key not in without}
    write_manifest(folder, kept)
    return folder

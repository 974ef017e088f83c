"""How far a run is, and who is at work in its folder."""

import json
from pathlib import Path
from typing import Any

from attrs import frozen

from ..core import files
from ..core.errors import OutputError
from ..core.locks import owner
from .config import read_toml

LOCK = ".lock"  # held by whoever trains or evaluates, as long as it does
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"


@frozen
class RunStatus:
    """How far a run is.

    `status`: "training" or "evaluating" while somebody is at work, else "finished", "interrupted",
    "killed" or "ended early: …". `step`: the last that is kept, of `steps` asked for. `owner`: who
    is at work.
    """

    status: str
    step: int
    steps: int
    owner: str | None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == "finished"

    def __str__(self) -> str:
        if self.finished:
            return self.status
        what, _, why = self.status.partition(":")
        by = f", by {self.owner}" if self.owner else ""
        return f"{what} at step {self.step} of {self.steps}{by}{':' if why else ''}{why}"


def run_status(folder: Path) -> RunStatus:
    """How far a run is. Raises OutputError where the folder holds none or its manifest is damaged.

    A run whose manifest says that it is at work, while nobody is, was killed.
    """
    path = folder / "config.toml"
    if not _is_run(folder):
        raise OutputError(f"{folder}: not a run folder")
    at_work = owner(folder / LOCK)
    manifest: Any = {"status": "training"}  # killed before there was one
    if (folder / "manifest.json").exists():
        manifest = files.read_json(folder / "manifest.json")
    try:
        status, steps = str(manifest["status"]), int(read_toml(path)["training"]["steps"])
        if "training" in manifest:
            step = int(manifest["training"]["steps"])
        else:
            records = files.read_lines(folder / METRICS)
            step = max([_kept_step(folder / CHECKPOINT), *(int(r["step"]) for r in records[-1:])])
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{folder}: damaged: {type(error).__name__}: {error}") from error
    if status in ("training", "evaluating") and at_work is None:
        status = "killed"
    return RunStatus(status, step, steps, at_work)


def unfinished(folder: Path) -> str | None:
    """What to tell of a run that is not finished, with the way on; None: it is, or is no run."""
    if not _is_run(folder):
        return None
    status = run_status(folder)
    if status.finished:
        return None
    way = "" if status.owner else f": `fewshot resume {folder}` goes on"
    return f"{folder}: {status}{way}"


def run_folder(out: Path | None) -> Path:
    """A folder for a new run: `out`, or the next number under `runs`.

    `out` may be there, where a run was killed before it began. Raises OutputError where it holds
    anything.
    """
    if out is None:
        return files.new_folder(Path("runs"))
    if out.is_dir() and not _holds_anything(out):
        return out
    told = unfinished(out)
    if told is not None:
        raise OutputError(f"{told}; or name another --out")
    return files.named_folder(out)


def require_empty(folder: Path) -> None:
    """Raise OutputError where a folder, which this process now holds, has been begun by another."""
    if _holds_anything(folder):
        raise OutputError(f"{folder} exists: name another --out, or leave it out")


def _is_run(folder: Path) -> bool:
    """Whether a run was begun there; an evaluation has its configuration only."""
    begun = (folder / name for name in ("manifest.json", LOCK))
    return (folder / "config.toml").is_file() and any(path.exists() for path in begun)


def _holds_anything(folder: Path) -> bool:
    try:
        return any(path.name != LOCK for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}") from error


def _kept_step(path: Path) -> int:
    """The step of a checkpoint, by the head of its file; 0: there is none."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
    return int(json.loads(head["__metadata__"]["facts"])["history"]["steps"])

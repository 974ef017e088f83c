"""How far a run is, and who is at work in its folder."""

from pathlib import Path

from attrs import frozen

from ..core import files
from ..core.errors import OutputError
from ..core.locks import owner
from ..core.reading import read_toml
from ..engine.checkpoints import CHECKPOINT, read_step
from ..engine.weights import WEIGHTS
from .manifest import MANIFEST, hashes, read_manifest

LOCK = ".lock"  # held by whoever trains or evaluates, as long as it does
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
        at = f" at step {self.step} of {self.steps}" if self.steps else ""
        return f"{what}{at}{by}{':' if why else ''}{why}"


def run_status(folder: Path) -> RunStatus:
    """How far a run is. Raises OutputError where the folder holds none or what it tells is damaged.

    A run whose manifest says that it is at work, while nobody is, was killed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise OutputError(f"{folder}: not a run folder, or killed before it began (no {path.name})")
    at_work = owner(folder / LOCK)
    manifest = read_manifest(folder)
    if "of" in manifest:
        raise OutputError(f"{folder}: {manifest['of']}, not a run: name the folder of one")
    settings = folder / "config.toml"
    files.require_sha256(settings, hashes(manifest).get(settings.name))
    config = read_toml(settings, OutputError)
    try:
        status, steps = str(manifest["status"]), int(config["training"]["steps"])
        if "training" in manifest:
            step = int(manifest["training"]["steps"])
        else:
            records = files.read_lines(folder / METRICS)
            step = max([read_step(folder / CHECKPOINT), *(int(r["step"]) for r in records[-1:])])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise OutputError(f"{folder}: damaged: {type(error).__name__}: {error}") from error
    if status in ("training", "evaluating") and at_work is None:
        status = "killed"
    return RunStatus(status, step, steps, at_work)


def unfinished(folder: Path) -> str | None:
    """What to tell of a run that is not finished, with the way on; None: it is, or is no run."""
    if not (folder / MANIFEST).is_file():
        return None
    status = run_status(folder)
    if status.finished:
        return None
    if status.owner:
        return f"{folder}: {status}"
    there = (folder / WEIGHTS).is_file()
    best = f", `fewshot eval {folder}` examines its best weights so far" if there else ""
    return f"{folder}: {status}: `fewshot resume {folder}` goes on{best}"


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


def _holds_anything(folder: Path) -> bool:
    """Whether there is more than a run leaves that was killed before its manifest was written."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}") from error
    left = {"config.toml"} if LOCK in names else set()
    return any(not name.startswith(".") for name in names - left)

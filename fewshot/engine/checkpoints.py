"""The state of a training on disk, from which another process goes on."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from ..core.errors import OutputError, one_line
from ..core.files import replacing
from .training import State, Training
from .weights import DAMAGE, arrays_of, digest_of

CHECKPOINT = "checkpoint.safetensors"

_SECONDS = 5.0  # between two checkpoints at the least, where none is asked for by steps
_SHARE = 0.005  # of the time that checkpoints should take then: one may cost more than the last
_BYTES_PER_SECOND = 2e8  # until the first one is measured
_WAY_OUT = "; without it training begins again at the first step"


def checkpoints(path: Path, every: int) -> Callable[[Training], None]:
    """What `train` calls after a step to save its state, atomically, every `every` steps.

    0: by the clock, 5 seconds apart or so far that saving takes under 1 % of the time. Raises
    OutputError where it cannot be written.
    """
    due: float | None = None

    def after(now: float, cost: float) -> float:
        return now + max(_SECONDS, cost / _SHARE)

    def keep(training: Training) -> None:
        nonlocal due
        began = time.monotonic()
        if due is None:
            size = sum(array.nbytes for array in training.state().arrays.values())
            due = after(began, size / _BYTES_PER_SECOND)
        if began < due if every == 0 else training.history.steps % every:
            return
        save_state(training.state(), path)
        ended = time.monotonic()
        due = after(ended, ended - began)

    return keep


def go_on(training: Training, path: Path) -> None:
    """Restore a training from a checkpoint, where there is one.

    Raises OutputError where it is damaged or another training's.
    """
    if not path.exists():
        return
    state = read_state(path)
    try:
        training.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise OutputError(f"{path}: not of this training: {line}{_WAY_OUT}") from error


def save_state(state: State, path: Path) -> None:
    """Save a state as safetensors with a digest, atomically. Raises OutputError."""
    facts = json.dumps(state.facts)
    about = {"facts": facts, "sha256": digest_of(state.arrays, facts)}
    try:
        with replacing(path) as temporary:
            mx.save_safetensors(str(temporary), dict(state.arrays), about)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error


def read_state(path: Path) -> State:
    """What `save_state` saved. Raises OutputError for anything else."""
    try:
        arrays, about = arrays_of(path)
        facts, digest = about["facts"], about["sha256"]
    except (OSError, *DAMAGE) as error:
        raise OutputError(f"{path}: not a checkpoint: {one_line(error)}{_WAY_OUT}") from error
    if digest_of(arrays, facts) != digest:
        raise OutputError(f"{path}: damaged: its SHA-256 is not the one in it{_WAY_OUT}")
    return State(arrays, json.loads(facts))


def read_step(path: Path) -> int:
    """The step of a checkpoint, by the head of its file alone; 0: there is none.

    Raises OutputError where it has no such head.
    """
    try:
        with path.open("rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
            if length > size:
                said = f"damaged: a head of {length} bytes in a file of {size}"
                raise OutputError(f"{path}: {said}{_WAY_OUT}")
            head = json.loads(file.read(length))
        return int(json.loads(head["__metadata__"]["facts"])["history"]["steps"])
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        raise OutputError(f"{path}: not a checkpoint: {one_line(error)}{_WAY_OUT}") from error

"""A classifier as commands open it, and what they tell of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.wording import counted
from .terminal import echo, fast_mlx, load_registry, showing_progress, tell_unfinished

if TYPE_CHECKING:
    from ..core.progress import Progress
    from ..deploy.classifier import Classifier
    from ..engine.inference import Name

BATCH = 128  # images embedded at once


def load(path: Path, without_adapter: bool = False) -> Classifier:
    """The classifier of a file, or one of a run that has no class yet."""
    fast_mlx()
    registry, _ = load_registry(strict=False)
    from ..deploy.classifier import Classifier

    tell_unfinished(path)
    return Classifier.load(path, registry, without_adapter)


def with_engine(classifier: Classifier, engine: Name) -> Classifier:
    """Ready, where the engine is one that may not be possible."""
    from attrs import evolve

    classifier = evolve(classifier, engine=engine)
    if engine == "onnx":
        classifier.ready()
    return classifier


def with_limit(classifier: Classifier, max_pixels: int) -> Classifier:
    """Refusing larger images."""
    from attrs import evolve

    return evolve(classifier, reading=evolve(classifier.reading, max_pixels=max_pixels))


def tell_engine(classifier: Classifier) -> None:
    """Why another engine answers than was wanted, where one does."""
    if classifier.engine.hint:
        echo(classifier.engine.hint, err=True)


def images_of(count: int, unreadable: object) -> str:
    """So many images, or folders that may not be read among them."""
    return f"{count} images or folders" if unreadable else counted(count, "image")


def tell_notes(notes: Iterable[str]) -> None:
    """What of a folder is left out, and what is taken that may not be meant."""
    for note in notes:
        echo(note, err=True)


def progress_of(total: int) -> AbstractContextManager[Progress]:
    """Shown to who watches, else where there is enough to do."""

    def silent(stage: str, done: int, total: int, status: str, line: str) -> None:
        pass

    shown = total > BATCH or (total and sys.stderr.isatty())
    return showing_progress() if shown else nullcontext(silent)

"""Small runs to interrupt, and all that one comes to but for times."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from fewshot.experiments.folder import read_run
from fewshot.reports import pictures, run_page

TIMES = {"images_per_second", "seconds", "adapting_seconds", "speed"}


def layer(folder: Path, **over: Any) -> dict[str, Any]:
    """A configuration of a run of six steps; its images, noise with a tint, are in the folder."""
    labels = np.repeat(np.arange(8), 8)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 160, (64, 16, 16, 1)) + 12 * labels[:, None, None, None]
    np.savez(folder / "data.npz", images=images.astype(np.uint8), labels=labels)
    settings: dict[str, Any] = {
        "dataset": {"name": "arrays", "path": str(folder / "data.npz")},
        "backbone": {"name": "conv4", "width": 4},
        "split": {"val_fraction": 0.4, "test_fraction": 0.3},
        "training": {
            "steps": 6,
            "validate_every": 2,
            "checkpoint_every": 2,
            "validation_pool": 6,
        },
        "evaluation": {"k_shot": [1, 3], "repeats": 2, "pairs": 20, "n_query": 2},
    }
    return {**settings, **over}


def outcome(folder: Path) -> dict[str, Any]:
    """What a finished run came to: hashes of its weights and episodes, its figures, its records."""
    found = read_run(folder)
    results = json.loads((folder / "results.json").read_text())
    of_files = {
        name: sha256((folder / name).read_bytes()).hexdigest()
        for name in ("weights.safetensors", "episodes.json", "config.toml")
    }
    return {**of_files, "records": without_times(found.records), "results": without_times(results)}


def without_times(tree: Any) -> Any:
    if isinstance(tree, list):
        return [without_times(each) for each in tree]
    if isinstance(tree, dict):
        return {key: without_times(each) for key, each in tree.items() if key not in TIMES}
    return tree


def copying(folder: Path, to: Path, copies: list[tuple[str, int, Path]]) -> Callable[..., None]:
    """Progress that copies a run folder at every line: what a kill at that moment would leave."""

    def progress(stage: str, done: int, *_: Any) -> None:
        if folder.exists():
            copies.append((stage, done, copytree(folder, to / f"{len(copies):03d}")))

    return progress


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs draw nothing, which takes most of the time of a small one."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (pictures, "curves"),
            (run_page, "draw"),
            (run_page, "page"),
        ):
            patch.setattr(module, name, lambda *_: None)
        yield

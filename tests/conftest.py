"""MLX made fast before anything imports it, how hard Hypothesis tries, what tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fewshot.compute import runtime

runtime.prepare()

# Tests started in the background ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("quick", derandomize=True, max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images are not kept among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """No test turns the power off: what is written need not be on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_time_for_speed() -> Iterator[None]:
    """What no test asks takes the fewest calls."""
    from fewshot.engine import speed

    measure = speed.median_time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "median_time", lambda function, _: measure(function, 0.0))
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two steps on noise with a tint of the class, 16x16 pixels."""
    import numpy as np

    from fewshot.catalogue.loading import build_registry
    from fewshot.experiments.config import resolve
    from fewshot.experiments.run import run

    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    images = rng.integers(0, 160, (96, 16, 16, 3)) + 12 * labels[:, None, None, None]
    np.savez(folder / "data.npz", images=images.astype(np.uint8), labels=labels)
    layer = {
        "dataset": {"name": "arrays", "path": str(folder / "data.npz")},
        "backbone": {"name": "conv4", "width": 4},
        "split": {"val_fraction": 0.4, "test_fraction": 0.3},
        "training": {"steps": 2},
        "evaluation": {"k_shot": [1, 3], "repeats": 2, "pairs": 50},
    }
    registry, _ = build_registry()
    return run(resolve(registry, [layer]), registry, folder / "run")

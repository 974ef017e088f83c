"""From the command to a classifier that passes an accuracy, on the real photos."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .settings import Settings
from .sides import Result, SkippedError

# 29-way accuracy at K = 10 on the six signs that training has not seen, groups mixed.
WANTED = 0.676

# The fewest steps that pass with some points to spare: other rounding trains another network.
RECIPE = [
    "--dataset", "asl-alphabet", "--groups", "mixed", "--k-shot", "10",
    "--set", "dataset.size=32", "--augment", "crop,colour", "--steps", "150",
    "--set", "training.validate_every=150", "--set", "evaluation.pairs=0",
]  # fmt: skip


def run(photos: Path, out: Path, *more: str) -> tuple[float, dict[str, Any]]:
    """Seconds of one `fewshot run` from start to end, and its results."""
    command = [sys.executable, "-m", "fewshot", "run", *RECIPE, *more, "--out", str(out)]
    began = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "FEWSHOT_ASL_DATA": str(photos)},
    )  # fmt: skip
    return time.perf_counter() - began, json.loads((out / "results.json").read_text())


def measure(settings: Settings) -> Result:
    if settings.photos is None:
        raise SkippedError("needs the photos: --photos PATH or FEWSHOT_ASL_DATA=PATH")
    with tempfile.TemporaryDirectory() as place:
        run(settings.photos, Path(place, "warm"), "--steps", "1")  # fills the caches
        took, results = run(settings.photos, Path(place, "run"))
    (row,) = results["k_shot"]
    low, high = row["ci95"]
    passed = row["accuracy"] >= WANTED
    return Result(
        what=f"`fewshot run` on the photos to {WANTED:.1%} at K = 10, start to end, caches warm",
        ours=f"{took:.0f} s" if passed else f"not reached in {took:.0f} s",
        note=f"{row['accuracy']:.1%} ({low:.1%}–{high:.1%}), {row['n_way']}-way, six unseen signs, "
        f"groups {row['groups']}; `fewshot run {' '.join(RECIPE)}`",
        figures={"seconds": took, "accuracy": row["accuracy"], "ci95": row["ci95"]},
    )

"""Folders of installed plugins as `importlib.metadata` finds them, and `fewshot` run among them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def distribution(
    site: Path, name: str, points: dict[str, str], group: str = "fewshot", **modules: str
) -> Path:
    """An installed distribution, `.dist-info` and modules; returns its entry_points.txt."""
    info = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
    return info / "entry_points.txt"


def fewshot(
    *arguments: str, site: Path, plugins: str | None = None, code: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`fewshot` (or other code) in a fresh process that finds the distributions in `site`."""
    unset = ("FEWSHOT_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), env.get("PYTHONPATH")]))
    if plugins is not None:
        env["FEWSHOT_PLUGINS"] = plugins
    command = ["-m", "fewshot"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        env=env, cwd=site, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


_ONE_BY_ONE = """
import contextlib, io, json, sys, traceback
from fewshot.cli import main

outcomes = []
for command in json.loads(sys.argv[1]):
    sys.argv = ["fewshot", *command]
    out, err, code = io.StringIO(), io.StringIO(), 1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
    outcomes.append([code, out.getvalue(), err.getvalue()])
print("OUTCOMES" + json.dumps(outcomes))
"""


def one_by_one(
    commands: Sequence[Sequence[str]], site: Path, plugins: str | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Many commands in one fresh process, which imports everything once: what came of each."""
    done = fewshot(json.dumps(commands), site=site, plugins=plugins, code=_ONE_BY_ONE)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.rpartition("OUTCOMES")[2])
    return [
        subprocess.CompletedProcess(list(command), *outcome)
        for command, outcome in zip(commands, outcomes, strict=True)
    ]


def names(output: str, kind: str) -> list[str]:
    """The names that `fewshot list` gives for a kind."""
    rows = [line.split() for line in output.splitlines()]
    return [row[1] for row in rows if len(row) > 2 and row[0] == kind]


QUICK = (
    *("--steps", "3", "--k-shot", "1", "--set", "training.validate_every=3"),
    *("--set", "evaluation.repeats=2", "--set", "evaluation.pairs=50"),
    *("--set", "split.test_fraction=0.3", "--set", "split.val_fraction=0.3"),
)


def small_images(folder: Path) -> list[str]:
    """Eight classes of twelve small images, and what a run of three steps on them is asked with."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    noise = rng.normal(0, 30, (len(labels), 16, 16, 3))
    images = np.clip(25 * labels[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    np.savez(folder / "small.npz", images=images, labels=labels)
    return ["run", "--data", str(folder / "small.npz"), *QUICK]

"""Every example runs as a user would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_runs_and_beats_chance(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    accuracies = [float(found) for found in re.findall(r": (\d+\.\d)%", done.stdout)]
    assert accuracies
    assert max(accuracies) > 40  # 5-way and 3-way episodes: chance is 20 and 33


def test_training_on_own_arrays_takes_under_forty_lines_of_code() -> None:
    lines = (EXAMPLES / "own_arrays.py").read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith(("#", '"""'))]) < 40

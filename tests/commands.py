"""The command `fewshot` in this process or in one of its own."""

import contextlib
import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from fewshot.cli import main


def command(*arguments: object) -> dict[str, Any]:
    unset = ("FEWSHOT_PLUGINS", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "FEWSHOT_ASL_DATA")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    return {"args": [sys.executable, "-m", "fewshot", *map(str, arguments)], "env": env}


def fewshot(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=100
    )


def here(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has everything imported: a fraction of the time."""
    words = ["fewshot", *map(str, arguments)]
    out, err, code = StringIO(), StringIO(), None
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or "."),
    ):
        patch.setattr(sys, "argv", words)
        patch.delenv("FEWSHOT_PLUGINS", raising=False)
        patch.delenv("FEWSHOT_ASL_DATA", raising=False)
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def done(
    *arguments: object, cwd: Path | None = None, start: Any = here
) -> subprocess.CompletedProcess[str]:
    result = start(*arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result


def error(code: int, *arguments: object, cwd: Path | None = None, start: Any = here) -> str:
    """The one line that a mistake ends in; nothing else is said but progress."""
    result = start(*arguments, cwd=cwd)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0]
    return lines[0]


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]

"""What reaches a terminal: only what can be printed, in any encoding, else a line and a code."""

import ast
import io
import os
import re
import sys
from pathlib import Path
from typing import Any
from unicodedata import category

import click
import numpy as np
import pytest
from commands import error, here
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot import cli
from fewshot.cli import main, terminal

FOLDER = Path(cli.__file__).parent
ANY = st.text(st.characters(exclude_categories=[]), max_size=40)  # surrogates and controls too


@pytest.fixture(scope="module")
def named_badly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose classes are named as a stranger would name them."""
    folder = tmp_path_factory.mktemp("esc")
    for name in ("\x1b[31mred", "\x1b]0;title\x07", "a\nfault: forged", "\u202eback", "c", "d"):
        (folder / name).mkdir()
        for i in range(6):
            image = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


def steers_nothing(text: str) -> bool:
    """Whether all of it shows, but for ends of lines and the joiners of letters and emoji."""
    spaces_and_unknown = ("Zs", "Co", "Cn")
    return all(
        c.isprintable() or c in "\n\u200c\u200d" or category(c) in spaces_and_unknown for c in text
    )


@given(ANY, ANY)
def test_nothing_printed_steers_a_terminal(one: str, other: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", out)
        terminal.echo(one, other)
        terminal.echo(f"Error: {one}", err=True)
        terminal.print_table([one], [[other]])
        with terminal.showing_progress() as progress:
            progress(one, 1, 2, other, other)
            progress(one, 2, 2, "", "")
    text = out.getvalue()
    assert steers_nothing(text)
    text.encode()  # surrogates are no UTF-8
    assert text.splitlines()[2].startswith("Error: ")  # a name makes no line of its own


NAME = st.text("abcdefgh-", min_size=1, max_size=30)


def in_columns(width: int, header: list[str], rows: list[list[str]], right: bool) -> list[str]:
    """The lines of a table on a terminal so wide."""
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
            patch.setenv(name, value)
        terminal.print_table(header, rows, right)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


@settings(max_examples=20)
@given(st.lists(st.lists(NAME, min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_narrow_terminal_loses_no_letter_of_a_table(rows: list[list[str]]) -> None:
    lines = in_columns(40, ["class", "unreadable images", "groups"], rows, right=False)
    assert max(map(len, lines)) <= 40
    shown = "".join(lines).replace(" ", "")
    assert sum(shown.count(c) for c in "-") == sum(cell.count("-") for row in rows for cell in row)
    assert "…" not in shown


@pytest.mark.parametrize("run", ["runs/0001", "runs/0001/eval-0001", "runs/of-the-third-kind/1"])
def test_a_comparison_fits_eighty_columns(run: str) -> None:
    header = ["K", "run", "accuracy", "difference", "95 %", "p", "95 % by class", "p by class"]
    low = ["10", run, "100.0 %", "-12.3", "-14.1 to -11.4", "<0.0001", "-14.1 to -11.4"]
    lines = in_columns(80, header, [[*low, "<0.0001"]], right=True)
    assert max(map(len, lines)) <= 80
    assert all(any(cell in line for line in lines) for cell in low if cell != run)
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("seconds", [0.0, 100.0])
def test_what_takes_long_says_how_far_it_is_where_nobody_watches(
    seconds: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_SILENT", seconds)
    with terminal.showing_progress() as progress:
        for done in range(4):
            progress("images", done, 3, "", "")
            progress("training", done, 3, "", "")  # has lines of its own
    *between, last = capsys.readouterr().err.splitlines()
    assert between == ([] if seconds else ["images 0/3", "images 1/3", "images 2/3"])
    assert re.fullmatch(r"images: \d+\.\d s", last)


def test_commands_print_by_these_functions_only() -> None:
    for path in FOLDER.glob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "click.echo", "click.secho"), path


def test_names_of_folders_are_shown_and_steer_nothing(named_badly: Path) -> None:
    seen = here("data", "check", named_badly, "--set", "dataset.size=16")
    said = seen.stdout + seen.stderr
    assert steers_nothing(said)
    assert r"'\x1b[31mred' can be no class's name" in said
    assert not re.search("^fault: forged", said, re.MULTILINE)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "shift_jis"])
def test_a_terminal_that_is_not_utf_8_gets_replacements(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding))
    monkeypatch.setattr(sys, "argv", ["fewshot", "list", "loss"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    terminal.print_table(["π ≤ – ✕"], [["東京 ü"]])
    assert b"contrastive" in raw.getvalue()
    assert b"?" in raw.getvalue()


def ended(arguments: list[str], out: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """The exit code of a command whose output goes there, and what it says on standard error."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["fewshot", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, err.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["list"], ["list", "loss"], ["--help"], ["--version"]])
@pytest.mark.parametrize("buffering", [-1, 1])
def test_full_standard_output_is_a_line_and_an_exit_code(
    arguments: list[str], buffering: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w", buffering) as full:
        code, said = ended(arguments, full, monkeypatch)
    assert code == 5
    assert said.splitlines()[-1] == (
        "Error: standard output: cannot be written: No space left on device"
    )


@pytest.mark.parametrize("arguments", [["list"], ["list", "loss"], ["plugins"]])
@pytest.mark.parametrize("buffering", [-1, 1])
def test_a_reader_that_has_enough_is_no_fault(
    arguments: list[str], buffering: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering) as pipe:
        code, said = ended(arguments, pipe, monkeypatch)
    assert code == 0
    assert said == ""


def test_memory_that_is_not_there_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        np.empty(1 << 50, np.uint8)

    monkeypatch.setitem(cli.commands.commands, "wants-all", click.command()(command))
    said = error(1, "wants-all")
    assert "out of memory: Unable to allocate" in said
    assert "dataset.size" in said


@pytest.mark.parametrize(
    "text",
    [
        "[metal::malloc] Unable to allocate 64 bytes.",
        "[METAL] Command buffer execution failed: Insufficient Memory "
        "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "cudaMallocAsync(&data, size, stream) failed: out of memory",
    ],
)
def test_memory_of_a_gpu_that_is_not_there_is_a_line(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> None:
        raise RuntimeError(text)

    monkeypatch.setitem(cli.commands.commands, "wants-all", click.command()(command))
    said = error(1, "wants-all")
    assert text in said
    assert "sampler" in said


def test_a_batch_size_is_told_in_the_words_of_a_sampler() -> None:
    assert "--set sampler.per_class=…" in error(2, "run", "--batch-size", "8")

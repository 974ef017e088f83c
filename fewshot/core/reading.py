"""TOML and JSON from anyone: a table of plain values, or one line that names file and key."""

import json
import math
import os
import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ConfigError, FewshotError, OutputError

LARGEST = 1 << 28  # bytes of a file of text

# Digits that may be an integer; Python reads those of at least 640.
_LONG = re.compile(r"(?<![0-9_])[0-9][0-9_]{600,}+(?![.eE])")
_DEEPEST = 64  # tables and lists within each other: what walks over them later may recurse


def home(path: str) -> Path:
    """A path as text, `~` standing for the home folder. Raises ConfigError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_toml(path: Path, error: type[FewshotError] = ConfigError) -> dict[str, Any]:
    """A TOML file as a table; `error`, naming file and line or key, where it cannot be read.

    A byte order mark is passed over.
    """
    return parse_toml(_text(path, error), str(path), error)


def parse_toml(text: str, called: str, error: type[FewshotError] = ConfigError) -> dict[str, Any]:
    """TOML as a table; `error`, beginning with `called`, where it is none or holds what none may.

    Integers have 64 bits, as TOML says; text is Unicode; nothing is nested without end.
    """
    return _parsed(tomllib.loads, text, called, "TOML", error)


def read_json(path: Path, error: type[FewshotError] = OutputError) -> dict[str, Any]:
    """A JSON file as a table; `error`, naming file and place or key, where it cannot be read."""
    return parse_json(_text(path, error), str(path), error)


def parse_json(text: str, called: str, error: type[FewshotError] = OutputError) -> dict[str, Any]:
    """JSON as a table, under the rules of `parse_toml`; NaN and infinities are no JSON."""
    return _parsed(_json, text, called, "JSON", error)


def _json(text: str) -> Any:
    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):  # NaN, Infinity, 1e999
            raise ValueError(f"{shortened(digits)} is no number")
        return number

    return json.loads(text, parse_constant=finite, parse_float=finite)


def _parsed(
    parse: Callable[[str], Any], text: str, called: str, format: str, error: type[FewshotError]
) -> dict[str, Any]:
    try:
        tree = parse(text)
        if not isinstance(tree, dict):
            raise ValueError(f"a table is wanted, not {shortened(tree)}")  # noqa: TRY004
        _check(tree)
    except RecursionError:
        raise error(f"{called}: not {format}: nested too deep") from None
    except ValueError as problem:  # of the parsers, and of int() for thousands of digits
        said = _long_integer(parse, text) if _is_of_digits(problem) else str(problem)
        line = "".join(c if c.isprintable() else "?" for c in " ".join(said.split()))
        raise error(f"{called}: not {format}: {line}") from problem
    return tree


def _is_of_digits(problem: ValueError) -> bool:
    """Whether it is of an integer of more digits than Python reads: only its text says so."""
    return "set_int_max_str_digits" in str(problem)


def _long_integer(parse: Callable[[str], Any], text: str) -> str:
    """Where such an integer stands: the first long number with which text that ends there fails.

    Those in comments and strings do not.
    """

    def fails(number: re.Match[str]) -> bool:
        try:
            parse(text[: number.end()])
        except ValueError as problem:
            return _is_of_digits(problem)
        return False

    numbers = [*_LONG.finditer(text)]
    number = numbers[bisect_left(numbers, True, key=fails)]
    line, digits = text.count("\n", 0, number.start()) + 1, number[0].replace("_", "")
    return f"an integer of {len(digits)} digits, and integers have 64 bits (at line {line})"


def _check(tree: Any) -> None:
    """Raise ValueError, naming the key, for a value that no option and no figure can have."""
    waiting: list[tuple[str, int, Any]] = [("", 0, tree)]
    while waiting:
        key, depth, value = waiting.pop()
        if depth > _DEEPEST:
            raise ValueError(f"'{key[:60]}…' is nested too deep")
        if isinstance(value, dict):
            for name, below in value.items():
                _check_text(name, key or "a key")
                waiting.append((f"{key}.{name}" if key else name, depth + 1, below))
        elif isinstance(value, list):
            waiting += [(f"{key}[{i}]", depth + 1, below) for i, below in enumerate(value)]
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"'{key}' is {shortened(value)}, and integers have 64 bits")
        elif isinstance(value, str):
            _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"'{key}' holds half a character (a lone surrogate)") from None


def shortened(value: Any, most: int = 60) -> str:
    """A value as one short line."""
    if isinstance(value, int) and value.bit_length() > 4 * most:  # more digits than are printed
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def bounded(path: Path, most: int, error: type[FewshotError]) -> bytes:
    """A file's content; `error`, naming it, where it cannot be read or has more bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}") from problem
    except ValueError as problem:  # a null character
        raise error(f"{os.fspath(path)!r}: no name of a file: {problem}") from problem
    if len(content) > most:
        raise error(f"{path}: larger than the {most} bytes allowed")
    return content


def _text(path: Path, error: type[FewshotError]) -> str:
    content = bounded(path, LARGEST, error)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise error(f"{path}: not UTF-8 but UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        where = content[: problem.start].count(b"\n") + 1
        raise error(f"{path}: not UTF-8 (line {where}): save it as UTF-8") from problem

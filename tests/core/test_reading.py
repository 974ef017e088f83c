"""TOML and JSON of anyone: what it means, or one line that names file and key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.errors import ConfigError, DataError, FewshotError, OutputError
from fewshot.core.reading import home, parse_json, parse_toml, read_json, read_toml

plain = st.recursive(
    st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
trees = st.dictionaries(st.text(), plain, max_size=4)


@given(tree=trees, bom=st.booleans())
def test_toml_means_what_was_written_with_or_without_a_byte_order_mark(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], bom: bool
) -> None:
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + tomli_w.dumps(tree).encode())
    assert read_toml(path) == tree


READERS: list[tuple[Callable[[Path], Any], type[FewshotError]]] = [
    (read_toml, ConfigError),
    (lambda path: read_toml(path, DataError), DataError),
    (read_json, OutputError),
]
readers = pytest.mark.parametrize(("reader", "kind"), READERS, ids=["toml", "split", "json"])


@readers
@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_table_or_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    reader: Callable[[Path], Any],
    kind: type[FewshotError],
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(content)
    try:
        found = reader(path)
    except kind as error:
        said = str(error)
    else:
        assert isinstance(found, dict)
        return
    assert said.startswith(str(path))
    assert "\n" not in said


MALFORMED = {
    "nested too deep": [b"a = " + b"[" * 5000, b'{"a": ' + b"[" * 5000],
    "nested": [b"a = " + b"[" * 70 + b"]" * 70, b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}"],
    "'a.b' is 9223372036854775808": [
        b"[a]\nb = 9223372036854775808",
        b'{"a": {"b": 9223372036854775808}}',
    ],
    "digits": [b"a = " + b"9" * 5000, b'{"a": ' + b"9" * 5000 + b"}"],
    "UTF-16": ["a = 1".encode("utf-16"), '{"a": 1}'.encode("utf-16")],
    r"line 2": [b"a = 1\nb = '\xe9'", b'{"a": 1,\n"b": "\xe9"}'],
    "haracter": [b"a = '\0'", b'{"a": "\0"}'],
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_no_file_may_hold_is_named(what: str, tmp_path: Path) -> None:
    toml, js = MALFORMED[what]
    for content, reader, kind in ((toml, *READERS[0]), (js, *READERS[2])):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(kind, match=f"{path}: .*{what}") as caught:
            reader(path)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_toml, '# {0}\na = "{0}"\nb = """\n{0}"""\nc = {0}.5\nd = 1\n{0} = [-{0}, {0}]\n'),
        (parse_json, '{{"a": "{0}",\n"b": 0.{0},\n\n\n"c":\n1, "d": [-{0},\n{0}]}}'),
    ],
)
def test_an_integer_of_thousands_of_digits_is_told_with_its_line(
    parse: Callable[[str, str], Any], text: str
) -> None:
    with pytest.raises(FewshotError, match="digits") as caught:
        parse(text.format("9" * 5000), "this")
    line = text[: text.index("-{0}")].count("\n") + 1
    assert f"5000 digits, and integers have 64 bits (at line {line})" in str(caught.value)
    assert "sys." not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "3",
        "null",
        "NaN",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        f'{{"a": {"9" * 5000}.5}}',
    ],
)
def test_what_is_no_table_of_numbers_is_no_json(text: str) -> None:
    with pytest.raises(OutputError, match="this: not JSON") as caught:
        parse_json(text, "this")
    assert len(str(caught.value)) < 100


def test_half_a_character_is_named() -> None:
    with pytest.raises(OutputError, match=r"'a\.b' holds half a character"):
        parse_json(json.dumps({"a": {"b": "\ud800"}}), "this")


def test_missing_folders_and_names_that_are_none_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match=r"cannot be read|no name of a file"):
            read_toml(path)


def test_home_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home("~/photos") == tmp_path / "photos"
    assert home("a/~") == Path("a/~")
    with pytest.raises(ConfigError, match="~nobody-of-that-name/x"):
        home("~nobody-of-that-name/x")


def test_a_bad_line_is_told_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"this: not TOML: .*line 2"):
        parse_toml("a = 1\nb c\nd = 2", "this")

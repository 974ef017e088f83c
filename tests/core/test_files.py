"""What a run leaves on disk: whole, readable again, and never over something else."""

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from fewshot.core.errors import OutputError
from fewshot.core.files import (
    append_line,
    named_folder,
    new_folder,
    read_json,
    read_lines,
    write_json,
    write_text,
)
from fewshot.engine.weights import WEIGHTS, load_weights, save_weights
from fewshot.parts.backbones import Conv4Options, conv4

SHAPE = (16, 16, 1)


def network(seed: int, width: int = 4) -> nn.Module:
    mx.random.seed(seed)
    net = conv4(Conv4Options(width), SHAPE)
    net(images(seed))  # running statistics that are not the initial ones
    mx.eval(net.parameters())
    return net.eval()


def images(seed: int) -> mx.array:
    return mx.array(np.random.default_rng(seed).random((8, *SHAPE), np.float32))


def state(module: nn.Module) -> dict[str, Any]:
    return {name: np.array(value) for name, value in tree_flatten(module.parameters())}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


# -------------------------------------------------------------------------------- weights


def test_what_is_loaded_embeds_as_what_was_saved_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = network(0), network(1)
    x = images(7)
    assert not np.array_equal(np.array(saved(x)), np.array(loaded(x)))
    digest = save_weights(saved, tmp_path / WEIGHTS)
    load_weights(loaded, tmp_path / WEIGHTS, digest)
    assert equal(state(loaded), state(saved))
    assert np.array_equal(np.array(saved(x)), np.array(loaded(x)))


def test_saving_returns_the_hash_of_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    for seed in (0, 1):  # the second replaces the first
        digest = save_weights(network(seed), path)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert list(tmp_path.iterdir()) == [path]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_weights_that_nothing_tells_the_hash_of(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / WEIGHTS
    net, other = network(0), network(1)
    save_weights(net, path)
    blob = bytearray(path.read_bytes())
    blob[int(place * len(blob))] ^= 1 << bit
    path.write_bytes(blob)
    try:
        load_weights(other, path)
    except OutputError:
        return
    assert equal(state(other), state(net))  # it was in what the file tells besides


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / WEIGHTS
    net = network(0)
    digest = save_weights(net, path)
    blob = bytearray(path.read_bytes())
    blob[int(place * len(blob))] ^= 1 << bit
    path.write_bytes(blob)
    before = state(net)
    with pytest.raises(OutputError, match="damaged"):
        load_weights(net, path, digest)
    assert equal(state(net), before)


@pytest.mark.parametrize("hashed", [True, False], ids=["hash known", "hash unknown"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_an_output_error(tmp_path: Path, kept: float, hashed: bool) -> None:
    path, net = tmp_path / WEIGHTS, network(0)
    digest = save_weights(net, path)
    blob = path.read_bytes()
    path.write_bytes(blob[: int(kept * len(blob))])
    with pytest.raises(OutputError, match=WEIGHTS):
        load_weights(net, path, digest if hashed else None)


def test_weights_of_another_width_do_not_fit(tmp_path: Path) -> None:
    digest = save_weights(network(0, width=4), tmp_path / WEIGHTS)
    other = network(0, width=5)
    before = state(other)
    with pytest.raises(OutputError, match="do not fit"):
        load_weights(other, tmp_path / WEIGHTS, digest)
    assert equal(state(other), before)


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    digest = save_weights(nn.Linear(3, 2), tmp_path / WEIGHTS)
    with pytest.raises(OutputError, match="do not fit"):
        load_weights(network(0), tmp_path / WEIGHTS, digest)


def test_missing_weights_and_an_unwritable_place_are_output_errors(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be read"):
        load_weights(network(0), tmp_path / WEIGHTS)
    with pytest.raises(OutputError, match="cannot be written"):
        save_weights(network(0), tmp_path / "missing" / WEIGHTS)


# ----------------------------------------------------------------------------------- text


@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r")), min_size=1))
def test_text_is_read_as_it_was_last_written_and_nothing_temporary_is_left(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("text") / "report.md"
    for text in texts:
        write_text(path, text)
    assert path.read_text(encoding="utf-8") == texts[-1]
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_and_leaves_nothing_temporary(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half of it, then a lone surrogate \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_text, lambda path, _: save_weights(network(0), path)])
def test_a_folder_in_the_way_is_an_output_error_and_leaves_nothing_temporary(
    tmp_path: Path, write: Any
) -> None:
    path = tmp_path / WEIGHTS
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "missing" / "report.md", "text")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(value=st.dictionaries(st.text(), json_values))
def test_json_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    path = tmp_path_factory.mktemp("json") / "manifest.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_no_json_are_never_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"accuracy": value})
    assert not list(tmp_path.iterdir())


def test_json_that_is_missing_or_damaged_is_an_output_error(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(OutputError, match=r"manifest\.json: cannot be read"):
        read_json(path)
    write_json(path, {"a": [1, 2]})
    path.write_text(path.read_text()[:-4])
    with pytest.raises(OutputError, match=r"manifest\.json: not JSON"):
        read_json(path)


def test_appended_lines_are_records_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in range(3):
        append_line(path, {"step": step})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    assert read_lines(path) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_line_cut_short_anywhere_costs_that_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"step": 0})
    append_line(path, {"step": 1, "of": "ü"})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) + 1):
        path.write_bytes(whole[:cut])
        append_line(path, {"step": 2})
        kept = [0, 1, 2] if cut >= len(whole) - 1 else [0, 2]
        assert [record["step"] for record in read_lines(path)] == kept


def test_records_appended_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: append_line(path, {"i": i, "long": "x" * 9000}), range(40)))
    assert sorted(record["i"] for record in read_lines(path)) == list(range(40))


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "log.jsonl") == []


# -------------------------------------------------------------------------------- folders


def test_new_folders_are_numbered_from_one_without_reuse(tmp_path: Path) -> None:
    parent = tmp_path / "deep" / "runs"
    made = [new_folder(parent, "run-") for _ in range(3)]
    assert [folder.name for folder in made] == ["run-0001", "run-0002", "run-0003"]
    assert all(folder.is_dir() for folder in made)
    assert new_folder(parent, "other-").name == "other-0001"
    made[1].rmdir()
    (parent / "run-0004").write_text("a file counts as taken")
    assert [new_folder(parent, "run-").name for _ in range(2)] == ["run-0002", "run-0005"]


def test_new_folders_made_at_once_are_distinct(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: new_folder(tmp_path), range(20)))
    assert len(set(made)) == 20


def test_a_named_folder_is_made_once_and_never_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert named_folder(folder) == folder
    assert folder.is_dir()
    (folder / "kept").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        named_folder(folder)
    assert (folder / "kept").read_text() == "mine"


@pytest.mark.parametrize("make", [new_folder, named_folder])
def test_a_folder_inside_a_file_is_an_output_error(tmp_path: Path, make: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        make(tmp_path / "file" / "inside")

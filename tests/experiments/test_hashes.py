"""A run's settings, weights, figures and records are used as they were written, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sealing import sealed

from fewshot.core.errors import OutputError
from fewshot.core.files import append_line, lines, read_lines
from fewshot.experiments.folder import (
    read_results,
    read_run,
    run_config,
)
from fewshot.experiments.manifest import hashes, read_manifest, verify, write_manifest

WRITTEN = (
    "config.toml", "results.json", "weights.safetensors", "metrics.jsonl", "episodes.json",
    "report.html", "k_shot.svg", "curves.svg",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("hashed") / "run"))


def test_every_file_of_a_run_is_hashed(run: Path) -> None:
    known = hashes(read_manifest(run))
    assert {*WRITTEN} <= known.keys()
    there = {path.name for path in run.iterdir() if path.is_file()}
    assert there - known.keys() <= {"manifest.json", ".lock"}
    assert {fault for _, fault in verify(run)} == {None}


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_of_any_file_is_told_by_verify_and_refused_in_use(
    name: str, run: Path, place: float, bit: int
) -> None:
    whole = (run / name).read_bytes()
    content = bytearray(whole)
    content[int(place * len(content))] ^= 1 << bit
    (run / name).write_bytes(content)
    try:
        assert [path.name for path, fault in verify(run) if fault] == [name]
        with pytest.raises(OutputError, match=f"{name}: damaged"):
            read_run(run)
        if name == "config.toml":
            with pytest.raises(OutputError, match="damaged"):
                run_config(run)
        if name == "results.json":
            with pytest.raises(OutputError, match="damaged"):
                read_results(run)
    finally:
        (run / name).write_bytes(whole)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_of_the_manifest_changes_nothing_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, trained: Path, place: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    content = bytearray((trained / "manifest.json").read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / "manifest.json").write_bytes(content)
    try:
        found = read_manifest(folder)
    except OutputError:
        return
    assert found == read_manifest(trained)  # a space that is another one


@pytest.mark.parametrize("files", [None, 3, ["config.toml"], {"a\0b": "0"}, {"config.toml": 7}])
def test_a_manifest_of_another_shape_is_one_line(run: Path, tmp_path: Path, files: Any) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    write_manifest(folder, {**read_manifest(folder), "files": files})
    for use in (read_run, run_config, read_results, lambda folder: [*verify(folder)]):
        use: Callable[[Path], Any]
        try:
            use(folder)
        except OutputError as error:
            said = str(error)
            assert str(folder) in said
            assert "\n" not in said


def test_an_unfinished_run_has_settings_and_no_figures(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    (folder / "results.json").unlink()
    sealed(folder, status="training")
    assert run_config(folder) == run_config(run)
    for use in (read_run, read_results):
        with pytest.raises(OutputError, match="killed"):
            use(folder)


# ------------------------------------------------------------------------------- records


values = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda key: key != "sha256"),
    st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"), max_size=5),
    max_size=3,
)


@given(records=st.lists(values, min_size=1, max_size=4), place=st.floats(0, 1, exclude_max=True))
def test_a_bit_of_a_record_costs_it_and_changes_none(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], place: float
) -> None:
    path = tmp_path_factory.mktemp("records") / "metrics.jsonl"
    for record in records:
        append_line(path, record)
    assert read_lines(path) == records
    content = bytearray(path.read_bytes())
    assert all({*json.loads(line)} >= {"sha256"} for line in content.splitlines())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    assert all(found in records for found in read_lines(path))
    assert len(lines(path)) >= len(records) - 1

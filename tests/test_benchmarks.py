"""The benchmarks run; how fast anything is, no test asks."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("fewshot_asl") is None, reason="they measure fewshot-asl's network"
)


def run(out: Path, *rows: str) -> tuple[dict[str, Any], str]:
    chosen = [argument for row in rows for argument in ("--only", row)]
    environment = {k: v for k, v in os.environ.items() if k != "FEWSHOT_ASL_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--tiny", "--out", str(out), *chosen],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = out / "results.json"
    return json.loads(results.read_text()) if results.exists() else {}, done.stdout


def test_rows_without_a_peer_to_install(tmp_path: Path) -> None:
    rows = ("step-stock", "latency-k", "memory", "index", "scaling")
    records, printed = run(tmp_path, *rows)
    measured = [row for row in rows if f"{row}: skipped" not in printed]
    assert list(records) == measured
    if sys.platform == "linux":
        assert measured == list(rows)
    for record in records.values():
        assert record["size"] == "tiny"
        assert record["machine"]["versions"]["fewshot"]
    assert records["step-stock"]["result"]["ratio"]["median"] > 0
    assert "parameters 2994384" in records["step-stock"]["result"]["checked"]
    assert records["index"]["result"]["figures"]["second"]["images"] == 60
    curves = {"images", "classes", "k_shot", "episodes"}
    curves |= {"cores"} if hasattr(os, "sched_getaffinity") else set()
    drawn = {path.stem.removeprefix("scaling-") for path in tmp_path.glob("scaling-*.png")}
    assert drawn == curves


@pytest.mark.parametrize(
    ("row", "peer"),
    [("step", "torch"), ("embed", "torch"), ("latency", "torch"), ("episodes", "easyfsl")],
)
def test_a_row_against_its_peer_or_the_reason_why_not(row: str, peer: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(peer) is not None:
        records, _ = run(tmp_path, row)
        assert records[row]["result"]["ratio"]["median"] > 0
        return
    records, printed = run(tmp_path, row)
    assert records == {}
    assert f"{row}: skipped, " in printed
    assert "cannot be imported" in printed


def test_time_to_an_accuracy_is_skipped_without_photos(tmp_path: Path) -> None:
    records, printed = run(tmp_path, "accuracy-time")
    assert records == {}
    assert "needs the photos" in printed

"""`fewshot check`, as a plugin author meets it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewshot.cli import main

LOPSIDED = """
import mlx.core as mx
from fewshot import Component, DataError, Metric, Preset, euclidean, hookimpl

def lopsided(options):
    return Metric(
        fn=lambda x, y: (mx.maximum(y - x, 0) + 2 * mx.maximum(x - y, 0)).sum(-1),
        laws=frozenset({"identity", "symmetry", "triangle"}),
        upper=lambda d: float("inf"),
    )

def not_here(options):
    raise DataError("the photos are not here: set path")

@hookimpl
def fewshot_metrics():
    return [Component("lop-sided", lopsided, summary="twice as far back")]

@hookimpl
def fewshot_datasets():
    return [Component("birds", not_here, summary="photos of birds")]

@hookimpl
def fewshot_presets():
    return [Preset("birds-1", {"metric": "lop-sided"}, "with it")]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed plugin of three parts, one of them wrong; the folder is the working one."""
    info = tmp_path / "fewshot_tried-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fewshot-tried\nVersion: 0.0.1\n")
    (info / "entry_points.txt").write_text("[fewshot]\ntried = fewshot_tried\n")
    (tmp_path / "fewshot_tried.py").write_text(LOPSIDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "fewshot_tried", raising=False)
    return tmp_path


def check(
    *words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["fewshot", "check", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code, *capsys.readouterr()


def table(out: str) -> dict[str, tuple[int, str]]:
    """The table's rows: component -> number of laws, result."""
    found = [line.split(maxsplit=2) for line in out.splitlines()]
    return {
        row[0]: (int(row[1]), row[2].strip())
        for row in found
        if len(row) == 3 and "/" in row[0] and row[1].isdigit()
    }


def test_a_sound_component_is_good(site, monkeypatch, capsys):
    code, out, err = check("euclidean", "loss/triplet", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert {name: result for name, (_, result) in table(out).items()} == {
        "metric/euclidean": "good",
        "loss/triplet": "good",
    }
    assert "Error" not in err
    assert sorted(path.name for path in site.iterdir() if path.name != "__pycache__") == [
        "fewshot_tried-0.0.1.dist-info", "fewshot_tried.py"
    ]  # fmt: skip


def test_a_plugin_is_checked_whole_and_a_broken_law_is_told_with_its_example(
    site, monkeypatch, capsys
):
    code, out, err = check("tried", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 7
    assert {name: result for name, (_, result) in table(out).items()} == {
        "metric/tried/lop-sided": "breaks symmetry",
        "dataset/tried/birds": "not checked: the photos are not here: set path",
        "preset/tried/birds-1": "good",
    }
    assert "metric/tried/lop-sided breaks 'symmetry': d(x, y) = d(y, x), where declared." in out
    assert (
        "    not symmetric: d(x, y) = 1.0 but d(y, x) = 2.0 for x = [0.0], y = [1.0]"
        in out.splitlines()
    )
    assert err.splitlines()[-1].startswith("Error: a law is broken")


def test_two_checks_say_the_same(site, monkeypatch, capsys):
    first, again = (check("lop-sided", monkeypatch=monkeypatch, capsys=capsys) for _ in range(2))
    assert first[:2] == again[:2]


def test_options_are_set_and_what_they_refuse_is_an_error(site, monkeypatch, capsys):
    np.savez(
        "birds.npz",
        images=np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8),
        labels=np.arange(8) % 2,
    )
    code, out, _ = check(
        "arrays", "--set", "path=birds.npz", monkeypatch=monkeypatch, capsys=capsys
    )
    assert (code, table(out)["dataset/arrays"][1]) == (0, "good")
    code, _, err = check("arrays", "--set", "path=bird.npz", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 4
    assert err.splitlines()[-1].startswith("Error: bird.npz: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lopsided",), "did you mean 'lop-sided'?"),
        (("tryed",), "did you mean 'tried'?"),
        (("metric/cosin",), "did you mean 'cosine'?"),
        (("tried", "--set", "path=x"), "--set wants one component"),
        (("arrays", "--set", "pth=x"), "did you mean 'path'?"),
        ((), "Missing argument"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(site, monkeypatch, capsys, words, message):
    code, out, err = check(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: ")
    assert message in err.splitlines()[-1]


def test_without_hypothesis_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from fewshot.cli import main\n"
        "sys.argv = ['fewshot', 'check', 'euclidean']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "Error: fewshot.testing needs hypothesis: pip install 'fewshot[test]'"
    )

"""`fewshot check`, as a plugin author meets it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import here
from plugin_sites import distribution

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
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an installed plugin of three parts, one of them wrong."""
    distribution(tmp_path, "fewshot-tried", {"tried": "fewshot_tried"}, fewshot_tried=LOPSIDED)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("fewshot_tried", None)


def results(out: str) -> dict[str, str]:
    """The table's last column by component."""
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    return {row[0]: row[2].strip() for row in rows if len(row) == 3 and row[1].isdigit()}


def test_a_sound_component_is_good_and_nothing_is_left_behind(site: Path):
    before = sorted(site.iterdir())
    done = here("check", "euclidean", "loss/triplet", cwd=site)
    assert done.returncode == 0, done.stderr
    assert results(done.stdout) == {"metric/euclidean": "good", "loss/triplet": "good"}
    assert sorted(p for p in site.iterdir() if p.name != "__pycache__") == before


def test_a_plugin_is_checked_whole_and_a_broken_law_is_told_with_its_example(site: Path):
    done, again = (here("check", "tried", cwd=site) for _ in range(2))
    assert done.returncode == 7
    assert results(done.stdout) == {
        "metric/tried/lop-sided": "breaks symmetry",
        "dataset/tried/birds": "not checked: the photos are not here: set path",
        "preset/tried/birds-1": "good",
    }
    story = (
        "metric/tried/lop-sided breaks 'symmetry': d(x, y) = d(y, x), where declared.\n"
        "    not symmetric: d(x, y) = 2.0 but d(y, x) = 1.0 for x = [1.0], y = [0.0]\n"
    )
    assert story in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Error: a law is broken")
    assert again.stdout == done.stdout


def test_options_are_set_and_what_they_refuse_is_an_error(site: Path):
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
    np.savez(site / "birds.npz", images=images, labels=np.arange(8) % 2)
    for given in ("path=birds.npz", "dataset.path=birds.npz"):
        done = here("check", "arrays", "--set", given, cwd=site)
        assert (done.returncode, results(done.stdout)) == (0, {"dataset/arrays": "good"})
    done = here("check", "arrays", "--set", "path=bird.npz", cwd=site)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("Error: bird.npz: ")


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
def test_a_mistake_is_one_line_with_the_way_out(site: Path, words: tuple[str, ...], message: str):
    done = here("check", *words, cwd=site)
    err = done.stderr
    assert (done.returncode, done.stdout) == (2, "")
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

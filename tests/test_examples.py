"""Every example runs as a user would run it; the plugins among them are sound and install."""

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image
from plugin_sites import QUICK, fewshot, names

from fewshot.core.errors import DataError, OutputError
from fewshot.testing import check_backbone, check_dataset, check_metric

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_runs_and_beats_chance(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    accuracies = [float(found) for found in re.findall(r": (\d+\.\d)%", done.stdout)]
    assert accuracies
    assert max(accuracies) > 40  # chance is 33 at the most, of three classes


def test_training_on_own_arrays_takes_under_forty_lines_of_code() -> None:
    lines = (EXAMPLES / "own_arrays.py").read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith(("#", '"""'))]) < 40


# ------------------------------------------------------------------------------ plugins


def module(path: str) -> ModuleType:
    """A plugin's module, its package imported as if it were installed."""
    file = EXAMPLES / path
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(file.parent.parent if file.name == "plugin.py" else file.parent))
        name = f"{file.parent.name}.plugin" if file.name == "plugin.py" else file.stem
        return importlib.import_module(name)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A CSV file of eight kinds of bird, twelve photos of each, two photographers."""
    rng = np.random.default_rng(0)
    rows = []
    for label in range(8):
        for i in range(12):
            tone = np.clip(25 * label + rng.normal(0, 30, (20, 24, 3)), 0, 255)
            Image.fromarray(tone.astype(np.uint8)).save(tmp_path / f"{label}-{i}.png")
            role = "support" if i < 2 else "both"
            rows.append([f"{label}-{i}.png", f"bird {label}", "me" if i % 2 else "you", role])
    with (tmp_path / "birds.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "group", "role"], *rows])
    return tmp_path / "birds.csv"


def test_the_minimal_plugin_is_a_metric_in_about_thirty_lines() -> None:
    check_metric(module("minimal_plugin/fewshot_lorentzian.py").lorentzian)
    files = [p for p in (EXAMPLES / "minimal_plugin").iterdir() if p.suffix in (".py", ".toml")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 32


def test_the_wrapped_network_is_a_backbone_with_the_weights_of_the_file(tmp_path: Path) -> None:
    plugin = module("backbone_plugin/fewshot_wrapped/plugin.py")
    check_backbone(plugin.wrapped, plugin.Options())
    network = plugin.Network()
    network.save_weights(str(tmp_path / "mine.safetensors"))
    options = plugin.Options(str(tmp_path / "mine.safetensors"))
    backbone = plugin.wrapped(options, (16, 16, 3))
    plugin.initialise(backbone, options)
    images = mx.random.uniform(shape=(4, 16, 16, 3))
    # The network's own last layer on the embedding gives the network's own answers.
    assert mx.allclose(network.classify(backbone(images)), network(images), atol=1e-6)
    (tmp_path / "other.safetensors").write_bytes(b"not weights")
    for name in ("absent", "other"):
        with pytest.raises(OutputError, match=f"{name}.safetensors"):
            plugin.initialise(backbone, plugin.Options(str(tmp_path / f"{name}.safetensors")))


def test_the_table_is_a_dataset_of_the_images_it_lists(birds: Path) -> None:
    plugin = module("dataset_plugin/fewshot_table.py")
    chosen = plugin.Options(path=str(birds), size=16)
    check_dataset(plugin.table, chosen)
    data = plugin.table(chosen)
    assert data.classes == tuple(f"bird {i}" for i in range(8))
    assert np.bincount(data.labels).tolist() == [12] * 8
    assert np.bincount(data.groups).tolist() == [48, 48]
    assert (data.role == "support").sum() == 2 * 8
    birds.write_text("file,kind\na.png,wren\n")
    for path in (birds, birds.with_name("absent.csv"), Path()):
        with pytest.raises(DataError, match=r"table needs|absent\.csv|file,class"):
            plugin.table(plugin.Options(path=str(path) if path.name else ""))


def test_the_plugins_install_and_run_together(birds: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    folders = [
        EXAMPLES / f"{name}_plugin" for name in ("minimal", "backbone", "dataset", "command")
    ]
    command = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    command += ["--no-index", "--no-build-isolation", "--target", site]
    subprocess.run([sys.executable, *command, *folders], check=True, timeout=200)
    listed = fewshot("list", site=site)
    assert (listed.returncode, listed.stderr) == (0, "")
    for kind, name in (("metric", "lorentzian"), ("backbone", "wrapped"), ("dataset", "table")):
        assert name in names(listed.stdout, kind)
    done = fewshot(
        "run", "--dataset", "table", "--data", str(birds), "--set", "dataset.size=16",
        "--backbone", "wrapped", "--metric", "lorentzian", *QUICK, "--groups", "mixed",
        "--set", "sampler.groups=mixed",
        "--out", "run", site=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((site / "run" / "manifest.json").read_text())
    assert manifest["components"]["backbone wrapped/wrapped"] == "wrapped 0.1.0"
    told = fewshot("confused", "run", "--most", "1", site=site)
    assert re.fullmatch(r"bird \d taken for bird \d: [1-9]\d*\n", told.stdout), told.stderr
    assert fewshot("confused", "absent", site=site).returncode == 5

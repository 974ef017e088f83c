"""What users install is the wheel, so the wheel is what is tested."""

import configparser
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {
    "fewshot": ROOT,
    "fewshot-asl": ROOT / "plugins" / "fewshot-asl",
    "fewshot-benchmarks": ROOT / "plugins" / "fewshot-benchmarks",
    "fewshot-omniglot": ROOT / "plugins" / "fewshot-omniglot",
    "fewshot-pretrained": ROOT / "plugins" / "fewshot-pretrained",
    "fewshot-broken": ROOT / "tests" / "broken_plugin",
}
PACKAGES = {
    "fewshot": ROOT / "fewshot",
    "fewshot-asl": PLACES["fewshot-asl"] / "src" / "fewshot_asl",
    "fewshot-benchmarks": PLACES["fewshot-benchmarks"] / "src" / "fewshot_benchmarks",
    "fewshot-omniglot": PLACES["fewshot-omniglot"] / "src" / "fewshot_omniglot",
    "fewshot-pretrained": PLACES["fewshot-pretrained"] / "src" / "fewshot_pretrained",
}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling, which builds the wheels, is not installed, and tests use no network",
)


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    places = map(str, PLACES.values())
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), *places)
    found = {path.name.split("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    assert set(found) == set(PLACES)
    return found


@pytest.fixture(scope="module")
def site(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distributions installed from their wheels, and nothing else in the folder."""
    folder = tmp_path_factory.mktemp("site")
    chosen = [str(wheels[name]) for name in PACKAGES]
    pip("install", "-q", "--no-deps", "--no-index", "--target", str(folder), *chosen)
    return folder


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def meta(wheel: Path, name: str) -> str:
    (content,) = (c for n, c in contents(wheel).items() if n.endswith(f".dist-info/{name}"))
    return content.decode()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_wheel_holds_every_module_of_the_package_and_nothing_else(name: str, wheels):
    package = PACKAGES[name]
    files = {n: c for n, c in contents(wheels[name]).items() if ".dist-info/" not in n}
    expected = {
        f"{package.name}/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(files) == expected
    assert not [n for n in files if "test" in Path(n).name or "conftest" in n]
    for path, content in files.items():
        assert content == (package.parent / path).read_bytes()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_wheel_says_that_it_is_typed(name: str, wheels):
    assert f"{PACKAGES[name].name}/py.typed" in contents(wheels[name])


@pytest.mark.parametrize("name", PACKAGES)
def test_the_wheel_holds_the_licence(name: str, wheels):
    assert meta(wheels[name], "licenses/LICENSE") == (ROOT / "LICENSE").read_text()
    assert "License-Expression: MIT" in meta(wheels[name], "METADATA")


@pytest.mark.parametrize("name", PLACES)
def test_the_wheel_holds_the_entry_points_that_the_project_declares(name: str, wheels):
    project = tomllib.loads((PLACES[name] / "pyproject.toml").read_text())["project"]
    declared = dict(project.get("entry-points", {}))
    if "scripts" in project:
        declared["console_scripts"] = project["scripts"]
    parser = configparser.ConfigParser()
    parser.read_string(meta(wheels[name], "entry_points.txt"))
    assert declared
    assert {s: dict(parser[s]) for s in parser.sections()} == declared


def run(site: Path, *arguments: str) -> str:
    # Isolated from this checkout: another folder, and the wheel's packages first.
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=site.parent, env=env, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_installed_wheel_runs(site: Path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(site, "-m", "fewshot", "--version") == f"fewshot {version}\n"
    where = run(site, "-c", "import fewshot, fewshot_asl; print(fewshot.__file__)")
    assert where.strip() == str(site / "fewshot" / "__init__.py")


def test_the_installed_command_starts(site: Path):
    scripts = [path for path in (site / "bin").iterdir() if path.stem == "fewshot"]
    assert len(scripts) == 1
    assert "Usage:" in run(site, str(scripts[0]), "--help")


def test_the_installed_bundle_is_found(site: Path):
    lines = run(site, "-m", "fewshot", "list", "backbone").splitlines()
    assert [line.split()[1:3] for line in lines if "simplecnn" in line] == [["simplecnn", "asl"]]
    assert " asl " in run(site, "-m", "fewshot", "plugins")

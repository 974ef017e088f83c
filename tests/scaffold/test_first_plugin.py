"""The pages for plugin authors, done as they say: from `new-plugin` to a wheel, and options."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from plugin_sites import small_images

from fewshot.core.errors import ConfigError
from fewshot.experiments.schema import options

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of every block of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def offline(line: str, site: Path) -> str:
    """A command as it is where nothing can be downloaded; `pip install` goes into a folder."""
    line = line.replace("python -m build", "python -m build --no-isolation")
    elsewhere = f"pip install -q --no-deps --no-build-isolation --no-index --target {site}"
    return re.sub(r"pip install -e '([\w-]+)\[test\]'", rf"{elsewhere} ./\1", line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial, done from its first line to its last."""
    place = tmp_path_factory.mktemp("place")
    site = place / ".site"
    code = place / "fewshot-topk" / "src"  # first: what is edited after `pip install -e` counts
    env = {
        **os.environ,
        "PYTHONPATH": f"{code}{os.pathsep}{site}",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    quick = " ".join([*small_images(place)[1:], "--backbone", "conv4"])
    for language, code_block in blocks("tutorial/first-plugin.md"):
        name = re.match(r"# (\S+/\S+\.py)\n", code_block)
        if name is not None:
            (place / name[1]).write_text(code_block, encoding="utf-8")
        for line in code_block.splitlines() if language == "sh" else ():
            if line.startswith("fewshot run"):
                line = f"{line} {quick}"
            if not line.startswith(("pip install build", "twine")):
                done = subprocess.run(
                    offline(line, site), shell=True, cwd=place, env=env, capture_output=True,
                    text=True, check=False, timeout=200,
                )  # fmt: skip
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return place


def test_the_tutorial_ends_in_runs_with_its_metric(place: Path):
    for run, k in (("0001", 3), ("0002", 10)):
        config = tomllib.loads((place / "runs" / run / "config.toml").read_text())
        assert config["metric"] == {"name": "topk/topk", "k": k}
        assert (place / "runs" / run / "report.html").is_file()


def test_the_tutorial_ends_in_a_wheel_with_the_module_and_its_entry_point(place: Path):
    (wheel,) = (place / "fewshot-topk" / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "the k largest" in archive.read("fewshot_topk/__init__.py").decode()
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "topk = fewshot_topk" in archive.read(points).decode()
    assert list((place / "fewshot-topk" / "dist").glob("*.tar.gz"))


def test_the_page_on_options_says_what_becomes_of_them():
    python, toml, *_ = (code for _, code in blocks("how-to/plugin-options.md"))
    names: dict[str, object] = {}
    exec(python, names)
    (component,) = names["fewshot_metrics"]()
    given = tomllib.loads(toml)["metric"]
    assert given.pop("name") == component.name
    assert options(component.options, given, "metric").share == 0.2
    text = " ".join((DOCS / "how-to/plugin-options.md").read_text().split())
    for wrong in ({"rest": "euclid"}, {"share": 0, "rest": "none"}):
        with pytest.raises(ConfigError) as caught:
            options(component.options, wrong, "metric")
        assert str(caught.value).removeprefix("metric: ") in text

"""What the documents say is so: links lead somewhere, names exist, examples of code run."""

import importlib.util
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fewshot import DataError, split_classes
from fewshot.plugins import build_registry
from fewshot.registry import KINDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("plugins/*/*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_component_named_by_a_flag_exists(page: Path) -> None:
    registry, _ = build_registry()
    own = {"chebyshev", "birds"}  # of the plugins that the how-tos make
    if importlib.util.find_spec("fewshot_omniglot") is None:
        own |= {"omniglot", "omniglot-prototypical"}
    for kind, name in re.findall(r"--(\w+) ([a-z0-9-]+)\b", page.read_text()):
        if kind in KINDS and name not in own:
            registry.get(kind, name)


def test_the_plugin_of_the_how_to_offers_its_metric() -> None:
    page = (ROOT / "docs/how-to/plugin.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    namespace: dict[str, object] = {}
    exec(code, namespace)
    hook = namespace["fewshot_metrics"]
    assert callable(hook)
    (component,) = hook()
    metric = component.factory(component.options())
    import mlx.core as mx

    x, y = mx.array([0.0, 3.0, -1.0]), mx.array([1.0, -2.0, -1.0])
    assert metric.fn(x, y).item() == 5.0


def test_the_data_set_of_the_how_to_is_found_where_it_would_be_fetched_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how-to/dataset-plugin.md").read_text(), re.DOTALL
    )
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    (component,) = namespace["fewshot_datasets"]()
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    with pytest.raises(DataError, match="fewshot data fetch birds"):
        component.factory(component.options())
    names = ("crow", "finch", "jay", "owl", "robin", "wren")
    (tmp_path / "birds").mkdir()
    with zipfile.ZipFile(tmp_path / "birds" / "birds.zip", "w") as archive:
        for name in names:
            for nest in (1, 2):
                archive.writestr(f"{name}/{nest}_1.png", b"")  # not decoded here
    dataset = component.factory(component.options())
    assert dataset.classes == names
    assert split_classes(dataset).test == ("owl", "wren")
    assert len(set(dataset.groups)) == 12
    assert callable(component.fetch)


def test_the_readme_has_its_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert "fewshot run --backbone simplecnn --metric euclidean" in commands[0]
    assert commands[1].endswith("-m pytest")

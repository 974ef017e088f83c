"""Imports go one way, and heavy modules are loaded only where they are used."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fewshot

PACKAGE = Path(fewshot.__file__).parent
SOURCES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if "templates" not in path.parts and path.parent != PACKAGE
)

# What a room may import, beside itself.
MAY = {
    "core": set(),
    "compute": {"core"},
    "data": {"core"},
    "parts": {"core", "compute", "data"},
    "reports": {"core", "data"},
    "engine": {"core", "compute", "data", "parts"},
    "catalogue": {"core", "compute", "data", "parts"},
    "experiments": {"core", "compute", "data", "parts", "reports", "engine", "catalogue"},
    "scaffold": {"core", "catalogue"},
}
MAY["deploy"] = MAY["testing"] = MAY["experiments"] | {"experiments"}
MAY["cli"] = {*MAY}

# At run time these never need MLX: data are prepared on threads that must not touch it.
WITHOUT_MLX = ("core", "data", "parts/samplers", "parts/transforms", "reports")


def name_of(source: Path) -> str:
    """A module's name below the package, or its package's: core.errors, core."""
    return ".".join(source.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0]


MODULES = {name_of(source): source for source in SOURCES}


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(source: Path, deferred: bool = True, types: bool = False) -> set[str]:
    """What a module imports: `.room.module` for the package's own, else the top-level package.

    `deferred` counts imports inside functions, `types` those for type checkers only.
    """
    found: set[str] = set()

    def own(node: ast.ImportFrom) -> Iterator[str]:
        parts = list(source.relative_to(PACKAGE).parts[:-1])
        base = [*parts[: len(parts) - node.level + 1], *(node.module or "").split(".")]
        path = ".".join(part for part in base if part)
        for alias in node.names:
            deeper = f"{path}.{alias.name}".lstrip(".")
            yield f".{deeper}" if deeper in MODULES else f".{path}"

    def visit(node: ast.AST) -> None:
        if is_for_type_checkers(node) and not types:
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not deferred:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(own(node) if node.level else [str(node.module).split(".")[0]])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source.read_text(encoding="utf-8")))
    return found


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh process has loaded after the code."""
    end = "\nimport json, sys; sys.stderr.write('\\nLOADED' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + end], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.rpartition("LOADED")[2]))


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_a_room_imports_only_the_rooms_below(source: Path):
    own = {name.split(".")[1] for name in imports(source, types=True) if name.startswith(".")}
    assert own <= MAY[room(source)] | {room(source)}


def test_no_circle_inside_a_room():
    below = {
        name: {n[1:] for n in imports(source, types=True) if n[1:] in MODULES and n[0] == "."}
        for name, source in MODULES.items()
    }
    TopologicalSorter(below).prepare()  # raises CycleError, naming the modules


@pytest.mark.parametrize("name", MAY)
def test_a_room_says_in_one_sentence_what_lives_there(name: str):
    text = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert text
    if name not in ("cli", "testing"):
        assert len(text) < 120


def test_every_room_is_ruled():
    assert {room(source) for source in SOURCES} == set(MAY)
    assert {p.stem for p in PACKAGE.glob("*.py")} == {"__init__", "__main__", "interfaces"}


def test_the_core_knows_no_plugin():
    for source in SOURCES:
        assert not {n for n in imports(source, types=True) if n.startswith("fewshot_")}, source


def users(package: str, **how: bool) -> set[str]:
    return {name for name, source in MODULES.items() if package in imports(source, **how)}


def test_only_some_modules_import():
    assert {name.split(".")[0] for name in users("click", types=True)} == {"cli"}
    assert {name.split(".")[0] for name in users("rich", types=True)} == {"cli"}
    assert users("pluggy", types=True) == {"catalogue.hooks", "catalogue.loading"}
    assert users("matplotlib") == {"reports.pictures"}


def test_a_command_that_draws_nothing_loads_nothing_that_draws():
    waiting, found = ["cli.runs", "experiments.run", "deploy.classifier"], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            below = imports(MODULES[name], deferred=False) if name in MODULES else set()
            waiting += [n.removeprefix(".") for n in below]
    assert "engine.calibration" in found
    assert not {"reports.pictures", "matplotlib", "scipy.optimize"} & found


def test_only_the_laws_need_hypothesis_and_only_a_command_needs_the_laws():
    assert {name.split(".")[0] for name in users("hypothesis", types=True)} == {"testing"}
    outside = {name: s for name, s in MODULES.items() if room(s) != "testing"}
    assert {n for n, s in outside.items() if any(".testing" in i for i in imports(s))} == {
        "cli.authors"
    }
    assert not any(".testing" in i for i in imports(MODULES["cli.authors"], deferred=False))


@pytest.mark.parametrize(
    ("name", "only"), [("PluginManager", {"catalogue.loading"}), ("pyplot", set())]
)
def test_only_some_modules_use(name: str, only: set[str]):
    found = {
        module
        for module, source in MODULES.items()
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == name)
        or (isinstance(node, ast.alias) and name in node.name.split("."))
    }
    assert found == only


def test_some_rooms_never_need_mlx():
    light = [name for name in MODULES if name.replace(".", "/").startswith(WITHOUT_MLX)]
    loaded = loaded_by("\n".join(f"import fewshot.{name}" for name in light))
    assert not {name for name in loaded if name.partition(".")[0] == "mlx"}
    for name in light:
        deferred = not name.startswith("core")  # there only what others pass on
        assert "mlx" not in imports(MODULES[name], deferred), name


def test_runtime_never_imports_mlx_which_it_must_come_before():
    source = MODULES["compute.runtime"]
    assert "mlx" not in imports(source)
    assert {name.split(".")[1] for name in imports(source) if name[0] == "."} <= {"core"}


def test_the_registry_knows_no_pluggy_and_no_files():
    assert not imports(MODULES["catalogue.registry"]) & {"pluggy", "pathlib", "os", "importlib"}


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_no_module_is_longer_than_500_lines(source: Path):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 500


# ------------------------------------------------------------------------------ the lazy names


def test_importing_the_package_loads_nothing_heavy_and_no_plugin():
    new = loaded_by("import fewshot") - loaded_by("pass")
    assert "fewshot" in new
    tops = {name.partition(".")[0] for name in new}
    assert not tops - set(sys.stdlib_module_names) - {"fewshot", "lazy_loader"}
    assert {name for name in new if name.startswith("fewshot.")} == set()


def test_a_name_loads_its_own_module_only():
    loaded = loaded_by("import fewshot; fewshot.ConfigError")
    assert "fewshot.core.errors" in loaded
    assert (
        not {"fewshot.engine.training", "fewshot.core.components", "numpy", "mlx", "pluggy"}
        & loaded
    )


def public_names() -> dict[str, str]:
    """The module of every public name, as type checkers read it."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    statements = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(a.asname == a.name for node in statements for a in node.names)
    return {alias.name: str(node.module) for node in statements for alias in node.names}


@pytest.mark.parametrize("name", fewshot.__all__)
def test_every_public_name_is_that_of_its_module(name: str):
    home = importlib.import_module(f"fewshot.{public_names()[name]}")
    assert getattr(fewshot, name) is getattr(home, name)
    assert name in dir(fewshot)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fewshot.no_such_name

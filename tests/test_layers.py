"""Imports go one way, and heavy modules are loaded only where they are used."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fewshot

PACKAGE = Path(fewshot.__file__).parent
SOURCES = sorted(PACKAGE.glob("*.py"))
COMMANDS = sorted((PACKAGE / "cli").glob("*.py"))
LAWS = sorted((PACKAGE / "testing").glob("*.py"))

# Every module may import those before it and none after it.
ORDER = [
    *("errors", "draws", "records", "seeding"),
    *("runtime", "streams", "sources", "winograd", "layers"),
    *("registry", "hookspecs", "config", "scaffold", "space"),
    "interfaces",
    *("metrics", "losses", "heads", "backbones", "samplers", "transforms"),
    *("images", "folders", "cache", "datasets", "survey", "loader"),
    *("embedding", "folding", "adapters"),
    *("verification", "training", "evaluation", "calibration", "checkpoint", "archive", "doctor"),
    *("report", "pictures", "compare", "adaptation"),
    *("builtin", "plugins"),
    *("assembly", "recipe", "prediction", "gallery", "exporting", "serve"),
    *("show", "examination", "run", "search"),
    *("tabulation", "study_page", "study", "__main__"),
]

# At run time none of these may need MLX: data are prepared on threads that must not touch it.
WITHOUT_MLX = ("errors", "draws", "records", "seeding", "sources", "registry", "hookspecs")
WITHOUT_MLX += ("config", "interfaces", "samplers", "transforms")
WITHOUT_MLX += ("images", "folders", "cache", "datasets", "survey", "loader")


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(source: Path, deferred: bool = True, types: bool = False) -> set[str]:
    """What a module imports: `.name` for the package's own modules, else the top-level package.

    `deferred` counts imports inside functions, `types` those for type checkers only.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if is_for_type_checkers(node) and not types:
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not deferred:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is None:
            found.update(f".{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            deeper = source in COMMANDS + LAWS
            assert node.level <= 1 + deeper, f"{source.name}: beyond the package"
            found.add("." * node.level + str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source.read_text(encoding="utf-8")))
    own = {name.removeprefix("fewshot").lstrip(".").split(".")[0] for name in found if is_own(name)}
    return {f".{name}" for name in own} | {n.split(".")[0] for n in found if not is_own(n)}


def is_own(name: str) -> bool:
    return name.startswith((".", "fewshot."))


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh process has loaded after the code."""
    end = "\nimport json, sys; sys.stderr.write('\\nLOADED' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + end], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.rpartition("LOADED")[2]))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_module_has_its_place_and_imports_only_what_comes_before(source: Path):
    if source.stem == "__init__":
        return  # it imports nothing at run time: see the test of its table
    before = {f".{name}" for name in ORDER[: ORDER.index(source.stem)]}
    before |= {".cli"} if source.stem == "__main__" else set()
    own = {name for name in imports(source, types=True) if name.startswith(".")}
    assert own <= before, f"{source.name} imports {own - before}, which comes later"


def test_the_order_names_every_module_once():
    assert sorted([*ORDER, "__init__"]) == [source.stem for source in SOURCES]


def test_the_core_knows_no_plugin():
    for source in SOURCES + COMMANDS + LAWS:
        assert not {n for n in imports(source, types=True) if n.startswith("fewshot_")}, source.name


@pytest.mark.parametrize(
    ("package", "only"),
    [("click", set()), ("rich", set()), ("pluggy", {"hookspecs", "plugins"})],
)
def test_only_some_modules_and_the_command_line_import(package: str, only: set[str]):
    assert {s.stem for s in SOURCES if package in imports(s, types=True)} == only


def test_only_the_laws_need_hypothesis_and_only_a_command_needs_the_laws():
    everything = SOURCES + COMMANDS + LAWS
    assert {s for s in everything if "hypothesis" in imports(s, types=True)} <= set(LAWS)
    assert {s.stem for s in SOURCES + COMMANDS if ".testing" in imports(s)} == {"authors"}
    assert not {s for s in COMMANDS if ".testing" in imports(s, deferred=False)}
    assert not {s for s in LAWS if imports(s, types=True) & {".cli", "click", "rich", "pytest"}}


@pytest.mark.parametrize(("name", "only"), [("PluginManager", {"plugins"}), ("pyplot", set())])
def test_only_some_modules_use(name: str, only: set[str]):
    users = {
        source.stem
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == name)
        or (isinstance(node, ast.alias) and name in node.name.split("."))
    }
    assert users == only


def test_some_modules_never_need_mlx():
    loaded = loaded_by("\n".join(f"import fewshot.{name}" for name in WITHOUT_MLX))
    assert {f"fewshot.{name}" for name in WITHOUT_MLX} <= loaded
    assert not {name for name in loaded if name.partition(".")[0] == "mlx"}
    for name in WITHOUT_MLX:
        assert "mlx" not in imports(PACKAGE / f"{name}.py"), name


def test_runtime_never_imports_mlx_which_it_must_come_before():
    assert "mlx" not in imports(PACKAGE / "runtime.py")
    assert {name for name in imports(PACKAGE / "runtime.py") if name[0] == "."} <= {".errors"}


def test_the_registry_knows_no_pluggy_and_no_files():
    assert not imports(PACKAGE / "registry.py") & {"pluggy", "pathlib", "os", "importlib"}


def test_only_one_module_draws():
    for source in SOURCES:
        assert ("matplotlib" in imports(source)) == (source.stem == "pictures")


@pytest.mark.parametrize("source", SOURCES + COMMANDS + LAWS, ids=lambda path: path.stem)
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

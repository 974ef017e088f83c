"""A new plugin as a small distribution of its own, from the templates beside this module.

`templates/metric.py` becomes the module of a metric and `metric_check.py` its tests; the other
files are every kind's. A word such as PLUGIN_NAME stands for what `_words` has for "NAME".
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from ..catalogue.kinds import KINDS as CATALOGUE
from ..core.errors import ConfigError, OutputError, choose_from

_TEMPLATES = Path(__file__).parent / "templates"

KINDS = tuple(sorted(path.stem.removesuffix("_check") for path in _TEMPLATES.glob("*_check.py")))


def new_plugin(name: str, kind: str, parent: Path, taken: Mapping[str, str]) -> Path:
    """Write the folder `parent/fewshot-NAME`, whole or not at all, and return it.

    `taken`: names that the plugin or its component cannot have, and who has them. Raises
    ConfigError for a name that cannot be used or a kind that has no template, OutputError where
    the folder exists or cannot be written.
    """
    _check_name(name, taken)
    if kind not in KINDS:
        raise ConfigError(f"no template for a {kind}: {choose_from(kind, KINDS)}")
    folder = parent / f"fewshot-{name}"
    if folder.exists():
        raise OutputError(f"{folder} exists: nothing was written; choose another name, or move it")
    module = f"fewshot_{name.replace('-', '_')}"
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        f"src/{module}/__init__.py": f"{kind}.py",
        f"tests/test_{name.replace('-', '_')}.py": f"{kind}_check.py",
    }
    words = _words(name, kind, module)
    try:
        with TemporaryDirectory(dir=parent, prefix=f".fewshot-{name}-") as place:
            whole = Path(place) / folder.name
            for target, template in files.items():
                path = whole / target
                path.parent.mkdir(parents=True, exist_ok=True)
                text = (_TEMPLATES / template).read_text(encoding="utf-8")
                filled = re.sub("PLUGIN_([A-Z]+)", lambda word: words[word[1]], text)
                path.write_text(filled, encoding="utf-8")
            whole.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    return folder


def use(name: str, kind: str) -> str:
    """How a run is asked for a component: `--metric NAME`."""
    return f"{CATALOGUE[kind].flag} {name}"


def first_run(name: str, kind: str) -> str:
    """Options of a first run: the template's metric is a third of euclidean, and so the margin."""
    return use(name, kind) + (" --set loss.margin=0.3" if kind == "metric" else "")


def _check_name(name: str, taken: Mapping[str, str]) -> None:
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name.startswith("fewshot-"):
        words = re.findall("[a-z0-9]+", name.lower().removeprefix("fewshot"))
        good = re.sub("^[0-9-]+", "", "-".join(words))
        guess = f", such as '{good}'" if good and good not in taken else ""
        raise ConfigError(
            f"'{name}' cannot be a plugin's name: it must begin with a letter and be of a-z, 0-9 "
            f"and single hyphens, without 'fewshot-', which is put before it{guess}"
        )
    if name in taken:
        raise ConfigError(f"'{name}' is {taken[name]}: choose another name, such as 'my-{name}'")


def _words(name: str, kind: str, module: str) -> dict[str, str]:
    """What the words in the templates stand for, without their PLUGIN_."""
    major, minor = version("fewshot").split(".")[:2]
    return {
        "NAME": name,
        "KIND": kind,
        "MODULE": module,
        "RUN": first_run(name, kind),
        "REQUIRES": f">={major}.{minor},<{major}.{int(minor) + 1}",
        "YEAR": str(date.today().year),
        "AUTHOR": _author() or f"the authors of fewshot-{name}",
    }


def _author() -> str:
    """The author's name as git knows it, or nothing."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "config", "user.name"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()

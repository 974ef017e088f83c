"""The pages that are made from the code: commands, components, configuration, hooks and so on."""

import ast
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_origin

import attrs
import click
from attrs import frozen

import fewshot
from fewshot.catalogue import hooks
from fewshot.catalogue.kinds import KINDS, LISTS, PARTS
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.cli import commands as group
from fewshot.core import errors, interfaces
from fewshot.core.components import Component, Study
from fewshot.experiments.config import PLAIN, partial_to_toml
from fewshot.experiments.schema import show_options
from fewshot.testing import LAWS

FOLDER = Path(__file__).parent / "reference"
_MADE = "<!-- made by `python -m docs`: change the code, not this page -->"

Cells = Sequence[str]


def pages() -> dict[Path, str]:
    """The generated pages by path, of the built-ins and the bundle fewshot-asl."""
    os.environ["FEWSHOT_PLUGINS"] = "asl"
    registry, _ = build_registry(strict=True)
    texts = {
        "commands": _commands(),
        "components": _components(registry),
        "configuration": _configuration(),
        "hooks": _hooks(),
        "errors": _errors(),
        "api": _api(),
        "interfaces": _interfaces(),
        "laws": _laws(),
    }
    return {FOLDER / f"{name}.md": f"{_MADE}\n\n{text.rstrip()}\n" for name, text in texts.items()}


def _table(header: Cells, rows: Iterable[Cells]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


# ------------------------------------------------------------------------------ commands


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _leaves(command.commands[name], f"{path} {name}")
    else:
        yield path, command


def _commands() -> str:
    parts = ["# Commands\n"]
    for path, command in _leaves(group, "fewshot"):
        context = click.Context(command, info_name=path)
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        rows = [
            [", ".join(map(_code, option.opts + option.secondary_opts)), *_wants(option, context)]
            for option in command.get_params(context)
            if isinstance(option, click.Option) and not option.hidden
        ]
        help_text = inspect.cleandoc(command.help or "").replace("\b\n", "")
        parts += [f"## {path}\n", f"    {usage}\n", f"{help_text}\n"]
        parts += [_table(["option", "wants", "what"], rows)]
    return "\n".join(parts)


def _wants(option: click.Option, context: click.Context) -> tuple[str, str]:
    if option.is_flag:
        wants = ""
    elif isinstance(option.type, click.Choice):
        wants = "one of " + ", ".join(map(_code, option.type.choices))
    else:
        wants = _code(option.make_metavar(context))
    default = f" Default: {option.default}." if option.show_default else ""
    return wants, (option.help or "") + default


# ---------------------------------------------------------------------------- components


def _options(cls: type, name: str) -> str:
    header, rows = show_options(cls)
    if not rows:
        return f"{name} has no options.\n"
    return _table(
        header, [[_code(option), _code(default), *rest] for option, default, *rest in rows]
    )


def _components(registry: Registry) -> str:
    said = (
        "Of the core and `fewshot-asl`; `fewshot list` and `fewshot show KIND NAME` print the same "
        "and what other plugins bring."
    )
    parts = ["# Components", "", said, ""]
    for kind in KINDS:
        parts += [f"## {kind}", ""]
        for entry in sorted(registry.all(kind), key=lambda entry: (entry.provider, entry.name)):
            parts += [*_component(entry), ""]
    return "\n".join(parts)


def _component(entry: Registered) -> list[str]:
    lines = [f"### {entry.name}", "", f"{entry.part.summary} (from `{entry.provider}`)", ""]
    if isinstance(entry.part, Study):  # whose rows are many
        rows = ", ".join(map(_code, entry.part.rows))
        return [*lines, f"`fewshot show study {entry.name}` prints it. Rows: {rows}"]
    if not isinstance(entry.part, Component):
        return [*lines, "```toml", partial_to_toml(entry.part).strip(), "```"]
    doc = inspect.getdoc(entry.component.factory)
    return [*lines, *([doc, ""] if doc else []), _options(entry.component.options, entry.name)]


def _configuration() -> str:
    parts = [
        "# Configuration",
        "",
        "Sections of plain options, for `--set SECTION.OPTION=VALUE` and the TOML file. The",
        f"sections {', '.join(map(_code, PARTS))}, and the lists",
        f"{', '.join(map(_code, LISTS))},",
        "take the options of the [component](components.md) they name.",
        "",
    ]
    for name, cls in PLAIN.items():
        parts += [f"## {name}", "", inspect.getdoc(cls) or "", "", _options(cls, name)]
    return "\n".join(parts)


# -------------------------------------------------------------------------- for authors


def _hooks() -> str:
    parts = ["# Hooks", "", inspect.getdoc(hooks) or "", ""]
    parts[2] = _fenced(parts[2])
    for name, hook in vars(hooks).items():
        if name.startswith("fewshot_"):
            returns = inspect.formatannotation(inspect.signature(hook).return_annotation)
            returns = re.sub(r"[\w.]+\.(\w+)", r"\1", returns)
            parts += [f"## {name}", "", f"    def {name}() -> {returns}", ""]
            parts += [_fenced(inspect.getdoc(hook) or ""), ""]
    return "\n".join(parts)


def _fenced(doc: str) -> str:
    """A docstring whose lines of code are shown as such."""
    return re.sub(r"^(?=return \[)", "    ", doc, flags=re.MULTILINE)


def _errors() -> str:
    found = [
        (cls.exit_code, name, cls)
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, errors.FewshotError)
    ]
    rows = [
        [_code(name), _code(cls.__bases__[0].__name__), str(code), inspect.getdoc(cls) or ""]
        for code, name, cls in sorted(found, key=lambda row: (row[0], row[1]))
    ]
    return "\n".join(
        [
            "# Errors and exit codes",
            "",
            "Every error that a user can cause is a `FewshotError`. On the command line it is one",
            "line on stderr, and the command ends with the error's exit code; 0 is success, 130 an",
            "interruption, 1 a fault of fewshot itself.",
            "",
            _table(["error", "is a", "exit code", "when"], rows),
        ]
    )


def _laws() -> str:
    parts = [
        "# Laws",
        "",
        "What must be true of each kind of component; `fewshot check` and `fewshot.testing`",
        "[try it](../how-to/check-a-plugin.md). Where the first law of a kind is broken, the",
        "others are not tried.",
        "",
    ]
    for kind in LAWS.values():
        rows = [[law.name, law.says] for law in kind.laws]
        parts += [f"## {kind.name}", "", _table(["law", "what it says"], rows)]
    return "\n".join(parts)


def _api() -> str:
    parts = [
        "# Python",
        "",
        "Every public name; `import fewshot as fs` loads none until it is used.",
        "",
    ]
    for module, names in _public_names().items():
        parts += [f"## {module}", ""]
        for name in names:
            parts += [*_public(name, getattr(fewshot, name)), ""]
    return "\n".join(parts)


def _public_names() -> dict[str, list[str]]:
    """The public names by the module that has them."""
    stub = Path(fewshot.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    statements = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    names: dict[str, list[str]] = {}
    for node in statements:
        names.setdefault(str(node.module), []).extend(alias.name for alias in node.names)
    return names


def _public(name: str, value: Any) -> list[str]:
    doc = (inspect.getdoc(value) or "") if callable(value) else ""
    if doc.startswith(("Method generated by attrs", "partial(")):
        doc = ""
    if get_origin(value) is not None:  # an alias: its documentation is another project's
        return [f"### {name}", "", f"    {name} = {inspect.formatannotation(value)}"]
    methods = [part for one in _METHODS.get(name, ()) for part in _method(value, one)]
    return [f"### {name}", "", f"    {name}{_signature(value)}", "", doc, *methods]


# Methods that authors call, beside what the classes' own texts tell.
_METHODS = {"Metric": ("table",), "Registry": ("get", "names", "all")}


def _method(cls: type, name: str) -> list[str]:
    method = getattr(cls, name)
    call = f"{cls.__name__}.{name}{_signature(method)}".replace("(self, ", "(").replace(
        "(self)", "()"
    )
    return ["", f"    {call}", "", inspect.getdoc(method) or ""]


@frozen
class _Default:
    """A parameter's default, as a caller would write it."""

    value: Any

    def __repr__(self) -> str:
        plain = self.value is None or isinstance(self.value, bool | int | float | str | tuple)
        if plain or isinstance(self.value, type):
            return getattr(self.value, "__name__", repr(self.value))
        cls = type(self.value)
        blank = attrs.has(cls) and all(f.default is not attrs.NOTHING for f in attrs.fields(cls))
        return f"{cls.__name__}()" if blank and cls() == self.value else "…"


def _signature(value: Any) -> str:
    """Parameters with types and defaults, and what is returned."""
    if not callable(value):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(…)"
    if isinstance(value, type):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    parameters = [
        p if p.default is p.empty else p.replace(default=_Default(p.default))
        for p in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters))
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text)
    return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[(\w+)\]\]", r"NDArray[\1]", text)


def _interfaces() -> str:
    parts = ["# Interfaces", "", inspect.getdoc(interfaces) or "", ""]
    for name, value in vars(interfaces).items():
        if isinstance(value, type) and value.__module__ == interfaces.__name__:
            parts += [f"## {name}", "", inspect.getdoc(value) or "", ""]
            own = [
                one
                for one in vars(value)
                if inspect.isfunction(vars(value)[one])
                and (one == "__call__" or not one.startswith("_"))
                and inspect.getdoc(vars(value)[one])
            ]
            for one in own:
                parts += [*_method(value, one), ""]
    parts += ["## Registry", "", inspect.getdoc(Registry) or ""]
    for one in _METHODS["Registry"]:
        parts += [*_method(Registry, one), ""]
    return "\n".join(parts)

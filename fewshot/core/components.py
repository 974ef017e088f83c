"""The values that travel between the parts: class splits, components, options, results. No MLX."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, fields, frozen, has, resolve_types, validators

from .errors import ConfigError, choose_from
from .options import NoOptions, as_names, at_least

# -------------------------------------------------------------------------- components


def _is_line(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"'{attribute.name}' must be one line of text, not {value!r}")


def _in_toml(value: Any) -> bool:
    """Whether a configuration file can hold a value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _in_toml(value[key]) for key in value)
    if isinstance(value, list | tuple):
        return all(_in_toml(entry) for entry in value)
    return isinstance(value, str | bool | int | float)


def _is_options(_: Any, attribute: Any, value: Any) -> None:
    """Refuse what the command line, a TOML file or `fewshot show` could not do anything with."""
    if not isinstance(value, type) or not has(value):
        raise TypeError(f"'{attribute.name}' must be an attrs class, not {value!r}")
    try:
        resolve_types(value)
        blank = value()
    except Exception as error:
        raise TypeError(
            f"{value.__name__}: every option needs a type that can be looked up and a default that "
            f"its own validator takes: {error}"
        ) from error
    for each in fields(value):
        default = getattr(blank, each.name)
        if each.name == "name":
            raise TypeError(f"{value.__name__}: an option cannot be called 'name'")
        if default is not None and not _in_toml(default):
            raise TypeError(
                f"{value.__name__}: a TOML file cannot hold {default!r}, the default of "
                f"'{each.name}'"
            )


def _is_tree(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, Mapping) or not _in_toml(value):
        raise TypeError(f"'{attribute.name}' must be what a TOML file can hold, not {value!r}")


def _is_name(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch("[a-z0-9][a-z0-9_.-]*", value):
        raise ValueError(f"'{attribute.name}' must be of a-z, 0-9, '_', '.' and '-', not {value!r}")


@frozen
class Component:
    """A named part that a plugin offers: how to make it and which options it takes.

    `options` is a frozen attrs class; its fields, types, defaults and help texts (see `option`)
    serve the command line, the TOML file, `fewshot show` and the manifest alike. Every option has
    a default; none is called `name`. ValueError or TypeError for what cannot be used.

    What can be had from somewhere (a data set, weights) has `fetch(folder, progress)`, which brings
    it into the folder for `fewshot fetch KIND/NAME` (`fewshot.fetch` does so for published files)
    and calls `progress(file, bytes done, bytes in all)`. The component then looks in
    `data_folder(NAME)` where no other path is given.

    `initialise(made, options)`, of a backbone, metric, loss or head, gives what the factory made
    weights from elsewhere. It is called once, before training, and never when a trained part is
    made again: a run folder or a classifier file needs nothing else. Names and shapes of parameters
    stay what they were.

    `implies`: configuration that goes with it, such as image size, mean and std of its weights,
    below whatever a user or a preset says. It names no other part; an option of another part counts
    where the chosen one has it.
    """

    name: str = field(validator=_is_name)
    factory: Callable[..., Any] = field(validator=validators.is_callable())
    options: type = field(default=NoOptions, validator=_is_options)
    summary: str = field(default="", validator=_is_line)
    fetch: Callable[[Path, Callable[[str, int, int], None]], None] | None = None
    initialise: Callable[[Any, Any], None] | None = None
    implies: Mapping[str, Any] = field(factory=dict, validator=_is_tree)


@frozen
class Preset:
    """A named partial configuration: what a TOML file would say.

    `default`: its data set and backbone are those of a run that names none.
    """

    name: str = field(validator=_is_name)
    values: Mapping[str, Any] = field(validator=_is_tree)
    summary: str = field(default="", validator=_is_line)
    default: bool = False


def _by_k(figures: Mapping[str, Mapping[Any, float]]) -> dict[str, dict[int, float]]:
    """Keys as whole numbers, which TOML cannot have."""
    return {row: {int(k): float(v) for k, v in of.items()} for row, of in figures.items()}


@frozen
class Study:
    """A table of runs: every row a partial configuration above `base`, trained with `seeds` seeds.

    `published`: by row and K, accuracies (shares) that others printed, to stand beside the first
    n_way and grouping; `notes`: what is different about them. A row may say `seeds` of its own. A
    text "$NAME" in it is that of the environment variable NAME. `optional`: rows whose data,
    variables or plugins are not there are left out, with a line each, instead of being an error.

    Raises ConfigError for no row, a row's name that is no file name, figures for no row.
    """

    name: str = field(validator=validators.matches_re(r"\w[\w.-]*"))
    rows: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any] = field(factory=dict)
    seeds: int = field(default=3, validator=at_least(1))
    published: Mapping[str, Mapping[Any, float]] = field(factory=dict, converter=_by_k)
    notes: tuple[str, ...] = field(default=(), converter=as_names)
    summary: str = ""
    optional: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.rows:
            raise ConfigError(f"study '{self.name}' has no rows")
        for row in self.rows:
            if not re.fullmatch(r"\w[\w.-]*", row):
                raise ConfigError(
                    f"study '{self.name}': row '{row}' may have letters, digits, '-', '_' and '.'"
                )
        for row in self.published:
            if row not in self.rows:
                raise ConfigError(
                    f"study '{self.name}' has published figures for '{row}', which is no row: "
                    f"{choose_from(row, self.rows)}"
                )

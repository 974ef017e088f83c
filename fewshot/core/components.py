"""The values that travel between the parts: class splits, components, options, results. No MLX."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from attrs import Factory, define, field, fields, frozen, has, resolve_types, validators
from numpy.typing import NDArray

from .draws import Grouping, Ints
from .errors import ConfigError, choose_from
from .options import NoOptions, ZeroOr, as_names, at_least, option, positive, share

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

    A data set that can be had from somewhere has `fetch(folder, progress)`, which brings it into
    the folder for `fewshot data fetch NAME` (`fewshot.fetch` does so for published files) and calls
    `progress(file, bytes done, bytes in all)`. Its factory then looks in `data_folder(NAME)` where
    no other path is given.
    """

    name: str = field(validator=_is_name)
    factory: Callable[..., Any] = field(validator=validators.is_callable())
    options: type = field(default=NoOptions, validator=_is_options)
    summary: str = field(default="", validator=_is_line)
    fetch: Callable[[Path, Callable[[str, int, int], None]], None] | None = None


@frozen
class Preset:
    """A named partial configuration: what a TOML file would say."""

    name: str = field(validator=_is_name)
    values: Mapping[str, Any] = field(validator=_is_tree)
    summary: str = field(default="", validator=_is_line)


def _by_k(figures: Mapping[str, Mapping[Any, float]]) -> dict[str, dict[int, float]]:
    """Keys as whole numbers, which TOML cannot have."""
    return {row: {int(k): float(v) for k, v in of.items()} for row, of in figures.items()}


@frozen
class Study:
    """A table of runs: every row a partial configuration above `base`, trained with `seeds` seeds.

    `published`: by row and K, accuracies (shares) that others printed, to stand beside the first
    n_way and grouping; `notes`: what is different about them. Raises ConfigError for no row, a
    row's name that is no file name, figures for no row.
    """

    name: str = field(validator=validators.matches_re(r"\w[\w.-]*"))
    rows: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Any] = field(factory=dict)
    seeds: int = field(default=3, validator=at_least(1))
    published: Mapping[str, Mapping[Any, float]] = field(factory=dict, converter=_by_k)
    notes: tuple[str, ...] = field(default=(), converter=as_names)
    summary: str = ""

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


# --------------------------------------------------------- options of the run's own steps


@frozen
class TrainingOptions:
    """How `fit` trains."""

    steps: int = option(300, "optimizer steps at the most", at_least(0))
    draws_per_step: int = option(1, "draws (batches, episodes) in one step", positive)
    optimizer: Literal["adam", "adamw", "sgd"] = option("adam", "the optimizer")
    learning_rate: float = option(1e-3, "at the start of the schedule", positive)
    schedule: Literal["constant", "cosine"] = option("cosine", "cosine: decays to 0 over `steps`")
    warmup: int = option(0, "steps of linear rise before the schedule", at_least(0))
    weight_decay: float = option(0.0, "adamw and sgd only", at_least(0))
    momentum: float = option(0.9, "sgd only", share)
    validate_every: int = option(50, "steps between two validations", positive)
    patience: int = option(
        8, "validations without a better score before training stops; 0: never", at_least(0)
    )
    validation_pool: int = option(30, "images of a class that validation draws from", at_least(6))


@frozen
class EvaluationOptions:
    """How a trained backbone is examined."""

    k_shot: tuple[int, ...] = option(
        (1, 2, 5, 10),
        "support images per class, a list",
        validators.and_(validators.min_len(1), validators.deep_iterable(at_least(1))),
    )
    n_way: tuple[int, ...] = option(
        (0,),
        "0: support of all classes, queries all other images of the test classes; "
        "else standard episodes of this many test classes; of a list, each",
        validators.and_(validators.min_len(1), validators.deep_iterable(ZeroOr(2))),
    )
    n_query: int = option(15, "queries per class in standard episodes", positive)
    episodes: int = option(600, "standard episodes", at_least(2))
    repeats: int = option(20, "support draws where n_way is 0", at_least(2))
    groups: tuple[Grouping, ...] = option(
        ("separate",),
        "separate: support and query share no group (shot, signer), where the dataset has groups; "
        "mixed: they may; of a list, each, and the first for validation and pairs",
        validators.and_(
            validators.min_len(1), validators.deep_iterable(validators.in_(get_args(Grouping)))
        ),
    )
    pairs: int = option(4000, "pairs for verification; 0: none", ZeroOr(2))
    seed: int = option(
        0, "of the draws: two runs of one evaluation seed meet the same", at_least(0)
    )
    memory: int = option(
        256, "MB that temporary arrays take, about; changes speed, no figure", at_least(1)
    )


# ------------------------------------------------------------------------------ results


@frozen
class Setting:
    """What the episodes of one row of results share.

    `n_way` 0: all classes, as in the options. `groups` "none": the dataset knows no groups.
    """

    k_shot: int
    n_way: int = 0
    groups: str = "none"


@frozen(eq=False)
class Evaluation:
    """What one embedding achieves on a list of episodes; accuracies are shares, 0 to 1.

    `accuracy`: the mean of `per_episode`, each the mean over the episode's query classes.

    `per_episode` (e,); `ci95`: Student t over episodes; `ci95_classes`: bootstrap over the query
    classes, which reflects how few they are. `confusion` (c, c): queries of class row answered
    as class column. `digest` names the episodes: equal digests, equal episodes.
    """

    accuracy: float
    ci95: tuple[float, float]
    ci95_classes: tuple[float, float]
    per_episode: NDArray[np.float64]
    per_class: Mapping[str, float]
    confusion: Ints
    classes: tuple[str, ...]
    digest: str


@frozen
class Verification:
    """Same class or different, on pairs of images; smaller distance means same.

    `auc`: area under the ROC curve. `accuracy`: at `threshold`, chosen on other classes.
    `tuning_accuracy`: on these. `accuracy_at_margin`: at the loss's own margin, where it has one.
    """

    auc: float
    threshold: float
    accuracy: float
    tuning_accuracy: float
    margin: float | None
    accuracy_at_margin: float | None
    pairs: int


@define
class History:
    """What happened in training. `stopped`: "steps", "patience" or "interrupted"."""

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    images_per_second: float = 0.0
    seconds: float = 0.0
    stopped: str = "steps"
    records: list[dict[str, Any]] = Factory(list)

"""Options that several commands share, and the layer of a configuration that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue.kinds import LISTS, PARTS
from ..core.errors import choose_from

if TYPE_CHECKING:
    from ..catalogue.registry import Registry
    from ..experiments.schema import Tree


Command = Callable[..., None]


class OneOf(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """One of several words; for another the nearest is suggested."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word; BadParameter for what is none of them."""
        if value not in self.choices:
            self.fail(f"unknown '{value}'; {choose_from(value, self.choices)}", param, ctx)
        return super().convert(value, param, ctx)


def _adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator of many, the first on top."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


dataset = click.option("--dataset", metavar="NAME", help="Data set.")
_DATA = click.option(
    "--data", metavar="PATH", help="Images: a folder, a zip file, a table (.csv) or an .npz file."
)
_STEPS = click.option("--steps", type=int, help="Optimizer steps at the most.")

# What all rows of a study may share.
data_choices = _adding(dataset, _DATA, _STEPS)

# Options that name a configuration's parts.
choices = _adding(
    click.option("--config", type=click.Path(path_type=Path), help="A TOML file."),
    click.option("--preset", metavar="NAME", help="A preset to start from."),
    dataset,
    _DATA,
    click.option("--backbone", metavar="NAME", help="Network."),
    click.option("--metric", metavar="NAME", help="Distance."),
    click.option("--loss", metavar="NAME", help="Loss."),
    click.option("--sampler", metavar="NAME", help="Sampler; else one that fits the loss."),
    click.option("--miner", metavar="NAME", help="Which pairs or triplets the loss learns from."),
    click.option("--mixer", metavar="NAME", help="Mixes images and their targets, in training."),
    click.option("--learner", metavar="NAME", help="How a step learns."),
    click.option("--optimizer", metavar="NAME", help="What changes weights by gradients."),
    click.option("--schedule", metavar="NAME", help="The learning rate over the steps."),
    click.option(
        "--observe", metavar="NAMES", help="Observers, which are told of the run; comma-separated."
    ),
    click.option("--augment", metavar="NAMES", help="Random transforms, comma-separated."),
    _STEPS,
    click.option("--seed", type=int, help="Seed of weights, draws and transforms."),
)

# Options of every command that reads a configuration.
settings = _adding(
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any option, e.g. --set backbone.dropout=0.2.",
    ),
    click.option("--strict-plugins", is_flag=True, help="Stop at a plugin that fails to load."),
)

# Of every command that takes one component by itself.
own_options = click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option's value, e.g. dropout=0.2.",
)

# Options that change how a backbone is examined.
examination = _adding(
    click.option("--head", metavar="NAME", help="Few-shot classifier."),
    click.option("--adapter", metavar="NAME", help="Trains on each episode's support."),
    click.option("--k-shot", metavar="LIST", help="Support sizes, e.g. 1,5,100."),
    click.option("--n-way", metavar="LIST", help="Classes of an episode; 0: all, query unseen."),
    click.option(
        "--groups",
        metavar="LIST",
        help="May support and query share a shot or signer? separate, mixed; or sources: support "
        "of one person, queries of the others.",
    ),
    settings,
)

# Of every command that makes something of a run's network.
without_adapter = click.option(
    "--without-adapter",
    is_flag=True,
    help="Take a run that has an adapter without it: the network as trained.",
)

# Of every command that embeds images for a classifier.
engine = click.option(
    "--engine",
    type=OneOf(["auto", "mlx", "onnx"]),
    default="auto",
    show_default=True,
    help="What embeds images: MLX, or ONNX Runtime.",
)


# Of every command that reads images for a classifier; of a run it is `dataset.max_pixels`.
max_pixels = click.option(
    "--max-pixels", type=click.IntRange(1), default=50_000_000, show_default=True,
    help="Larger images are refused before decoding.",
)  # fmt: skip


_BY_ENDING = {".npz": "arrays", ".csv": "image-table", ".parquet": "image-table"}


def flag_layer(given: dict[str, Any], path_is_named: bool = False) -> Tree:
    """Flags as the topmost layer.

    `path_is_named`: a layer below names a data set with a `path`, which --data says then; else
    it is a data set of its own.
    """
    layer: Tree = {kind: {"name": given[kind]} for kind in PARTS if given.get(kind) is not None}
    if given.get("data") is not None:
        name = _BY_ENDING.get(Path(given["data"]).suffix.lower(), "image-folder")
        own = {} if path_is_named and name == "image-folder" else {"name": name}
        layer.setdefault("dataset", own)["path"] = given["data"]
    for flag, section in (("augment", "augment"), ("observe", "observers")):
        if given.get(flag) is not None:
            names = [name.strip() for name in given[flag].split(",")]
            layer[section] = [{"name": name} for name in names if name and name != "none"]
    if given.get("steps") is not None:
        layer["training"] = {"steps": given["steps"]}
    for key in ("seed", "preset"):
        if given.get(key) is not None:
            layer[key] = given[key]
    evaluation: Tree = {
        key: _whole_numbers(f"--{key.replace('_', '-')}", given[key])
        for key in ("k_shot", "n_way")
        if given.get(key) is not None
    }
    if given.get("groups") is not None:
        evaluation["groups"] = [name.strip() for name in given["groups"].split(",")]
    return {**layer, **({"evaluation": evaluation} if evaluation else {})}


def _whole_numbers(flag: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise click.UsageError(f"{flag} wants whole numbers such as 1,5,10, got '{text}'") from None


def above(registry: Registry, layers: list[Tree], given: dict[str, Any]) -> list[Tree]:
    """What `--set` and flags put above the layers of a file; --data is for the data set there."""
    from ..experiments.config import names_path, settings_layer

    preset = [{"preset": given["preset"]}] if given["preset"] is not None else []
    flags = flag_layer(given, names_path(registry, [*layers, *preset]))
    return topmost(settings_layer(given["settings"]), flags)


def topmost(settings: Tree, flags: Tree) -> list[Tree]:
    """`--set` and flags as layers: flags win, and what they name is there for `--set` to change."""
    return [flags, settings, {key: value for key, value in flags.items() if key not in LISTS}]

"""Commands about data sets: bring one, and look into a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..catalogue.kinds import KINDS
from ..core.components import Component
from ..core.wording import counted
from .options import flag_layer, topmost
from .terminal import echo, load_registry, print_table, showing_progress

if TYPE_CHECKING:
    from ..catalogue.registry import Registry
    from ..data.split import ClassSplit
    from ..data.survey import ClassSeen
    from ..experiments.config import RunConfig


@click.group()
def data() -> None:
    """Fetch a data set, or check a folder of images."""


@data.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), help="Folder; else the user's data folder.")
def fetch(name: str, to: Path | None) -> None:
    """Download a published data set; after an interruption it goes on where it stopped."""
    _fetch("dataset", name, to)
    echo(f"fewshot run --dataset {name}" + ("" if to is None else f" --data {to}"))


@click.command("fetch")
@click.argument("part", metavar="KIND/NAME")
@click.option("--to", type=click.Path(path_type=Path), help="Folder; else the user's data folder.")
def fetch_any(part: str, to: Path | None) -> None:
    """Download what a part needs from elsewhere, such as the weights of backbone/NAME."""
    from ..core.errors import ConfigError, choose_from

    kind, _, name = part.partition("/")
    kinds = [kind for kind, record in KINDS.items() if record.record is Component]
    if kind not in kinds:
        raise ConfigError(f"fetch wants KIND/NAME, got '{part}': {choose_from(kind, kinds)}")
    _fetch(kind, name, to)


def _fetch(kind: str, name: str, to: Path | None) -> None:
    """Bring it and say where it is; ConfigError where it has nothing to bring."""
    from ..core.errors import ConfigError, choose_from
    from ..data.download import data_folder

    registry, _ = load_registry(strict=False)
    entry = registry.get(kind, name)
    bring = entry.component.fetch
    if bring is None:
        offers = [n for n in registry.names(kind) if registry.get(kind, n).component.fetch]
        raise ConfigError(f"{kind} '{name}' has nothing to fetch: {choose_from(name, offers)}")
    folder = data_folder(entry.name) if to is None else to
    with showing_progress() as progress:
        bring(folder, lambda file, done, total: progress(file, done, total, "bytes", ""))
    echo(f"{entry.name} is in {folder}")


@data.command()
@click.argument("path", required=False)
@click.option("--dataset", metavar="NAME", help="Data set; else image-folder.")
@click.option("--preset", metavar="NAME", help="As in `fewshot run`.")
@click.option("--k-shot", metavar="LIST", help="Support sizes to be enough for, e.g. 1,5.")
@click.option("--n-way", type=int, help="Classes of an episode, as in `fewshot run`.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="As in `fewshot run`.")
def check(path: str | None, settings: tuple[str, ...], **given: Any) -> None:
    """What a run would see in a folder, zip file or table, class by class, and what to mend.

    The exit code is 0 if `fewshot run` would take it, 4 if not.
    """
    from attrs import asdict, evolve

    from ..catalogue.registry import make
    from ..core.errors import DataError
    from ..data.split import one_for_test
    from ..data.survey import survey
    from ..experiments.config import resolve, settings_layer

    if path is None and given["dataset"] is None:
        raise click.UsageError("name a folder, a zip file, a table or a --dataset")
    registry, _ = load_registry(strict=False)
    flags = flag_layer({**given, "data": path})
    offered = any(entry.preset.default for entry in registry.all("preset"))
    network = [] if offered else [{"backbone": "conv4"}]  # any will do, this one is always there
    config = resolve(registry, [*network, *topmost(settings_layer(settings), flags)])
    faults, hints = [], []
    try:
        dataset = make(registry.get("dataset", config.dataset.name), config.dataset.options)
    except DataError as error:
        faults = [str(error)]
    else:
        with showing_progress() as progress:
            seen = survey(dataset, lambda done, total: progress("images", done, total, "", ""))
        faults, hints = seen.faults, seen.hints
        split, refusal = _split_or_refusal(config, registry)
        if refusal is not None and config.needs_training_classes:
            untrained = evolve(config, training=evolve(config.training, steps=0))
            if _split_or_refusal(untrained, registry)[1] is None:
                hints = [*hints, "a run without training would take it: --preset photos, --steps 0"]
        parts = {} if split is None else {n: part for part, of in asdict(split).items() for n in of}
        alone = None if split is None else one_for_test(split)
        hints = [*hints, *([] if alone is None else [alone])]
        print_table(*_table(seen.classes, parts))
        if refusal is not None and not any(refusal in fault for fault in faults):
            faults.append(refusal)
    for line in faults:
        echo(f"fault: {line}")
    for line in hints:
        echo(f"hint: {line}")
    if faults:
        raise DataError(f"a run would refuse {path or given['dataset']}: the faults are above")
    echo("A run would take this.")


def _split_or_refusal(
    config: RunConfig, registry: Registry
) -> tuple[ClassSplit | None, str | None]:
    """The class split, and why a run would stop, if it would."""
    from ..core.errors import FewshotError
    from ..experiments.assembly import build
    from ..experiments.assembly import check as check_parts

    split = None
    try:
        parts = build(config, registry)
        split = parts.split
        check_parts(parts)
    except FewshotError as error:
        return split, str(error)
    return split, None


def _table(classes: list[ClassSeen], parts: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    def size(of: tuple[int, int] | None) -> str:
        return "-" if of is None else f"{of[0]}x{of[1]}"

    counts = ("images", "unreadable", "copies")
    rows = [
        [c.name, parts.get(c.name, "-")]
        + [str(getattr(c, what)) for what in counts]
        + [size(c.smallest), size(c.largest), "-" if c.groups is None else str(c.groups)]
        for c in classes
    ]
    total = [str(sum(getattr(c, what) for c in classes)) for what in counts]
    rows.append([counted(len(classes), "class", "classes"), "", *total, "", "", ""])
    return ["class", "split", *counts, "smallest", "largest", "groups"], rows


COMMANDS = (data, fetch_any)

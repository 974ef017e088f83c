"""The command line: parsing and printing only. Commands load the heavy modules they need.

Exit codes: 0 done; 2 wrong option or combination; 3 plugin (with --strict-plugins); 4 data; 5 run
folder; 6 training; 130 interrupted; 1 anything else, a failed `doctor` too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import FewshotError

if TYPE_CHECKING:
    from .config import Tree
    from .plugins import PluginStatus
    from .registry import Registry
    from .run import Progress
    from .runtime import Runtime

_KINDS = ("backbone", "metric", "loss", "sampler", "head", "dataset", "transform", "preset")


def main() -> None:
    """The command `fewshot`: errors end in one line and their exit code, never a traceback."""
    try:
        code = commands.main(standalone_mode=False)
    except FewshotError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    sys.exit(code or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fewshot", message="fewshot %(version)s")
def commands() -> None:
    """Few-shot image classification on MLX: train, evaluate and compare any parts.

    \b
    fewshot run                    train and test on drawn ASL signs, no download
    fewshot run --data FOLDER      the same on your own images, one folder a class
    fewshot list                   what there is to choose from
    """


# ----------------------------------------------------------------------- shared options


def _choices(command: Callable[..., None]) -> Callable[..., None]:
    """Options that name a configuration's parts."""
    for decorate in reversed(
        [
            click.option("--config", type=click.Path(path_type=Path), help="A TOML file."),
            click.option("--preset", metavar="NAME", help="A preset to start from."),
            click.option("--dataset", metavar="NAME", help="Data set."),
            click.option(
                "--data", metavar="PATH", help="Images: a folder, a zip file or an .npz file."
            ),
            click.option("--backbone", metavar="NAME", help="Network."),
            click.option("--metric", metavar="NAME", help="Distance."),
            click.option("--loss", metavar="NAME", help="Loss."),
            click.option("--sampler", metavar="NAME", help="Sampler; else one that fits the loss."),
            click.option("--augment", metavar="NAMES", help="Random transforms, comma-separated."),
            click.option("--steps", type=int, help="Optimizer steps at the most."),
            click.option("--seed", type=int, help="Of weights, draws and transforms."),
        ]
    ):
        command = decorate(command)
    return command


def _examination(command: Callable[..., None]) -> Callable[..., None]:
    """Options that change how a backbone is examined."""
    for decorate in reversed(
        [
            click.option("--head", metavar="NAME", help="Few-shot classifier."),
            click.option("--k-shot", metavar="LIST", help="Support sizes, e.g. 1,5,100."),
            click.option("--n-way", type=int, help="Classes of an episode; 0: all, query unseen."),
            click.option(
                "--groups",
                type=click.Choice(["separate", "mixed"]),
                help="May support and query share a shot or signer?",
            ),
            click.option(
                "--set", "settings", metavar="KEY=VALUE", multiple=True,
                help="Any option, e.g. --set backbone.dropout=0.2.",
            ),
            click.option(
                "--strict-plugins", is_flag=True, help="Stop at a plugin that fails to load."
            ),
        ]
    ):  # fmt: skip
        command = decorate(command)
    return command


def _flags(given: dict[str, Any]) -> Tree:
    """Flags as the topmost layer."""
    layer: Tree = {
        kind: {"name": given[kind]}
        for kind in ("dataset", "backbone", "metric", "loss", "sampler", "head")
        if given.get(kind) is not None
    }
    if given.get("data") is not None:
        name = "arrays" if given["data"].endswith(".npz") else "image-folder"
        layer.setdefault("dataset", {"name": name})["path"] = given["data"]
    if given.get("augment") is not None:
        names = [name.strip() for name in given["augment"].split(",")]
        layer["augment"] = [{"name": name} for name in names if name and name != "none"]
    if given.get("steps") is not None:
        layer["training"] = {"steps": given["steps"]}
    for key in ("seed", "preset"):
        if given.get(key) is not None:
            layer[key] = given[key]
    evaluation = {key: given[key] for key in ("n_way", "groups") if given.get(key) is not None}
    if given.get("k_shot") is not None:
        try:
            evaluation["k_shot"] = [int(k) for k in given["k_shot"].split(",")]
        except ValueError:
            raise click.UsageError(
                f"--k-shot wants whole numbers such as 1,5,10, got '{given['k_shot']}'"
            ) from None
    return {**layer, **({"evaluation": evaluation} if evaluation else {})}


def _topmost(settings: Tree, flags: Tree) -> list[Tree]:
    """`--set` and flags as layers: flags win, and what they name is there for `--set` to change."""
    return [flags, settings, {key: value for key, value in flags.items() if key != "augment"}]


def _registry(strict: bool) -> tuple[Registry, list[PluginStatus]]:
    """The registry; a plugin that failed is one line on stderr."""
    from .plugins import build_registry

    registry, statuses = build_registry(strict)
    for status in statuses:
        if status.error is not None:
            click.echo(
                f"plugin '{status.name}' from {status.origin} failed to load: {status.error} "
                "(`fewshot plugins` tells more)",
                err=True,
            )
    return registry, statuses


def _prepare() -> Runtime:
    """Make MLX fast, before anything imports it; what is missing is one line on stderr."""
    from .runtime import prepare

    runtime = prepare()
    if runtime.hint:
        click.echo(runtime.hint, err=True)
    return runtime


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal; otherwise a line for every stage and every validation."""
    if not sys.stderr.isatty():
        stages: dict[str, float] = {}

        def lines(stage: str, done: int, total: int, status: str, line: str) -> None:
            began = stages.setdefault(stage, time.monotonic())
            if line:
                click.echo(f"{stage} {done}/{total}: {line}", err=True)
            elif done == total and stage != "training":
                click.echo(f"{stage}: {time.monotonic() - began:.1f} s", err=True)

        yield lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def bars(stage: str, done: int, total: int, status: str, line: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, status="")
            bar.update(tasks[stage], completed=done)
            if status:
                bar.update(tasks[stage], status=status)
            if line:
                bar.console.print(f"{done}/{total}: {line}", highlight=False)

        yield bars


def _print_results(folder: Path) -> None:
    """The table and the facts of a run folder."""
    from .checkpoint import read_json
    from .report import facts, table

    results = read_json(folder / "results.json")
    header, rows = table(results["k_shot"])
    _table(header, rows, right=True)
    for line in facts(results):
        click.echo(line)
    click.echo(f"everything else: {folder / 'report.html'}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width to fit
    console.print(table)


# ----------------------------------------------------------------------------- commands


@commands.command()
@_choices
@_examination
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; else the next in runs/.")
def run(**given: Any) -> None:
    """Train and evaluate; writes a run folder with weights, figures, pictures and report.html."""
    runtime = _prepare()
    registry, _ = _registry(given["strict_plugins"])
    from .config import chooses, read_toml, resolve, settings_layer
    from .run import run as train_and_evaluate

    layers = [read_toml(given["config"])] if given["config"] is not None else []
    layers += _topmost(settings_layer(given["settings"]), _flags(given))
    config = resolve(registry, layers)
    named = any(chooses(layer, "dataset") for layer in layers)
    if config.dataset.name == "asl/asl-synthetic" and not named:
        click.echo("no data set named: asl-synthetic, drawn by program", err=True)
    with _progress() as progress:
        folder = train_and_evaluate(config, registry, given["out"], runtime, progress)
    _print_results(folder)


@commands.command("eval")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--metric", metavar="NAME", help="Distance.")
@click.option("--data", metavar="PATH", help="The images, where they have moved.")
@_examination
def evaluate(folder: Path, **given: Any) -> None:
    """Evaluate a run again with other K, n_way, head or metric; no training."""
    _prepare()
    registry, _ = _registry(given["strict_plugins"])
    from .config import resolve, settings_layer
    from .run import evaluate_run, load_run

    flags = _flags({**given, "data": None})
    if given["data"] is not None:
        flags["dataset"] = {"path": given["data"]}
    layers = [load_run(folder), *_topmost(settings_layer(given["settings"]), flags)]
    config = resolve(registry, layers)
    with _progress() as progress:
        out = evaluate_run(folder, config, registry, progress)
    _print_results(out)


@commands.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, type=click.Path(path_type=Path))
def compare(folders: tuple[Path, ...]) -> None:
    """Compare runs on the same episodes, with a paired test against the first."""
    from .compare import compare_runs

    if len(folders) < 2:
        raise click.UsageError("compare wants two run folders or more")
    _table(*compare_runs(folders), right=True)


@commands.command("list")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
def list_components(kind: str | None) -> None:
    """What there is to choose from."""
    registry, _ = _registry(strict=False)
    rows = [
        [entry.kind, name, entry.provider, entry.part.summary]
        for each in ([kind] if kind else _KINDS)
        for name in registry.names(each)
        for entry in [registry.get(each, name)]
    ]
    _table(["kind", "name", "from", "what"], rows)


@commands.command()
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("name")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="E.g. dropout=0.2.")
@click.option(
    "--save", type=click.Path(path_type=Path), help="PNG: a backbone's layers, a data set's images."
)
@click.option("--size", default=64, show_default=True, help="Image size for a backbone's layers.")
def show(kind: str, name: str, settings: tuple[str, ...], save: Path | None, size: int) -> None:
    """A component's options; --save draws a backbone's layers or a data set's examples."""
    from .config import options, settings_layer, show_options

    if save is not None:
        _prepare()
    registry, _ = _registry(strict=False)
    entry = registry.get(kind, name)
    click.echo(f"{entry.kind} {entry.qualified} ({entry.provider} {entry.version})")
    click.echo(entry.part.summary)
    if kind == "preset":
        if settings or save is not None:
            raise click.UsageError("a preset has no options to set and no picture")
        import tomli_w

        click.echo("\n" + tomli_w.dumps(dict(entry.preset.values)))
        return
    header, rows = show_options(entry.component.options)
    _table(header, rows) if rows else click.echo("no options")
    chosen: Any = options(entry.component.options, settings_layer(settings), name)
    if save is not None:
        from .show import draw

        draw(entry, chosen, save, size)
        click.echo(f"saved {save}")


@commands.command()
@click.option("-v", "--verbose", is_flag=True, help="The whole traceback of a plugin that failed.")
def plugins(verbose: bool) -> None:
    """Which plugins are loaded, from where, and what failed and why."""
    from .plugins import build_registry

    _, statuses = build_registry()
    if not statuses:
        click.echo("no plugins; the ASL experiment is in fewshot-asl")
        return
    rows = [
        [s.name, s.origin, s.version, f"failed: {s.error}" if s.error else f"{s.components} parts"]
        for s in statuses
    ]
    _table(["plugin", "from", "version", "status"], rows)
    for status in statuses:
        if verbose and status.details:
            click.echo(f"{status.name}:\n{status.details}")


@commands.command()
@click.option("--seconds", default=30.0, show_default=True, help="For measuring; 0: do not.")
def doctor(seconds: float) -> None:
    """What makes MLX fast here, whether it computes rightly, and how fast it is."""
    runtime = _prepare()
    from importlib.metadata import version

    import attrs
    import mlx.core as mx

    from .doctor import checks, speeds

    facts = {"mlx": version("mlx"), "device": str(mx.default_device()), **attrs.asdict(runtime)}
    facts.pop("hint")  # already on stderr
    _table(["runtime", ""], [[name.replace("_", " "), str(facts[name] or "-")] for name in facts])
    results = list(checks())
    _table(
        ["against NumPy in float64", "error", ""],
        [[c.what, f"{c.error:.0e}", "good" if c.passed else "WRONG"] for c in results],
    )
    if not all(check.passed for check in results):
        raise click.ClickException(
            "MLX computes wrongly here: try FEWSHOT_RUNTIME=stock, which leaves it as installed"
        )
    if seconds > 0:
        with _progress() as progress:
            found = speeds(seconds, lambda done, total: progress("measuring", done, total, "", ""))
        _table(["conv4, 64x64 images", ""], list(found.items()), right=True)

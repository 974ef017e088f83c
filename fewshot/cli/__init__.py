"""The command line: parsing and printing only. Commands load the heavy modules they need.

Exit codes: 0 done; 2 wrong option or combination; 3 plugin; 4 data; 5 run folder or classifier
file; 6 training; 7 a law broken; 130 interrupted; 1 anything else, a failed `doctor` too.
"""

import re
import signal
import sys
from contextlib import suppress
from traceback import walk_tb
from typing import Any

import click

from ..core.errors import FewshotError, OutputError, PluginError, one_line, text_of
from . import (
    authors,
    catalogue,
    data,
    doctor,
    enrolling,
    files,
    predicting,
    runs,
    searches,
    serving,
    studies,
)
from .terminal import echo, replace_what_cannot_be_encoded, unwritten, written

# Flags that other tools have, by the setting that is meant.
_SETTINGS = {
    "--lr": "training.learning_rate",
    "--learning-rate": "training.learning_rate",
    "--epochs": "training.steps",
    "--size": "dataset.size",
    "--image-size": "dataset.size",
    "--patience": "training.patience",
    "--n-query": "evaluation.n_query",
    "--episodes": "evaluation.episodes",
    "--batch-size": "sampler.per_class=… and --set sampler.classes",
}
# What MLX raises on Metal and CUDA.
_NO_MEMORY = re.compile(r"unable to allocate|(out ?of|insufficient) ?memory", re.IGNORECASE)


def main() -> None:
    """The command `fewshot`: errors end in one line and their exit code, never a traceback."""
    with suppress(ValueError):  # only the first thread may
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    replace_what_cannot_be_encoded()
    try:
        code = commands.main(standalone_mode=False)
    except FewshotError as error:
        echo(f"Error: {error}", err=True)
        code = error.exit_code
    except click.NoSuchOption as error:
        setting = _SETTINGS.get(error.option_name)
        said = f"No such option '{error.option_name}': that is --set {setting}=…"
        echo(f"Error: {said if setting else error.format_message()}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        echo(f"Error: {error.format_message()}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        where = error.__cause__ or error  # click's Abort, of a KeyboardInterrupt
        echo(f"Interrupted {text_of(where)}".strip() + ".", err=True)
        code = 130
    except BaseException as error:
        code = _unforeseen(error)
    sys.exit(written(code or 0))


def _unforeseen(error: BaseException) -> int:
    """The exit code of an error that is none of ours, told in a line; else it is raised again."""
    from ..catalogue.loading import fault_of_plugin

    if isinstance(error, BrokenPipeError):
        return written(0)
    if isinstance(error, OSError):
        if code := written(0):  # it was output that failed
            return code
        *_, (frame, _) = walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == "click.utils":  # so it was, of a help text
            echo(f"Error: {unwritten(error)}", err=True)
            return OutputError.exit_code
    fault = fault_of_plugin(error)
    if fault is not None:
        echo(f"Error: {fault}", err=True)
        return fault.exit_code
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))
    ):
        said = f"out of memory: {text_of(error)}".strip(": ")
        echo(
            f"Error: {said}; smaller batches (`fewshot show sampler NAME` has their options), "
            "smaller images (--set dataset.size=…) or, in an evaluation, less at once "
            "(--set evaluation.memory=…)",
            err=True,
        )
        return 1
    raise error


class WithPlugins(click.Group):
    """A group to which installed distributions add commands, imported when called or listed."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A built-in, else a plugin's; PluginError where that cannot be loaded."""
        own = super().get_command(context, name)
        if own is not None:
            return own
        from ..catalogue.installed import commands, contained, name_of

        point = commands(self.commands)[0].get(name)
        if point is None:
            return None
        origin = f"command '{name}' from {name_of(point.dist)} ({point.value})"
        try:
            with contained():
                loaded: Any = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module may even call sys.exit
            raise PluginError(f"{origin} failed to load: {one_line(error)}") from error
        if not isinstance(loaded, click.Command):
            raise PluginError(f"{origin} is no click command: {loaded!r}")
        return loaded

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The built-ins, then plugins' commands with their distributions, all with their help."""
        super().format_commands(context, formatter)
        from ..catalogue.installed import commands, name_of

        rows = []
        for name, point in commands(self.commands)[0].items():
            try:
                command = self.get_command(context, name)
                said = command.get_short_help_str() if command is not None else ""
            except PluginError:
                said = "It fails to load."
            rows.append((name, f"{said} (from {name_of(point.dist)})".lstrip()))
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)


@click.group(cls=WithPlugins, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fewshot", message="fewshot %(version)s")
def commands() -> None:
    """Few-shot image classification on MLX: train, evaluate and compare any parts.

    \b
    fewshot run                    train and test on what a plugin offers to start with
    fewshot run --data FOLDER      on your own images, one folder a class
    fewshot enrol RUN FOLDER -o F  a classifier of your own classes, from a few images of each
    fewshot predict F IMAGES       what it makes of images
    fewshot list                   what there is to choose from
    """


for module in (
    runs, studies, searches, enrolling, predicting, serving, data, files, catalogue, authors,
    doctor,
):  # fmt: skip
    for command in module.COMMANDS:
        commands.add_command(command)

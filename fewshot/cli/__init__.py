"""The command line: parsing and printing only. Commands load the heavy modules they need.

Exit codes: 0 done; 2 wrong option or combination; 3 plugin (with --strict-plugins); 4 data; 5 run
folder; 6 training; 130 interrupted; 1 anything else, a failed `doctor` too.
"""

import sys

import click

from ..errors import FewshotError
from . import machine, parts, runs, searches


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


for module in (runs, searches, parts, machine):
    for command in module.COMMANDS:
        commands.add_command(command)

"""The observer PLUGIN_NAME: every record as a row of a table."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from fewshot import Component, Observer, hookimpl, option


@frozen
class Options:
    """Options of the observer."""

    file: str = option("PLUGIN_NAME.csv", "its name in the run folder")


def observer(options: Options) -> Observer:
    """A file of comma-separated values, whole when the run has ended."""
    records: list[Mapping[str, Any]] = []
    paths: list[Path] = []

    def start(folder: Path, config: Mapping[str, Any]) -> None:
        paths.append(folder / options.file)

    def end(results: Mapping[str, Any] | None) -> None:
        columns = list(dict.fromkeys(name for row in records for name in row))
        with paths.pop().open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(records)
        records.clear()

    return Observer(start, records.append, end)


@hookimpl
def fewshot_observers() -> list[Component]:
    return [Component("PLUGIN_NAME", observer, Options, "records as a table")]

"""The command: measures rows, prints a table, writes results.json and, if asked, the page."""

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from . import step
from .settings import FULL, QUICK, TINY, Settings
from .sides import Result, Skipped

ROWS: dict[str, Callable[[Settings], Result]] = {
    "step": step.measure,
    "step-stock": step.measure_stock,
}


def main() -> None:
    for name, f in ROWS.items():
        try: print(name, f(QUICK))
        except Skipped as e: print(name, e)

"""The command: measures rows, prints the table, writes results.json, pictures and the page."""

import argparse
import datetime
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from . import accuracy_time, embed, episodes, index, jpeg, latency, memory, report, scaling, step
from .settings import FULL, QUICK, TINY, Settings
from .sides import ROOT, Result, SkippedError, side

ROWS: dict[str, Callable[[Settings], Result]] = {
    "step": step.measure,
    "step-stock": step.measure_stock,
    "jpeg": jpeg.measure,
    "episodes": episodes.measure,
    **{f"head-{head}": partial(episodes.measure_head, head=head) for head in episodes.HEADS},
    "embed": embed.measure,
    "latency": latency.measure,
    "latency-k": latency.measure_growth,
    "memory": memory.measure,
    "index": index.measure,
    "accuracy-time": accuracy_time.measure,
    "scaling": scaling.measure,
}

SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"


def main() -> None:
    arguments = _arguments()
    size = "tiny" if arguments.tiny else "quick" if arguments.quick else "full"
    settings = attrs.evolve(SIZES[size], photos=arguments.photos)
    with side("machine:describe") as part:
        machine = part.facts
    console = Console(stderr=True, highlight=False)
    measured: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    kept = arguments.out / "results.json"
    records = json.loads(kept.read_text()) if kept.exists() else {}
    for name in arguments.only or ROWS:
        console.print(f"{name} …", markup=False)
        try:
            result = ROWS[name](settings)
        except SkippedError as why:
            skipped[name] = str(why)
            continue
        measured[name] = {
            "result": attrs.asdict(result),
            "size": size,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine,
        }
        records = {row: (records | measured)[row] for row in ROWS if row in records | measured}
        arguments.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(records, indent=1) + "\n")  # after every row: some take long
    report.table(measured, skipped)
    if measured:
        report.pictures(measured, arguments.out)
        console.print(f"figures of every round in {kept}", markup=False, soft_wrap=True)
    if arguments.write == "docs":
        beside = PAGE.with_suffix("")
        drawn = report.pictures(records, beside)
        missing = {name: why for name, why in skipped.items() if name not in records}
        PAGE.write_text(report.page(records, beside, drawn, missing))
        console.print(f"wrote {PAGE.relative_to(ROOT)}", markup=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="How fast fewshot is, against its peers."
    )
    parser.add_argument(
        "--only", action="append", choices=ROWS, metavar="ROW",
        help=f"measure this row; may be repeated: {', '.join(ROWS)}",
    )  # fmt: skip
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument("--quick", action="store_true", help="few short rounds, fewer files")
    shorter.add_argument("--tiny", action="store_true", help="that everything works, no figures")
    photos = os.environ.get("FEWSHOT_ASL_DATA")
    parser.add_argument(
        "--photos", type=Path, default=Path(photos) if photos else None,
        help="the ASL photos, else the environment variable FEWSHOT_ASL_DATA",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results",
        help="folder of results.json and pictures; rows measured earlier are kept there",
    )  # fmt: skip
    parser.add_argument(
        "--write", choices=["docs"], help="write docs/reference/benchmarks.md and its pictures"
    )
    return parser.parse_args()

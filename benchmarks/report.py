"""The table on the screen, the page in the documents, the pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich import box
from rich.console import Console
from rich.table import Table

mpl.use("Agg")  # draws into files, wherever it runs

import matplotlib.pyplot as plt

Records = Mapping[str, Mapping[str, Any]]

HEADER = ("row", "fewshot", "peer", "ratio", "lowest–highest", "against")


def _cells(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    result = record["result"]
    ratio = result["ratio"]
    if ratio is None:
        middle, spread = "", ""
    else:
        unit = "x" if ratio["of"] == "speed" else "x the time"
        middle = f"{ratio['median']:.2f} {unit}"
        spread = f"{ratio['low']:.2f}–{ratio['high']:.2f}" if ratio["rounds"] > 1 else "one round"
    return name, result["ours"], result["peer"], middle, spread, result["against"]


def table(records: Records, skipped: Mapping[str, str]) -> None:
    """Print it, what is measured and against whom below it."""
    drawn = Table(*HEADER[:-1], box=box.SIMPLE)
    for name, record in records.items():
        drawn.add_row(*_cells(name, record)[:-1])
    console = Console(highlight=False)
    console.print(drawn)
    for name, record in records.items():
        result = record["result"]
        against = f"against {result['against']}" if result["against"] else ""
        parts = [part for part in (result["what"], against, result["note"]) if part]
        console.print(f"{name}: {'; '.join(parts)}", markup=False)
    for name, why in skipped.items():
        console.print(f"{name}: skipped, {why}", markup=False)


def pictures(records: Records, folder: Path) -> list[Path]:
    """Ratios of speed in one picture, and one for every curve of the scaling row."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    speeds = {
        name: record["result"]["ratio"]
        for name, record in records.items()
        if record["result"]["ratio"] is not None and record["result"]["ratio"]["of"] == "speed"
    }
    if speeds:
        drawn.append(_ratios(speeds, folder / "ratios.png"))
    if "scaling" in records:
        for name, curve in records["scaling"]["result"]["figures"].items():
            drawn.append(_curve(curve, folder / f"scaling-{name}.png"))
    return drawn


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def _ratios(speeds: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6, 0.6 + 0.4 * len(speeds)))
    for y, ratio in enumerate(speeds.values()):
        axes.plot([ratio["low"], ratio["high"]], [y, y], color="tab:blue", linewidth=2)
        axes.plot(ratio["median"], y, "o", color="tab:blue")
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xscale("log")
    marks = [mark * 10**power for power in range(-2, 4) for mark in (1, 2, 5)]
    low, high = axes.get_xlim()
    inside = [mark for mark in marks if low <= mark <= high]
    axes.set_xticks(inside, [f"{mark:g}" for mark in inside])
    axes.minorticks_off()
    axes.set_yticks(range(len(speeds)), list(speeds))
    axes.set_ylim(len(speeds) - 0.5, -0.5)
    axes.set_xlabel("speed of fewshot / speed of the peer (median, lowest to highest round)")
    return _save(figure, path)


def _curve(curve: Mapping[str, Any], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(4.5, 3))
    sizes, times = curve["sizes"], curve["seconds"]
    axes.loglog(sizes, times, "o-", label="measured")
    falls = curve["label"].startswith("cores")
    ideal = [times[0] * (sizes[0] / s if falls else s / sizes[0]) for s in sizes]
    axes.loglog(sizes, ideal, ":", color="grey", label="in proportion")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_yticks(times, [f"{seconds:.2g}" for seconds in times])
    axes.minorticks_off()
    axes.set_xlabel(curve["label"])
    axes.set_ylabel("seconds")
    axes.legend()
    return _save(figure, path)


def page(records: Records, pictures_in: Path, drawn: list[Path], missing: Mapping[str, str]) -> str:
    """The Markdown page; picture paths relative to it."""
    days = sorted({record["date"] for record in records.values()})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    sizes = sorted({record["size"] for record in records.values()} - {"full"})
    lines = [
        "# Benchmarks",
        "",
        f"Measured {when} with `python -m benchmarks --write docs`, which wrote this page. Each "
        "ratio is of two processes that took turns in the same run, the median of the rounds; "
        "above 1 x, fewshot is faster. How each row is measured, and why that is fair: "
        "`benchmarks/README.md`.",
        "",
    ]
    if sizes:
        lines += [f"Some rows were measured at a reduced size ({', '.join(sizes)}).", ""]
    lines += _markdown(HEADER, [_cells(name, record) for name, record in records.items()])
    lines += [""]
    for name, record in records.items():
        result = record["result"]
        parts = [result["what"], result["note"]]
        if result["checked"]:
            parts.append(f"checked: {', '.join(result['checked'])}")
        lines.append(f"- **{name}**: {'; '.join(part for part in parts if part)}.")
    lines += [f"- **{name}**: not measured, {why}." for name, why in missing.items()]
    lines += ["", "## Where", ""]
    seen: list[Any] = []
    for record in records.values():
        if record["machine"] not in seen:
            seen.append(record["machine"])
    for machine in seen:
        rows = [name for name, record in records.items() if record["machine"] == machine]
        facts = {k: v for k, v in machine.items() if k != "versions"} | machine["versions"]
        if len(seen) > 1:
            lines += [f"Rows {', '.join(rows)}:", ""]
        lines += [*_markdown(("", ""), [(str(k), str(v)) for k, v in facts.items()]), ""]
    if drawn:
        lines += ["## Pictures", ""]
        lines += [f"![{path.stem}]({pictures_in.name}/{path.name})" for path in drawn]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(header), line(("---",) * len(header)), *map(line, rows)]

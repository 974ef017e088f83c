"""`python -m fewshot_omniglot`: error on the official one-shot runs."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy import stats

import fewshot as fs

from .characters import OmniglotOptions
from .files import omniglot_path
from .hausdorff import hausdorff_error
from .runs import one_shot_runs

PUBLISHED = """published, error over all twenty runs:
 4.5 %  people                                      Lake et al. 2015
 3.3 %  BPL, with strokes                           Lake et al. 2015
 8.0 %  Siamese network, with distortions           Koch et al. 2015
13.5 %  ConvNet (24.0, 22.3 from small sets 1, 2)   Lake et al. 2015, 2019
38.8 %  modified Hausdorff distance                 Lake et al. 2015"""


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, or the exit code of what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fewshot_omniglot",
        description="Error on Omniglot's official 20-way one-shot runs: of the modified Hausdorff "
        "distance, which tests the protocol itself, and of trained networks.",
    )
    parser.add_argument(
        "path", nargs="?", default="", help="all_runs.zip or where it is; else what was fetched"
    )
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        type=Path,
        help="a run folder of `fewshot run`; may be repeated",
    )
    given = parser.parse_args(arguments)
    try:
        _print(omniglot_path(given.path), given.run)
    except fs.FewshotError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _print(path: Path, folders: list[Path]) -> None:
    """A line for each official run as its errors are known, then the means."""
    fs.prepare()  # before anything loads MLX
    dataset, episodes = one_shot_runs(path, size=105)
    networks = [network_errors(folder, path) for folder in folders]
    titles = ["Hausdorff", *map(str, folders)]

    def line(first: str, cells: Iterable[str]) -> None:
        print(
            f"{first:5}", *(f"{c:>{len(t)}}" for c, t in zip(cells, titles, strict=True)), sep="  "
        )

    line("", titles)
    rows = []
    for name, episode in episodes.items():
        rows.append([hausdorff_error(dataset, episode), *(errors[name] for errors in networks)])
        line(name, map("{:.1%}".format, rows[-1]))
        sys.stdout.flush()
    mean = np.mean(rows, axis=0)
    line("mean", map("{:.1%}".format, mean))
    if len(rows) > 1:  # Student's t over the runs
        half = stats.t.ppf(0.975, len(rows) - 1) * stats.sem(rows)
        line("95 %", map("±{:.1%}".format, half))
    print(f"\n{PUBLISHED}")


def network_errors(folder: Path, path: Path) -> dict[str, float]:
    """Share of wrong answers in each official run, with a run's own network, metric and head."""
    parts = fs.trained(folder, fs.build_registry()[0])
    options = parts.config.dataset.options
    if not isinstance(options, OmniglotOptions):
        raise fs.ConfigError(
            f"{folder} was trained on {parts.config.dataset.name}, not on Omniglot"
        )
    dataset, episodes = one_shot_runs(path, options.size, options.invert, options.frame)
    rows = fs.embed(parts.embedder, dataset)
    return {
        name: float(
            np.mean(fs.predict(rows, episode, parts.head, parts.metric) != episode.query_labels)
        )
        for name, episode in episodes.items()
    }


if __name__ == "__main__":
    sys.exit(main())

"""Which backbone, with which head, for which images: `python -m fewshot_pretrained.measure`."""

from __future__ import annotations  # or MLX would be loaded before it is made fast

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from attrs import fields_dict, frozen
from numpy.typing import NDArray
from PIL import Image

import fewshot as fs

BACKBONES = ("efficientnet-lite0", "mobilenet-v2")

CORNERED = "`lda`, corners"  # as the preset `photos`

SHOWN = "K = 5"  # where all data sets stand together

# What a page has by hand ends here.
MARK = "<!-- measured -->\n"


@frozen(eq=False)
class Few:
    """At most so many images of each class of a data set, evenly from all of them, in colour."""

    whole: fs.Dataset
    rows: fs.Ints
    labels: fs.Ints
    classes: tuple[str, ...]
    groups: fs.Ints | None
    size: int

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image = self.whole[int(self.rows[index])]
        colour = np.broadcast_to(image, (*image.shape[:2], 3))
        if len(colour) == self.size:
            return colour
        scaled = Image.fromarray(colour).resize((self.size, self.size), Image.Resampling.BICUBIC)
        return np.asarray(scaled)


def few(whole: fs.Dataset, size: int, most: int | None) -> Few:
    """`most` images of a class, or all where it has fewer, of size x size pixels."""
    of_class = (np.flatnonzero(whole.labels == c) for c in range(len(whole.classes)))
    chosen = [
        rows[
            np.linspace(0, len(rows), min(most or len(rows), len(rows)), endpoint=False).astype(int)
        ]
        for rows in of_class
    ]
    rows = np.concatenate(chosen)
    groups = None if whole.groups is None else whole.groups[rows]
    return Few(whole, rows, whole.labels[rows], whole.classes, groups, size)


def opened(name: str, path: str, size: int, interpolation: str = "area") -> fs.Dataset:
    """The data set of that name, where a plugin has one, else a folder of one's own images.

    `interpolation`: how image files are scaled.
    """
    registry = fs.build_registry()[0]
    known = name in registry.names("dataset")
    component = registry.get("dataset", name if known else "image-folder").component
    given = {"size": size} | ({"path": path} if path else {})
    if "interpolation" in fields_dict(component.options):
        given["interpolation"] = interpolation
    return component.factory(component.options(**given))


def heads() -> dict[str, tuple[fs.Head, bool]]:
    """Those that are compared, and whether the corners of support images are support, too."""
    return {
        "`nearest-prototype`": (fs.nearest_prototype(), False),
        "`ridge`": (fs.ridge(), False),
        "`logistic`": (fs.logistic(), False),
        "`lda`": (fs.lda(), False),
        CORNERED: (fs.lda(), True),
    }


def questions() -> tuple[fs.EvaluationOptions, ...]:
    """What is asked: all classes enrolled and the rest asked, and standard episodes.

    Of 10 queries a class: Omniglot's classes have 20 drawers, and half of these may be support.
    """
    return (
        fs.EvaluationOptions(k_shot=(1, 5, 10), repeats=10),
        fs.EvaluationOptions(k_shot=(5,), n_way=(5,), n_query=10, episodes=600),
    )


def drawn(
    data: fs.Dataset, asked: Iterable[fs.EvaluationOptions]
) -> dict[str, list[fs.EpisodeBlock]]:
    """The episodes on all classes, by what is asked. Raises DataError for a class too small."""
    split = fs.ClassSplit((), (), data.classes)
    return {
        f"{s.n_way}-way {s.k_shot}-shot" if s.n_way else f"K = {s.k_shot}": blocks
        for options in asked
        for s, blocks in fs.k_shot_episodes(data, split, options).items()
    }


def table(found: Mapping[tuple[str, str], Mapping[str, fs.Evaluation]]) -> Iterator[str]:
    """Of networks and heads: accuracies in % and half the width of their intervals."""
    titles = ["backbone", "head", *next(iter(found.values()))]
    yield f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}"
    for names, cells in found.items():
        ends = [(cell.accuracy, cell.ci95[1] - cell.ci95[0]) for cell in cells.values()]
        shown = [f"{100 * mean:.1f} ± {50 * width:.1f}" for mean, width in ends]
        yield f"| {' | '.join([*names, *shown])} |"


def measured(
    sources: Sequence[tuple[str, str]], most: Mapping[str, int], backbones: Sequence[str]
) -> Iterator[str]:
    """The tables, line by line: the networks, a table for each data set, all together."""
    busy = os.getloadavg()[0] > fs.cores() + 1
    cornered = {"embedding": {"crops": "support"}}
    networks = {
        name: fs.Classifier.blank([{"backbone": _told(name), **cornered}]) for name in backbones
    }
    yield "| backbone | numbers | MB of weights | images/s |\n| --- | --- | --- | --- |"
    for name, each in networks.items():
        assert each.recipe is not None
        megabytes = sum(array.nbytes for array in each.recipe.weights.values()) / 1e6
        rate = fs.embedding_speed(each.embedder, each.shape).batch_images_per_second
        fast = "the machine was busy" if busy else f"{rate:.0f}"
        yield f"| `{name}` | {each.embedder.backbone.embedding_dim} | {megabytes:.1f} | {fast} |"
    largest = max(each.shape[0] for each in networks.values())
    # A class too small is told now, not after minutes.
    tasks = {
        source: drawn(few(opened(source, path, largest), largest, most.get(source)), questions())
        for source, path in sources
    }
    together: dict[str, list[str]] = {}
    for source, path in sources:
        embedded: dict[str, tuple[NDArray[np.float32], fs.Ints | None]] = {}
        for name, each in networks.items():
            print(f"{source}: {name}", file=sys.stderr, flush=True)
            size = each.shape[0]
            opening = opened(source, path, size, each.reading.interpolation)
            data = few(opening, size, most.get(source))
            blocks = chain.from_iterable(tasks[source].values())
            every = np.arange(len(data.labels))
            embedded[f"`{name}`"] = fs.embed_task(each.embedder, data, every, blocks)
        embedded["raw pixels"] = fs.raw_pixels(data, np.arange(len(data.labels))), None
        found = {
            (name, head_name): {
                title: fs.evaluate(
                    rows,
                    blocks,
                    head,
                    fs.euclidean(),
                    data.classes,
                    crops=crops if corners else None,
                )
                for title, blocks in tasks[source].items()
            }
            for name, (rows, crops) in embedded.items()
            for head_name, (head, corners) in heads().items()
            if crops is not None or not corners
        }
        yield f"\n## {source}\n\n{len(data.labels):,} images of {len(data.classes)} classes.\n"
        yield from table(found)
        at = SHOWN if SHOWN in tasks[source] else next(iter(tasks[source]))
        for name in embedded:
            best = CORNERED if (name, CORNERED) in found else "`lda`"
            share = found[name, best][at].accuracy
            together.setdefault(name, []).append(f"{100 * share:.1f}")
    yield f"\n## All together\n\n{CORNERED} (raw pixels: without), at {at}, in %.\n"
    yield f"| backbone | {' | '.join(source for source, _ in sources)} |"
    yield f"|{' --- |' * (1 + len(sources))}"
    for name, shares in together.items():
        yield f"| {name} | {' | '.join(shares)} |"


def _told(text: str) -> dict[str, str]:
    """ "NAME OPTION=VALUE …" as a section of a configuration."""
    name, *options = text.split()
    return {"name": name, **dict(each.split("=", 1) for each in options)}


def _number(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, or the exit code of what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m fewshot_pretrained.measure",
        description="Accuracy of networks and heads on data sets, as tables in Markdown.",
    )
    parser.add_argument(
        "data", nargs="+", metavar="NAME[=PATH]", help="a data set, or a folder of images by class"
    )
    parser.add_argument(
        "--most",
        action="append",
        default=[],
        type=_number,
        metavar="NAME=N",
        help="images of each class",
    )
    parser.add_argument(
        "--backbone",
        action="append",
        metavar="'NAME OPTION=VALUE'",
        help="a network, with options or without; repeatable",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"below its {MARK.strip()}")
    given = parser.parse_args(arguments)
    fs.prepare()  # before anything loads MLX
    sources = [(name, path) for name, _, path in (each.partition("=") for each in given.data)]
    lines = []
    try:
        by_hand = given.write.read_text(encoding="utf-8").partition(MARK)[0] if given.write else ""
        for line in measured(sources, dict(given.most), given.backbone or BACKBONES):
            print(line, flush=True)
            lines.append(line)
        if given.write:
            given.write.write_text("\n".join([by_hand + MARK, *lines, ""]), encoding="utf-8")
    except OSError as error:
        parser.error(str(error))
    except fs.FewshotError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Commands that use a classifier: its answers, and its network for other programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.wording import escaped
from .classifiers import (
    images_of,
    load,
    progress_of,
    tell_engine,
    tell_notes,
    with_engine,
    with_limit,
)
from .options import engine, max_pixels, without_adapter
from .terminal import columns, echo, print_table, printable

if TYPE_CHECKING:
    from ..core.errors import DataError
    from ..deploy.labelled import Tally
    from ..deploy.support import Prediction
    from ..engine.inference import Name

_COLUMNS = 80  # where nobody watches
_LABEL = 38  # of these for a label, at the most
_NAME = 12  # and for the end of a file's name, at the least
_NEAREST = 3  # support images of an answer
_CONFUSIONS = 10  # the most frequent are told


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE|FOLDER|-...", nargs=-1, required=True)
@click.option("--threshold", type=float, help="Distance beyond which an image is unknown.")
@click.option(
    "--nearest",
    type=click.IntRange(0),
    help="How many of the nearest support images to name below an answer; by default none, and 3 "
    "in --json and --save-html.",
)
@engine
@max_pixels
@click.option("--together", is_flag=True, help="All images are one task, asked at once.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each image.")
@click.option("--save-html", type=click.Path(path_type=Path), help="A page with pictures.")
@click.option(
    "--labelled", is_flag=True, help="Folders are named for the classes: count the right."
)
def predict(
    file: Path,
    images: tuple[str, ...],
    threshold: float | None,
    nearest: int | None,
    engine: Name,
    max_pixels: int,
    together: bool,
    as_json: bool,
    save_html: Path | None,
    labelled: bool,
) -> None:
    """The class of images, or "unknown": files, all images in folders, or names from stdin (-).

    Images that cannot be used are named in their place, the rest is answered, and the exit code
    is 4. With --labelled the folder that an image lies in says what it is: wrong answers are
    marked and counted at the end, class by class; they do not change the exit code.
    """
    from attrs import evolve

    from ..core.errors import DataError
    from ..core.files import refuse_input

    classifier = with_limit(load(file), max_pixels)
    if file.is_dir():
        way_out = f"fewshot enrol {file} FOLDER -o my.fewshot, and give that file"
        raise DataError(f"{file}: a run, in which no class is enrolled yet: {way_out}")
    from ..deploy.gallery import gallery
    from ..deploy.labelled import is_right, tally, truth_of

    if threshold is not None:
        classifier = evolve(classifier, threshold=threshold)
    unreadable: list[str] = []
    listed: Iterable[str] = chain.from_iterable(_named(each, unreadable) for each in images)
    total = 0
    if "-" not in images:
        listed = list(listed)
        total = len(listed)
    classifier, known = with_engine(classifier, engine), {*classifier.classes}
    refuse_input(save_html, [file, *(listed if total else ())])
    names, asked = tee(listed)
    answers = classifier.stream(asked, _NEAREST if nearest is None else nearest, together)
    bad = done = 0
    told: list[tuple[str, str | None]] = []
    with ExitStack() as stack:
        progress = stack.enter_context(progress_of(0 if sys.stdout.isatty() else total))
        add: Any = None
        if save_html is not None:
            roots = [name for name in images if os.path.isdir(name)]  # noqa: PTH112
            page = gallery(save_html, classifier, f"{file.name}: answers", roots)
            add = stack.enter_context(page).add
        if not as_json:
            width = min(_LABEL, len("unknown, nearest ") + max(map(len, classifier.classes)))
            sure = classifier.calibration() is not None
            echo(_columns("", "label", "sure", "distance", width, sure, labelled) + "image")
        for done, (name, answer) in enumerate(zip(names, answers, strict=False), start=1):
            bad += isinstance(answer, DataError)
            if not total:
                refuse_input(save_html, [name])
            truth, wrong = truth_of(name, known) if labelled else None, False
            if truth is not None and not isinstance(answer, DataError):
                told.append((truth, answer.label))
                wrong = not is_right(truth, answer, classifier.classes)
            if as_json:
                echo(_json(name, answer, truth, wrong))
            elif isinstance(answer, DataError):
                echo(str(answer), err=True)
            else:
                start = _figures(answer, wrong, width, sure, labelled)
                echo(_line(start, name, columns()))
                for line in _near(answer, nearest or 0, columns()):
                    echo(line)
            if add is not None:
                add(printable(name), answer, truth)
            progress("predicting", done, total, "", "")
    tell_engine(classifier)
    bad, done = bad + len(unreadable), done + len(unreadable)
    if not done:
        raise DataError(f"no image in {', '.join(images)}")
    if told:
        _print_tally(tally(told, classifier.classes), as_json)
    if bad:
        rest = "; the rest is answered" if bad < done else ""
        raise DataError(f"{bad} of {images_of(done, unreadable)} could not be used{rest}")


def _named(argument: str, unreadable: list[str]) -> Iterator[str]:
    """The image files that an argument stands for; folders that may not be read are added."""
    from ..data.walk import walk

    if argument == "-":
        lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
        return filter(None, lines)
    if os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir raises where it may not look
        found = walk(Path(argument))
        tell_notes(found.notes())
        unreadable += found.unreadable
        return map(str, found.top.below())
    return iter([argument])


def _columns(
    mark: str, label: str, sure: str, distance: str, width: int, calibrated: bool, labelled: bool
) -> str:
    """What stands before an image's path; a column that says nothing is left out."""
    first = f"{mark:5} " if labelled else ""
    return f"{first}{label:{width}} {f'{sure:>5} ' if calibrated else ''}{distance:>8}  "


def _figures(answer: Prediction, wrong: bool, width: int, calibrated: bool, labelled: bool) -> str:
    """An answer's columns. How sure it is speaks of a class that was named, not of "unknown"."""
    label = answer.label or f"unknown, nearest {answer.best}"
    label = label if len(label) <= width else f"{label[: width - 1]}…"
    sure = ""
    if answer.label is not None and answer.confidence is not None:
        sure = f"{answer.confidence:.0%}"
    mark, distance = "wrong" * wrong, f"{answer.distance:.3g}"
    return _columns(mark, label, sure, distance, width, calibrated, labelled)


def _line(line: str, name: str, most: int | None) -> str:
    """An answer, with as much of its image's path as `most` columns hold; None: all of it."""
    room = len(name) if most is None else max(most - len(line), _NAME)
    return line + (name if len(name) <= room else f"…{name[1 - room :]}")


def _near(answer: Prediction, count: int, most: int | None) -> Iterator[str]:
    """The nearest support images, whole, as many in a line as `most` columns hold."""
    line = ""
    for each in answer.nearest[:count]:
        said = f"{each.label}/{each.name} {each.distance:.3g}"
        if line and len(f"{line}, {said}") > (most or _COLUMNS):
            yield f"{line},"
            line = ""
        line = f"{line}, {said}" if line else f"    {said}"
    if line:
        yield line


def _json(name: str, answer: Prediction | DataError, truth: str | None, wrong: bool) -> str:
    from ..core.errors import DataError

    if isinstance(answer, DataError):
        return json.dumps({"image": escaped(name), "error": str(answer)})
    beside = {} if truth is None else {"truth": truth, "right": not wrong}
    return json.dumps(answer.facts() | beside)


def _print_tally(found: Tally, as_json: bool) -> None:
    """How many are right, class by class, and what was taken for what."""
    if as_json:
        echo(json.dumps({"labelled": found.facts()}))
        return
    rows = [
        [
            name if name not in found.not_enrolled else f"{name} (not enrolled)",
            f"{each.right} of {each.asked}",
            str(each.unknown or ""),
        ]
        for name, each in found.per_class.items()
    ]
    print_table(["class", "right", "unknown"], rows)
    for truth, label, times in found.confusions[:_CONFUSIONS]:
        echo(f"{truth} taken for {label}: {times}")
    if len(found.confusions) > _CONFUSIONS:
        echo(f"and {len(found.confusions) - _CONFUSIONS} pairs more")
    rightly = sum(found.per_class[name].right for name in found.not_enrolled)
    unknown = found.unknown + rightly
    echo(f"{found.right} of {found.asked} right, {unknown} unknown")
    if found.not_enrolled:
        names = ", ".join(found.not_enrolled)
        echo(f"not enrolled, so that unknown is right, as {rightly} times: {names}", err=True)


@click.command()
@click.argument("source", metavar="FILE|RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=".onnx or .mlxfn")
@without_adapter
def export(source: Path, out: Path, without_adapter: bool) -> None:
    """The embedding network for other programs: ONNX, or a function for MLX."""
    from ..core.files import refuse_input

    refuse_input(out, [source])
    classifier = load(source, without_adapter)
    from ..deploy.export import BATCHES, export

    error = export(classifier, out)
    height, width, channels = classifier.shape
    batch = "any number" if out.suffix == ".onnx" else " or ".join(map(str, BATCHES))
    echo(
        f"{out}: {batch} of images {height}x{width}x{channels}, float32 in [0, 1], channels last, "
        f"to embeddings, without the head; differs by {error:.0e} at the most"
    )


COMMANDS = (predict, export)

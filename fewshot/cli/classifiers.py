"""Commands that make a classifier of one's own classes and use it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import engine, flag_layer, max_pixels, settings, topmost, without_adapter
from .terminal import (
    columns,
    echo,
    fast_mlx,
    load_registry,
    print_table,
    printable,
    showing_progress,
    tell_unfinished,
)

if TYPE_CHECKING:
    from ..core.errors import DataError
    from ..core.progress import Progress
    from ..data.images import Picture
    from ..deploy.classifier import Classifier
    from ..deploy.labelled import Tally
    from ..deploy.support import Prediction
    from ..engine.inference import Name

_BATCH = 128  # images embedded at once
_READ = 16  # images read before the next progress is shown
_COLUMNS = 80  # where nobody watches
_LABEL = 38  # of these for a label, at the most
_NAME = 12  # and for the end of a file's name, at the least
_CONFUSIONS = 10  # the most frequent are told


@click.command()
@click.argument("source", metavar="[RUN|FILE]", required=False, type=click.Path(path_type=Path))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.")
@click.option("--backbone", metavar="NAME", help="A network with weights, in place of a run.")
@click.option("--metric", metavar="NAME", help="Distance, with --backbone.")
@click.option("--head", metavar="NAME", help="Few-shot classifier, with --backbone; else lda.")
@click.option("--preset", metavar="NAME", help="A preset that names a network with weights.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file that names one.")
@settings
@click.option("--classes", type=click.Path(path_type=Path), help="A file of names, one a line.")
@click.option("--remove", metavar="CLASS", multiple=True, help="Take a class out.")
@click.option("--threshold", type=float, help="Distance beyond which an image is unknown.")
@click.option("--leaves", is_flag=True, help="Each folder with images directly in it is a class.")
@click.option("--show", is_flag=True, help="Show what is in the file.")
@without_adapter
@engine
@max_pixels
def enrol(
    source: Path | None,
    folder: Path | None,
    out: Path | None,
    classes: Path | None,
    remove: tuple[str, ...],
    threshold: float | None,
    leaves: bool,
    show: bool,
    without_adapter: bool,
    engine: Name,
    max_pixels: int,
    **named: Any,
) -> None:
    """Make a classifier of your own classes: FOLDER has a folder of images for each.

    \b
    fewshot enrol --backbone NAME FOLDER -o my.fewshot  a network as it comes, no run
    fewshot enrol runs/0001 FOLDER -o my.fewshot        from a trained run
    fewshot enrol --backbone NAME --classes names.txt -o my.fewshot  names alone, for one with text
    fewshot enrol my.fewshot FOLDER                     more images or classes
    fewshot enrol my.fewshot --remove CLASS             one class less
    fewshot enrol my.fewshot --show                     what is in it

    A file is changed in place unless -o names another. Images that cannot be used are named, and
    the rest is enrolled. An adapter is not applied: a run with one is refused.
    """
    from attrs import evolve

    from ..core.errors import DataError, OutputError

    made = any(named[name] is not None for name in ("backbone", "preset", "config"))
    if made and folder is not None:
        raise click.UsageError(f"a network is named, or of {source}: not both")
    if made:
        source, folder = Path(), source
    elif source is None:
        raise click.UsageError("Missing argument '[RUN|FILE]': what classes are enrolled in")
    elif named["metric"] or named["head"] or named["settings"]:
        raise click.UsageError("--metric, --head and --set go with --backbone NAME")
    if folder is None and classes is None and not remove and threshold is None and not show:
        raise click.UsageError(
            "nothing to do: name a FOLDER of images, --classes, --remove or --show"
        )
    changes = folder is not None or classes is not None or bool(remove) or threshold is not None
    if changes and out is None and source.is_dir():
        raise click.UsageError("a new classifier wants a file: -o my.fewshot")
    if out is not None and out.exists() and out.resolve() != source.resolve():
        raise OutputError(f"{out} exists: name another, or change it: fewshot enrol {out} …")
    if made:
        classifier = _of_names(named, without_adapter, names_alone=folder is None)
    else:
        classifier = _load(source, without_adapter)
    classifier = _with_limit(classifier, max_pixels)

    def reduced(classifier: Classifier) -> Classifier:
        for name in remove:
            classifier = classifier.remove(name)
        return classifier if threshold is None else evolve(classifier, threshold=threshold)

    before, classifier = classifier, reduced(classifier)
    first, bad, unreadable = len(classifier.support), 0, 0
    if classes is not None:
        classifier = classifier.enrol(dict.fromkeys(_names_in(classes), ()))
    if folder is not None:
        classifier, bad, unreadable = _enrolled(classifier, folder, leaves, engine)
    if changes and out is not None and (made or out.resolve() != source.resolve()):
        classifier.save(out, new=True)
    elif changes:  # of what the file holds by now: others may have enrolled into it meanwhile
        added = classifier
        classifier = before.update(source, lambda now: reduced(now).joined(added, first))
    if changes and classifier.calibration() is None and classifier.threshold is None:
        echo(
            "not calibrated: that takes three enrolled classes of two images or more (or a run "
            "with two validation classes), and a head that answers each image alone: no image "
            "is called unknown unless --threshold says beyond what distance",
            err=True,
        )
    _print_classifier(classifier, out or source)
    if bad:
        raise DataError(f"{bad} {_what(unreadable)} could not be used; the rest is enrolled")


def _load(path: Path, without_adapter: bool = False) -> Classifier:
    fast_mlx()
    registry, _ = load_registry(strict=False)
    from ..deploy.classifier import Classifier

    tell_unfinished(path)
    return Classifier.load(path, registry, without_adapter)


def _names_in(path: Path) -> list[str]:
    """The names of classes in a file, one a line."""
    from ..core.errors import DataError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: not readable: {error}") from error
    if names := [line.strip() for line in lines if line.strip()]:
        return names
    raise DataError(f"{path}: no name of a class in it")


def _of_names(named: dict[str, Any], without_adapter: bool, names_alone: bool) -> Classifier:
    """Without any class, of the network that options name."""
    fast_mlx()
    registry, _ = load_registry(named["strict_plugins"])
    from ..core.reading import read_toml
    from ..deploy.classifier import OF_NAMES, Classifier
    from ..experiments.config import naming_file, settings_layer

    file = {} if named["config"] is None else read_toml(named["config"])
    below = [OF_NAMES] if names_alone else []
    with naming_file(named["config"], file, registry):
        layers = [*below, file, *topmost(settings_layer(named["settings"]), flag_layer(named))]
        return Classifier.blank(layers, registry, without_adapter)


def _with_engine(classifier: Classifier, engine: Name) -> Classifier:
    """Ready, where the engine is one that may not be possible."""
    from attrs import evolve

    classifier = evolve(classifier, engine=engine)
    if engine == "onnx":
        classifier.ready()
    return classifier


def _with_limit(classifier: Classifier, max_pixels: int) -> Classifier:
    from attrs import evolve

    return evolve(classifier, reading=evolve(classifier.reading, max_pixels=max_pixels))


def _tell_engine(classifier: Classifier) -> None:
    if classifier.engine.hint:
        echo(classifier.engine.hint, err=True)


def _enrolled(
    classifier: Classifier, folder: Path, leaves: bool, engine: Name
) -> tuple[Classifier, int, int]:
    """With the images of a folder; how many of all could not be used, and of folders alone."""
    from ..core.errors import DataError
    from ..data.batches import batch_size
    from ..data.folders import find_classes
    from ..data.images import decode_images

    found = find_classes(folder, fewest=1, leaves=leaves)
    folders, bad = found.folders, found.unreadable
    _tell_notes(found.notes)
    total, done, unusable = sum(map(len, folders.values())), 0, 0
    at_once = batch_size(classifier.shape, _BATCH)
    classifier = _with_engine(classifier, engine)
    waiting: dict[str, list[Picture]] = {}
    with _progress(total) as progress:
        for name, files in folders.items():
            for start in range(0, len(files), _READ):
                batch = files[start : start + _READ]
                for each in decode_images(batch, classifier.shape, classifier.reading):
                    if isinstance(each, DataError):
                        echo(str(each), err=True)
                        unusable += 1
                    else:
                        waiting.setdefault(name, []).append(each)
                done += len(batch)
                if sum(map(len, waiting.values())) >= at_once or done == total:
                    classifier = classifier.enrol(waiting)
                    waiting = {}
                progress("enrolling", done, total, "", "")
    _tell_engine(classifier)
    if unusable == total:
        raise DataError(f"{folder}: none of its {total} images could be used")
    return classifier, bad + unusable, bad


def _what(unreadable: object) -> str:
    return "images or folders" if unreadable else "images"


def _tell_notes(notes: Iterable[str]) -> None:
    """What of a folder is left out, and what is taken that may not be meant."""
    for note in notes:
        echo(note, err=True)


def _print_classifier(classifier: Classifier, path: Path) -> None:
    """Classes with their numbers of images, and what tells them apart."""
    print_table(["class", "images"], [[name, str(n)] for name, n in classifier.counts().items()])
    recipe, calibration = classifier.recipe, classifier.calibration()
    assert recipe is not None
    height, width, channels = recipe.shape
    echo(
        f"{recipe.backbone.name} on {height}x{width}x{channels}, {recipe.metric.name}, "
        f"{recipe.head.name}"
    )
    if classifier.threshold is not None:
        echo(f"unknown: beyond a distance of {classifier.threshold:.4g}, as set")
    elif calibration is not None:
        origin = {"validation": "calibrated for", "enrolled": "from the enrolled classes,"}
        echo(
            f"unknown: beyond a distance of {calibration.threshold:.4g}, "
            f"{origin[calibration.origin]} K = {calibration.k_shot}"
        )
    else:
        echo("unknown: never")
    echo(f"file: {path}")


# ------------------------------------------------------------------------------- predict


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE|FOLDER|-...", nargs=-1, required=True)
@click.option("--threshold", type=float, help="Distance beyond which an image is unknown.")
@click.option(
    "--nearest",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    help="How many of the nearest support images to name.",
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
    nearest: int,
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

    classifier = _with_limit(_load(file), max_pixels)
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
    classifier, known = _with_engine(classifier, engine), {*classifier.classes}
    refuse_input(save_html, [file, *(listed if total else ())])
    names, asked = tee(listed)
    answers = classifier.stream(asked, nearest, together)
    bad = done = 0
    told: list[tuple[str, str | None]] = []
    with ExitStack() as stack:
        progress = stack.enter_context(_progress(0 if sys.stdout.isatty() else total))
        add: Any = None
        if save_html is not None:
            roots = [name for name in images if Path(name).is_dir()]
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
                echo(_line(start, name, answer, columns()))
            if add is not None:
                add(printable(name), answer, truth)
            progress("predicting", done, total, "", "")
    _tell_engine(classifier)
    bad, done = bad + len(unreadable), done + len(unreadable)
    if not done:
        raise DataError(f"no image in {', '.join(images)}")
    if told:
        _print_tally(tally(told, classifier.classes), as_json)
    if bad:
        raise DataError(
            f"{bad} of {done} {_what(unreadable)} could not be used; the rest is answered"
        )


def _named(argument: str, unreadable: list[str]) -> Iterator[str]:
    """The image files that an argument stands for; folders that may not be read are added."""
    from ..data.walk import walk

    if argument == "-":
        lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
        return filter(None, lines)
    if Path(argument).is_dir():
        found = walk(Path(argument))
        _tell_notes(found.notes())
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


def _line(line: str, name: str, answer: Prediction, most: int | None) -> str:
    """An answer, with as much of its image's path as `most` columns hold, then of the nearest.

    Where nobody watches (None), the name of the file itself is always whole.
    """
    room = _COLUMNS - len(line) if most is None else most - len(line)
    room = max(room, len(Path(name).name) + 1 if most is None else _NAME)
    line += name if len(name) <= room else f"…{name[1 - room :]}"
    near = [f"{each.label}/{each.name} {each.distance:.3g}" for each in answer.nearest]
    while near:
        whole = f"{line}  ({', '.join(near)})"
        if len(whole) <= (most or _COLUMNS):
            return whole
        near.pop()
    return line


def _json(name: str, answer: Prediction | DataError, truth: str | None, wrong: bool) -> str:
    from ..core.errors import DataError

    if isinstance(answer, DataError):
        return json.dumps({"image": name, "error": str(answer)})
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
    unknown = found.unknown + sum(found.per_class[name].right for name in found.not_enrolled)
    echo(f"{found.right} of {found.asked} right, {unknown} unknown")
    if found.not_enrolled:
        names = ", ".join(found.not_enrolled)
        echo(f"not enrolled, so that unknown is right: {names}", err=True)


def _progress(total: int) -> AbstractContextManager[Progress]:
    """Shown to who watches, else where there is enough to do."""

    def silent(stage: str, done: int, total: int, status: str, line: str) -> None:
        pass

    shown = total > _BATCH or (total and sys.stderr.isatty())
    return showing_progress() if shown else nullcontext(silent)


# -------------------------------------------------------------------------------- export


@click.command()
@click.argument("source", metavar="FILE|RUN", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=".onnx or .mlxfn")
@without_adapter
def export(source: Path, out: Path, without_adapter: bool) -> None:
    """The embedding network for other programs: ONNX, or a function for MLX."""
    from ..core.files import refuse_input

    refuse_input(out, [source])
    classifier = _load(source, without_adapter)
    from ..deploy.export import BATCHES, export

    error = export(classifier, out)
    height, width, channels = classifier.shape
    batch = "any number" if out.suffix == ".onnx" else " or ".join(map(str, BATCHES))
    echo(
        f"{out}: {batch} of images {height}x{width}x{channels}, float32 in [0, 1], channels last, "
        f"to embeddings, without the head; differs by {error:.0e} at the most"
    )


COMMANDS = (enrol, predict, export)

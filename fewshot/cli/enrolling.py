"""The command that makes a classifier of one's own classes, and changes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .classifiers import (
    BATCH,
    images_of,
    load,
    progress_of,
    tell_engine,
    tell_notes,
    with_engine,
    with_limit,
)
from .options import engine, flag_layer, max_pixels, settings, topmost, without_adapter
from .terminal import echo, fast_mlx, load_registry, print_table

if TYPE_CHECKING:
    from ..data.images import Picture
    from ..deploy.classifier import Classifier
    from ..engine.inference import Name

_READ = 16  # images read before the next progress is shown


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
        from ..experiments.folder import CONFIG

        if source.is_dir() and not (source / CONFIG).exists():
            raise click.UsageError(
                f"{source} is no run: a folder of images wants a network before it, --preset "
                "photos, --backbone NAME, a run or a classifier file"
            )
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
        classifier = load(source, without_adapter)
    classifier = with_limit(classifier, max_pixels)

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
        raise DataError(f"{images_of(bad, unreadable)} could not be used; the rest is enrolled")


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
    from ..deploy.recipe import to_tree
    from ..experiments.assembly import unlike_implied
    from ..experiments.config import naming_file, settings_layer

    file = {} if named["config"] is None else read_toml(named["config"])
    below = [OF_NAMES] if names_alone else []
    with naming_file(named["config"], file, registry):
        layers = [*below, file, *topmost(settings_layer(named["settings"]), flag_layer(named))]
        classifier = Classifier.blank(layers, registry, without_adapter)
    assert classifier.recipe is not None
    made = to_tree(classifier.recipe)
    tree = {**made, "dataset": {"size": classifier.shape[0], **made["reading"]}}
    for line in unlike_implied(registry, classifier.recipe.backbone.name, tree):
        echo(line, err=True)
    return classifier


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
    tell_notes(found.notes)
    total, done, unusable = sum(map(len, folders.values())), 0, 0
    at_once = batch_size(classifier.shape, BATCH)
    classifier = with_engine(classifier, engine)
    waiting: dict[str, list[Picture]] = {}
    with progress_of(total) as progress:
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
    tell_engine(classifier)
    if unusable == total:
        raise DataError(f"{folder}: none of its {total} images could be used")
    return classifier, bad + unusable, bad


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
            f"{origin[calibration.origin]} K = {calibration.k_shot}; how many of other classes "
            "that lets pass, `fewshot run` says of your photos (docs/how-to/unknown.md)"
        )
    else:
        echo("unknown: never")
    echo(f"file: {path}")


COMMANDS = (enrol,)

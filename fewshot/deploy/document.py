"""What a classifier file says, beside its arrays, and what is read from it again."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
from attrs import field, frozen
from numpy.typing import NDArray

from ..catalogue.registry import Registry
from ..core.errors import FewshotError, OutputError, UnknownComponentError
from ..core.options import as_names
from ..core.reading import parse_toml, shortened
from ..data.class_names import require_names
from ..engine.calibration import Calibration
from ..engine.inference import same
from ..parts.embedder import Embedder
from . import archive, recipe
from .recipe import Recipe
from .support import Support

_FORMAT = 2  # of the classifier file

_ARRAYS = ("images", "embeddings", "labels", "crops")  # of the support

# What the reader, and parts made with a stranger's options, raise for a malformed document.
UNREADABLE = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RuntimeError)


@frozen(eq=False)
class Content:
    """Everything that is in a classifier file."""

    recipe: Recipe
    support: Support
    classes: tuple[str, ...] = field(converter=as_names)
    calibrations: tuple[Calibration, ...] = ()
    threshold: float | None = None
    text: NDArray[np.float32] | None = None  # of the classes' names


def write(path: Path, content: Content, new: bool = False) -> str:
    """Write it atomically; the SHA-256 that the file holds. Raises what `archive.write` does."""
    support, threshold = content.support, content.threshold
    tree = {
        "format": _FORMAT,
        "versions": {name: version(name) for name in ("fewshot", "mlx")},
        "classes": list(content.classes),
        **({} if threshold is None else {"threshold": threshold}),
        "recipe": recipe.to_tree(content.recipe),
        "calibrations": [attrs.asdict(each) for each in content.calibrations],
        "support": {"names": list(support.names), "sha256": list(support.sha256)},
    }
    arrays = {f"support.{name}": getattr(support, name) for name in _ARRAYS}
    if content.text is not None:
        arrays["support.text"] = content.text
    return archive.write(path, tomli_w.dumps(tree), {**arrays, **content.recipe.weights}, new)


def read(path: Path, registry: Registry) -> tuple[Content, str]:
    """What `write` wrote, and the SHA-256 that the file holds.

    Raises OutputError, naming the file, where it is damaged, of another version or no classifier;
    UnknownComponentError where a plugin it needs is not installed.
    """
    text, arrays, digest = archive.read(path)
    try:
        return _content(
            parse_toml(text, "not a classifier file: its document", OutputError), arrays, registry
        ), digest
    except UnknownComponentError as error:
        raise UnknownComponentError(f"{path}: {error}") from error
    except FewshotError as error:
        raise OutputError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise OutputError(f"{path}: not a classifier file: {error!r}") from error


def _content(
    tree: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], registry: Registry
) -> Content:
    if tree["format"] != _FORMAT:
        raise OutputError(
            f"its format is {tree['format']}, this fewshot {version('fewshot')} reads {_FORMAT}: "
            f"it was written by fewshot {tree['versions']['fewshot']}"
        )
    weights = {name: array for name, array in arrays.items() if not name.startswith("support.")}
    parts = {name: arrays[f"support.{name}"] for name in _ARRAYS}
    support = Support(**parts, names=tree["support"]["names"], sha256=tree["support"]["sha256"])
    classes = [str(name) for name in tree["classes"]]
    require_names(classes)
    text, every, shown = (
        arrays.get("support.text"),
        {*range(len(classes))},
        {*support.labels.tolist()},
    )
    whole = shown == every if text is None else shown <= every  # with names some have no image
    if len(set(classes)) != len(classes) or not whole:
        raise OutputError("its classes are not those of its support images")
    calibrations = tuple(
        Calibration(
            _count(row["k_shot"]),
            _number(row["threshold"]),
            _number(row["temperature"]),
            "enrolled" if row.get("origin") == "enrolled" else "validation",
        )
        for row in tree["calibrations"]
    )
    threshold = _number(tree["threshold"]) if "threshold" in tree else None
    made = recipe.from_tree(tree["recipe"], weights, registry)
    return Content(made, support, classes, calibrations, threshold, text)


def require_fits(
    content: Content, support: Support, text: NDArray[np.float32] | None, embedder: Embedder
) -> None:
    """Raise OutputError for a file whose support or names are not those of its network.

    `support` and `text`: of its classifier without any class. Another release of a plugin may embed
    differently: the support would be worth nothing.
    """
    of = content.support
    for name in ("images", "embeddings", "crops"):
        stored, own = getattr(of, name), getattr(support, name)
        if stored.shape[1:] != own.shape[1:] or stored.dtype != own.dtype:
            raise OutputError(f"its support {name} are {stored.shape}, not {own.shape[1:]}")
    if text is not None:
        due, found = (len(content.classes), text.shape[1]), content.text
        if found is None or found.shape != due or found.dtype != np.float32:
            raise OutputError(f"the names of its classes are not float32 {due}")
        if not np.isfinite(found).all():
            raise OutputError("the names of its classes are not finite")
    for image, row in zip(of.images[:1], of.embeddings[:1], strict=True):
        if not same(embedder, image, row):
            parts = content.recipe.components.items()
            by = ", ".join(f"{part} of {who}" for part, who in parts)
            raise OutputError(
                f"its images embed differently now than when enrolled, by {by}: enrol again"
            )


def _number(value: Any) -> float:
    if math.isnan(number := float(value)):
        raise ValueError("a threshold or temperature is no number")
    return number


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"a calibration is for K images, not {shortened(value)}")
    return value


def same_network(one: Recipe | None, other: Recipe | None) -> bool:
    """Whether two recipes come to the same embeddings, compared in the same way."""
    if one is None or other is None:
        return one is other
    facts = recipe.to_tree(one) == recipe.to_tree(other)
    mine, theirs = one.weights, other.weights
    return (
        facts
        and mine.keys() == theirs.keys()
        and all(np.array_equal(mine[name], theirs[name]) for name in mine)
    )

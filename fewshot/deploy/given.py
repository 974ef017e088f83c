"""What a classifier is given: one image or many, by class name or not, and what it is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL.Image import Image

from ..core.errors import ConfigError, DataError
from ..core.interfaces import Head
from ..data.images import Picture, Shape

T = TypeVar("T")


def by_name(images: Any) -> Mapping[Any, Any]:
    """Images by class name; of names alone, none each. Raises DataError for anything else."""
    if isinstance(images, list | tuple) and all(isinstance(name, str) for name in images):
        return dict.fromkeys(images, ())
    if not isinstance(images, Mapping):
        raise DataError(
            f"images come by class name, such as {{'cup': [...]}}, not as {type(images).__name__}"
        )
    return images


def listed(images: Any) -> list[Any]:
    """One image or many, as a list."""
    one = isinstance(images, str | Path | Image | Picture)
    if one or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    return list(images)


def shape_of(images: Mapping[Any, Sequence[Any]]) -> Shape:
    """The shape (h, w, c) of every array. Raises DataError for several, and for a class of none."""
    if empty := [name for name, of_class in images.items() if not of_class]:
        raise DataError(f"class '{empty[0]}' has no image")
    shapes = {np.shape(image) for of_class in images.values() for image in of_class}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3:
        raise DataError("images of all classes must be arrays of one size (h, w, c)")
    height, width, channels = shape
    return height, width, channels


def or_raise(results: Sequence[T | DataError]) -> list[T]:
    """All results, or one DataError for those that are none."""
    errors = [each for each in results if isinstance(each, DataError)]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    return [each for each in results if not isinstance(each, DataError)]


def require_alone(head: Head, name: str) -> None:
    """Raise ConfigError for a head, called `name`, that looks at queries together."""
    if head.queries == "together":
        called = f" '{name}'" if name else ""
        raise ConfigError(
            f"the head{called} looks at all images of a task together and answers none alone: "
            "ask them as one task (fewshot predict --together; in Python together=True), or "
            "train with another --head"
        )

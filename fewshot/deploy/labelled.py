"""Answers beside the truth, where folders are named for the classes of their images."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from ..data.class_names import class_name
from .support import Prediction


@frozen
class ClassTally:
    """Of one class's images: how many were asked, named rightly, and called unknown."""

    asked: int = 0
    right: int = 0
    unknown: int = 0


@frozen
class Tally:
    """What answers came to. `confusions`: (truth, answer, times), the most frequent first.

    An image of a class that is not enrolled is right where it is called unknown; `unknown` counts
    the others, whose class was there to be named.
    """

    asked: int
    right: int
    unknown: int
    per_class: Mapping[str, ClassTally]
    not_enrolled: tuple[str, ...]
    confusions: tuple[tuple[str, str, int], ...]

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return attrs.asdict(self)


def truth_of(image: str, classes: Collection[str] = ()) -> str:
    """The class that an image's folder is named for: of `classes`, by its name or its path's end.

    A class "birds/owl" is that of .../birds/owl/1.jpg, before a class "owl".
    """
    folders = Path(image).absolute().parent.parts
    ends = (class_name("/".join(folders[i:])) for i in range(len(folders)))
    return next((end for end in ends if end in classes), class_name(folders[-1]))


def is_right(truth: str, answer: Prediction, classes: Sequence[str]) -> bool:
    """Whether a class was named, or called unknown where it is none of the enrolled."""
    return answer.label == (truth if truth in classes else None)


def tally(answers: Iterable[tuple[str, str | None]], classes: Sequence[str]) -> Tally:
    """What (truth, label) come to, a label being None where the answer was unknown."""
    found: dict[str, dict[str | None, int]] = {}
    for truth, label in answers:
        of_class = found.setdefault(truth, {})
        of_class[label] = of_class.get(label, 0) + 1
    per_class = {
        truth: ClassTally(
            sum(labels.values()),
            labels.get(truth if truth in classes else None, 0),
            labels.get(None, 0) if truth in classes else 0,
        )
        for truth, labels in found.items()
    }
    confusions = [
        (truth, label, times)
        for truth, labels in found.items()
        for label, times in labels.items()
        if label is not None and label != truth
    ]
    return Tally(
        asked=sum(each.asked for each in per_class.values()),
        right=sum(each.right for each in per_class.values()),
        unknown=sum(each.unknown for each in per_class.values()),
        per_class=per_class,
        not_enrolled=tuple(truth for truth in found if truth not in classes),
        confusions=tuple(sorted(confusions, key=lambda each: -each[2])),
    )

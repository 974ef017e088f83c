"""What a page shows of an episode, or of several that share their classes."""

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from .draws import Episode, Ints


@frozen
class WrongAnswer:
    """A query that went wrong: its label and the answer, and images by their dataset indices.

    `image`: itself. `own`, `taken`: the support image nearest to it of its class, and of the class
    answered; None where names were asked about.
    """

    image: int
    label: int
    answer: int
    own: int | None
    taken: int | None


@frozen(eq=False)
class Shown:
    """An episode, or all of a leave-one-out, and what they look like.

    `answers`: of each, the labels (q,) that its queries were given. `mapped` (m,): dataset indices
    of the images on a map, `places` (m, 2): where, in -1 to 1. `wrong`: the worst first.
    """

    episodes: tuple[Episode, ...]
    answers: tuple[Ints, ...]
    mapped: Ints
    places: NDArray[np.float64]
    wrong: tuple[WrongAnswer, ...]

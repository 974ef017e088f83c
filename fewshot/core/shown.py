"""What a page shows of one episode."""

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from .draws import Episode, Ints


@frozen
class WrongAnswer:
    """A query that went wrong: which it is of the episode's, and images by their dataset indices.

    `image`: itself. `own`, `taken`: the support image nearest to it of its class, and of the class
    answered; None where names were asked about.
    """

    query: int
    image: int
    own: int | None
    taken: int | None


@frozen(eq=False)
class Shown:
    """An episode, the labels (q,) that its queries were given, and what they look like.

    `mapped` (m,): dataset indices of the images on a map, `places` (m, 2): where, in -1 to 1.
    `wrong`: the worst first.
    """

    episode: Episode
    answers: Ints
    mapped: Ints
    places: NDArray[np.float64]
    wrong: tuple[WrongAnswer, ...]

"""What each part is: the one file a plugin author reads.

| kind      | its factory                        | returns                        |
| --------- | ---------------------------------- | ------------------------------ |
| backbone  | factory(options, input_shape)      | `Backbone`: an `mlx.nn.Module` |
| metric    | factory(options)                   | `Metric`                       |
| loss      | factory(options)                   | `Loss`                         |
| sampler   | factory(options, labels, groups)   | `Sampler`                      |
| head      | factory(options)                   | `Head`                         |
| adapter   | factory(options)                   | `Adapter`: a function          |
| transform | factory(options)                   | `Transform`: a function        |
| dataset   | factory(options)                   | `Dataset`                      |

`options` is an instance of the component's own options class. Shapes below: b images, h x w pixels,
c channels, d embedding dimensions, s support and q query images, `…` leading axes (episodes) that
broadcast. Distances: smaller is closer. Scores: higher is better.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from attrs import Factory, field, frozen
from numpy.typing import NDArray

from .draws import Draw, DrawLayout, EpisodeBlock, Ints, Layout

if TYPE_CHECKING:  # samplers, transforms and datasets read this file and never need MLX
    import mlx.core as mx

Law = Literal["identity", "symmetry", "triangle", "scale_free"]

# Above this many numbers of support the broadcast form of a distance table is slow and large. The
# number of queries does not count: a query's distances are the same alone or among a thousand.
# 5 prototypes of 128 numbers: 25 times slower than products; below, exactness near 0 is for free.
_TABLE_LIMIT = 1 << 8


@runtime_checkable
class Backbone(Protocol):
    """An `mlx.nn.Module` from images (b, h, w, c), float32, to embeddings (b, embedding_dim)."""

    embedding_dim: int

    def __call__(self, images: "mx.array") -> "mx.array":
        """Embed a batch."""


@frozen
class Metric:
    """A distance.

    `fn(x, y)`: (…, d), (…, d) -> (…), broadcasting, >= 0, with a finite gradient everywhere, also
    where x = y; may be an `nn.Module` with learned parts. `laws` it keeps: "identity" d(x, x) = 0,
    "symmetry", "triangle" d(x, z) <= d(x, y) + d(y, z), "scale_free" (lengths do not matter).
    `upper(d)`: the largest distance between two unit vectors of d numbers (inf: none).
    `matrix(q, p)`: (…, q, d), (…, p, d) -> (…, q, p), the same distances by matrix products, for
    large tables; less exact near 0.
    """

    fn: "Callable[[mx.array, mx.array], mx.array]"
    laws: frozenset[Law]
    upper: Callable[[int], float]
    matrix: "Callable[[mx.array, mx.array], mx.array] | None" = None

    def table(self, query: "mx.array", support: "mx.array") -> "mx.array":
        """All distances: (…, q, d), (…, s, d) -> (…, q, s)."""
        if self.matrix is not None and support.shape[-2] * support.shape[-1] > _TABLE_LIMIT:
            return self.matrix(query, support)
        return self.fn(query[..., :, None, :], support[..., None, :, :])

    def width(self, s: int, d: int) -> int:
        """Numbers that `table` holds at once for one query and a support (s, d)."""
        products = self.matrix is not None and s * d > _TABLE_LIMIT
        return max(s, d) if products else s * d


@frozen
class Loss:
    """What training makes small; one value per pair, triplet or query, which training averages.

    `layout` "pairs": `fn(distances (p,), same (p,) bool)`; "triplets": `fn(to_positive (t,),
    to_negative (t,))`; "episode": `fn(scores (…, q, n_way), labels (…, q))`, which serves labelled
    images too. `margin`: the largest distance it asks for, which the metric must be able to reach.
    """

    fn: "Callable[[mx.array, mx.array], mx.array]"
    layout: Layout
    margin: float | None = None


D = TypeVar("D", bound=Draw, covariant=True)


def _one_by_one(sampler: Any) -> Callable[[int, int], Iterator[EpisodeBlock]]:
    def blocks(seed: int, count: int) -> Iterator[EpisodeBlock]:
        return (EpisodeBlock.of([sampler.draw(seed, i)]) for i in range(count))

    return blocks


@frozen
class Sampler(Generic[D]):
    """`draw(seed, index)` gives one draw: a pure function, so any order and any process will do.

    `layout` "pairs", "triplets", "episode" or "labelled": a draw is the record of that name. For
    labelled images training learns a proxy of every class, a vector that is compared like an
    embedding and thrown away at the end; minus the distances to these are the scores of an episode
    loss (Movshovitz-Attias et al. 2017).

    NumPy only. Its factory checks the counts: a class too small is a DataError with the numbers,
    never sampling with replacement.

    `blocks(seed, count)`, of episodes only, gives draws 0..count-1 many at a time, which is how
    `evaluate` is fast; a sampler that leaves it out has blocks of one.
    """

    draw: Callable[[int, int], D]
    layout: DrawLayout
    blocks: Callable[[int, int], Iterator[EpisodeBlock]] = field(
        default=Factory(_one_by_one, takes_self=True)
    )


@frozen
class Head:
    """A few-shot classifier.

    `scores(support (…, s, d), support_labels (…, s), query (…, q, d), metric, n_way)` ->
    (…, q, n_way). Pure: the same for one query or a thousand, in any order; leading axes are
    episodes and equal the loop over them. `differentiable`: whether an episode loss can train
    through it. `votes`: whether scores are shares of votes, the same few numbers for every query.

    `condense(support (…, s, d), support_labels (…, s), n_way)` -> a smaller support (…, s', d) and
    its labels (…, s') with the same scores, to keep where many queries meet one support. None: the
    head needs all of it.
    """

    scores: "Callable[[mx.array, mx.array, mx.array, Metric, int], mx.array]"
    differentiable: bool
    condense: "Callable[[mx.array, mx.array, int], tuple[mx.array, mx.array]] | None" = None
    votes: bool = False


E = TypeVar("E")


@runtime_checkable
class Adapter(Protocol[E]):
    """K-shot training: an embedder (E is `fewshot.Embedder`) fitted to the support of one task.

    images (s, h, w, c) uint8 and labels (s,), 0..n_way-1, every class at least once; the metric
    that embeddings are compared by; a seed. Returns a new embedder, whose embeddings are finite,
    with a backbone of its own: the caller's keeps its weights and modes, and training one never
    changes the other. A pure function: the same arguments give the same embedder.
    """

    def __call__(
        self, embedder: E, images: NDArray[np.uint8], labels: Ints, metric: Metric, seed: int
    ) -> E:
        """Adapt; never sees a query."""


class Transform(Protocol):
    """(b, h, w, c) float32 in [0, 1] and a generator -> the same shape and type. NumPy only."""

    def __call__(
        self, images: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Transform a batch; every image draws its own numbers."""


@runtime_checkable
class Dataset(Protocol):
    """Labelled images of one size.

    `classes`: names; `labels` (n,) int64 into `classes`, known without decoding; `groups` (n,) or
    None: images of one shot or signer share a number; item i: (h, w, c) uint8, asked for from
    several threads, DataError where it cannot be read. Optional: `split`, a `ClassSplit` of its
    own; `names`, what to call each image (its file); and `load(progress)`, all images at once as
    (n, h, w, c), where that is faster (`progress(done, total)` or None). `--data PATH` sets the
    option `path`.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""

    @property
    def labels(self) -> Ints:
        """Class ids (n,)."""

    @property
    def groups(self) -> Ints | None:
        """Group ids (n,), or None."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Image `index`."""

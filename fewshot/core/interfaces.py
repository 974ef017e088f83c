"""What each part is: the one file a plugin author reads.

| kind      | its factory                        | returns                          |
| --------- | ---------------------------------- | -------------------------------- |
| backbone  | factory(options, input_shape)      | `Backbone`: an `mlx.nn.Module`   |
| metric    | factory(options)                   | `Metric`                         |
| loss      | factory(options)                   | `Loss`                           |
| sampler   | factory(options, labels, groups)   | `Sampler`                        |
| miner     | factory(options)                   | `Miner`                          |
| head      | factory(options)                   | `Head`                           |
| adapter   | factory(options)                   | `Adapter`: a function            |
| learner   | factory(options)                   | `Learner`                        |
| optimizer | factory(options, learning_rate)    | `Optimizer`                      |
| schedule  | factory(options, steps)            | `Schedule`: a function           |
| transform | factory(options)                   | `Transform`: a function          |
| mixer     | factory(options)                   | `Mixer`                          |
| dataset   | factory(options)                   | `Dataset`                        |
| observer  | factory(options)                   | `Observer`                       |

The factory of a metric, loss, head or miner that has a parameter `embedding_dim` is given that of
the backbone, which is made first, and that of a head that has a parameter `has_text` whether this
embeds names; that of a sampler that has a parameter `role`, or `parents`, is given the data set's.
The factory of a backbone that has a parameter `saved` is given, where it is made again, the arrays
that were saved of it by name, else nothing: for one whose shapes its options do not tell.

`options` is an instance of the component's own options class. Shapes below: b images, h x w pixels,
c channels, d embedding dimensions, s support and q query images, m other images, `…` leading axes
(episodes) that broadcast. Distances: smaller is closer. Scores: higher is better.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from attrs import Factory, field, frozen
from numpy.typing import NDArray

from .draws import Draw, DrawLayout, EpisodeBlock, Ints, Layout

if TYPE_CHECKING:  # samplers, transforms and datasets read this file and never need MLX
    import mlx.core as mx
    import mlx.nn as nn

    Figures = tuple[mx.array, ...]

Law = Literal["identity", "symmetry", "triangle", "scale_free", "cosine"]

# Above this many numbers of support the broadcast form of a distance table is slow and large. The
# number of queries does not count: a query's distances are the same alone or among a thousand.
# 5 prototypes of 128 numbers: 25 times slower than products; below, exactness near 0 is for free.
_TABLE_LIMIT = 1 << 8


@runtime_checkable
class Backbone(Protocol):
    """An `mlx.nn.Module` from images (b, h, w, c), float32, to embeddings (b, embedding_dim).

    One that has another runtime compute says so by an attribute `outside_mlx = True`: no engine is
    looked for then.

    Optional: `text(names)`, embeddings (n, embedding_dim), float32, of n names of classes, each as
    its folder is called, that lie near those of their images; DataError where what reads them is
    not here. No part of what is trained or saved. `block_names()`, of each block, in order, the
    names of its modules, for whoever trains the last.
    """

    embedding_dim: int

    def __call__(self, images: "mx.array") -> "mx.array":
        """Embed a batch."""


@frozen
class Metric:
    """A distance.

    `fn(x, y)`: (…, d), (…, d) -> (…), broadcasting, >= 0, with a finite gradient everywhere, also
    where x = y; may be an `nn.Module` with learned parts. `laws` it keeps: "identity" d(x, x) = 0,
    "symmetry", "triangle" d(x, z) <= d(x, y) + d(y, z), "scale_free" (lengths do not matter),
    "cosine" (it is 1 − cos(x, y), from which a loss can tell the angle).
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


def _laws(names: Iterable[Law]) -> frozenset[Law]:
    return frozenset(names)


@frozen
class Loss:
    """What training makes small: values that it averages, and the `layout` of what they compare.

    "pairs": `fn(distances (p,), same (p,) bool)`, a value per pair. "triplets": `fn(to_positive
    (t,), to_negative (t,))`, a value per triplet. "episode": `fn(scores (…, q, n_way), labels
    (…, q))`, a value per query; it serves labelled images and learned proxies of classes too.
    "batch": `fn(distances (b, m), labels (b,), others (b, m))`, any number of values: each image of
    a class-balanced batch against the others in the batch's order, itself left out (m = b − 1), and
    their labels.

    `fn` may be an `nn.Module` with learned parts. `margin`: the largest distance it asks for, which
    the metric must be able to reach. `requires`: laws that the metric must keep. `draws`: of the
    draws that serve its layout, those it is meant for, which decides the sampler where none is
    named: "labelled" for a loss of scores that wants proxies; None: those of the layout's own name.
    `soft`: of "episode", whether in the place of labels it takes targets (…, q, n_way) too, rows
    >= 0 that sum to 1, as a mixer makes them; rows of one 1 cost what the labels cost.
    `centres(distances (…, k))` -> (…): how those to the k proxies of one class become one; None:
    the nearest. `memory`: of labelled images, how many of earlier batches stand beside the others
    of each, as they were embedded then; until there are, others of the batch in their place.
    `auxiliary(backbone, images (b, h, w, c))` -> values, whose mean is added to the loss; what it
    learns is a part of `fn`.
    """

    fn: "Callable[..., mx.array]"
    layout: Layout
    margin: float | None = None
    requires: frozenset[Law] = field(default=frozenset(), converter=_laws)
    draws: DrawLayout | None = None
    soft: bool = False
    centres: "Callable[[mx.array], mx.array] | None" = None
    memory: int = 0
    auxiliary: "Callable[[nn.Module, mx.array], mx.array] | None" = None


@frozen
class Miner:
    """Which pairs or triplets of a batch a loss of pairs or triplets learns from.

    `mask(distances (b, m), labels (b,), others (b, m))`: each image of a class-balanced batch
    against the others in the batch's order, itself left out (m = b − 1), and their labels -> bool
    (b, m), the others to compare each image with, or (b, m, m), triplets by the places of positive
    and negative; None for a mask: all that the sampler draws. Masks, not lists, so that shapes
    never change; one that leaves a choice to chance takes that from the distances, so that asked
    twice it says the same. No gradient flows through it. Triplets of a mask of pairs are all of its
    positives with all of its negatives, pairs of a mask of triplets those that are in one;
    positives of another class and negatives of the same are never compared. `requires`: laws that
    the metric must keep.
    """

    mask: "Callable[[mx.array, mx.array, mx.array], mx.array] | None"
    requires: frozenset[Law] = field(default=frozenset(), converter=_laws)


D = TypeVar("D", bound=Draw, covariant=True)


def _one_by_one(sampler: Any) -> Callable[[int, int], Iterator[EpisodeBlock]]:
    def blocks(seed: int, count: int) -> Iterator[EpisodeBlock]:
        return (EpisodeBlock.of([sampler.draw(seed, i)]) for i in range(count))

    return blocks


@frozen
class Sampler(Generic[D]):
    """`draw(seed, index)` gives one draw: a pure function, so any order and any process will do.

    `layout` "pairs", "triplets", "episode" or "labelled": a draw is the record of that name.
    Labelled images serve a loss of batches, of mined pairs or triplets, and an episode loss: for
    that, training learns a proxy of every class, a vector compared like an embedding; minus the
    distances to these are the scores (Movshovitz-Attias et al. 2017).

    NumPy only. Its factory checks the counts: a class too small is a DataError with the numbers,
    never sampling with replacement.

    `centres`: proxies that training learns of each class; the nearest counts.

    `blocks(seed, count)`, of episodes only, gives draws 0..count-1 many at a time, which is how
    `evaluate` is fast; a sampler that leaves it out has blocks of one.
    """

    draw: Callable[[int, int], D]
    layout: DrawLayout
    blocks: Callable[[int, int], Iterator[EpisodeBlock]] = field(
        default=Factory(_one_by_one, takes_self=True)
    )
    centres: int = 1


@frozen
class Head:
    """A few-shot classifier.

    `fit(support (…, s, d), support_labels (…, s), metric, n_way)` -> its state: arrays with the
    leading axes of the support, in a tuple or alone, such as prototypes (…, n_way, d).
    `scores(state, query (…, q, d), metric)` -> (…, q, n_way). Both pure; leading axes are episodes
    and equal the loop over them.

    `queries` "alone": a query's scores are the same whatever is asked beside it, in any order;
    "together": they depend on all queries of the task (a transductive head), which are asked at
    once. `differentiable`: whether an episode loss can train through it. `votes`: whether scores
    are shares of votes, the same few numbers for every query. `module`: its learned parts, trained
    and saved with the backbone. `names`: whether it reads the classes' names: the first n_way rows
    of its support are then the embeddings of these, in order, and they may be all there is.
    `distances(state, query, scores)` -> (…, q, n_way) >= 0: how far queries are from each class,
    where the head knows it better than the metric does; farther than a threshold is unknown.

    A classifier tries `scores`, and the metric's `fn`, with NumPy arrays too, which for few numbers
    is faster; where that fails or gives something else, it asks with MLX's.
    """

    fit: "Callable[[mx.array, mx.array, Metric, int], Any]"
    scores: "Callable[[Any, mx.array, Metric], mx.array]"
    differentiable: bool
    queries: Literal["alone", "together"] = "alone"
    votes: bool = False
    module: "nn.Module | None" = None
    names: bool = False
    distances: "Callable[[Any, mx.array, mx.array], mx.array] | None" = None

    def __call__(
        self,
        support: "mx.array",
        support_labels: "mx.array",
        query: "mx.array",
        metric: Metric,
        n_way: int,
    ) -> "mx.array":
        """Scores (…, q, n_way) of the queries, fitted to the support."""
        return self.scores(self.fit(support, support_labels, metric, n_way), query, metric)


@frozen
class Batch:
    """What one step learns from: images (b, h, w, c) float32 and draws among them, as arrays.

    `draws`: of each draw the arrays of its record, such as "support", "support_labels", "query",
    "query_labels" of an episode, positions counting from the draw's own first image, and "targets"
    (b, n_way) where its images are mixed; `sizes` the number of its images, `n_ways` of its
    classes.
    """

    images: "mx.array"
    draws: "Sequence[Mapping[str, mx.array]]"
    sizes: Sequence[int]
    n_ways: Sequence[int]

    def split(self) -> "list[Batch]":
        """A batch of every draw."""
        ends = list(accumulate(self.sizes))
        return [
            Batch(self.images[end - size : end], [draw], [size], [n_way])
            for draw, size, n_way, end in zip(
                self.draws, self.sizes, self.n_ways, ends, strict=True
            )
        ]

    def of_support(self) -> "Batch":
        """Of episodes: the images of the support alone, asked about themselves."""
        import mlx.core as mx

        supports = []
        for episode in self.split():
            (draw,) = episode.draws
            places, labels = mx.arange(len(draw["support"])), draw["support_labels"]
            asked = {"support": places, "query": places}
            asked |= {"support_labels": labels, "query_labels": labels}
            supports.append((episode.images[draw["support"]], asked))
        images, draws = zip(*supports, strict=True)
        return Batch(
            mx.concatenate(list(images)), draws, [len(part) for part in images], self.n_ways
        )


@frozen
class Learner:
    """How one step learns.

    `step(model, objective, batch)` -> (figures, gradients). `model`: an `nn.Module` of everything
    that is trained, `model.backbone` and, where they have learned parts, `metric`, `loss`, `head`,
    `learner` and `proxies`; `objective(batch)` -> figures of the model as it is now, the loss and
    the share of its values above 0, a record with its `embedder`, `metric`, `loss` and `head`, of
    which another may be put (`attrs.evolve`); `figures`: as many; `gradients`: a tree like
    `model.trainable_parameters()`, which the optimizer follows. What a step does to these
    parameters is undone after it, what it does to others, such as batch norm's running statistics,
    stays. It computes nothing that is not returned: the step may be compiled.

    `layout`: the draws that it learns from, "episode" where it needs a support; None: any.

    `adapt(embedder, support, metric, loss, head)`: its steps on a new task, which the adapter
    `learner` takes. `support`: a `Batch` of one, `Batch.of_support`. It changes the embedder's
    backbone, or returns a linear layer (n_way, d) from embeddings to the classes' scores that
    answers in the head's place, or both. None: it has none. `module`: its learned parts, trained
    and saved with the backbone.
    """

    step: "Callable[[nn.Module, Callable[[Batch], Figures], Batch], tuple[Figures, Any]]"
    layout: DrawLayout | None = None
    adapt: "Callable[[Any, Batch, Metric, Loss, Head], nn.Linear | None] | None" = None
    module: "nn.Module | None" = None


@runtime_checkable
class Optimizer(Protocol):
    """What changes weights by gradients: any of `mlx.optimizers`, or one's own.

    Its factory is given the learning rate: a number, or a function of the step, an array that
    counts updates from 0, which is asked at every update. It makes a new one at every call.

    `state`: a tree of arrays in dicts and lists, all that an update depends on beside weights and
    gradients. From `init` on names, shapes and types stay, and `update` changes it in place. It may
    be set to an earlier one, whereupon `init` follows. It evaluates nothing: steps are compiled.
    """

    state: Any

    def init(self, parameters: Any) -> None:
        """Make what the state of a tree of parameters lacks; what is there stays."""

    def update(self, model: "nn.Module", gradients: Any) -> None:
        """Change the parameters that have a gradient, in place; the rest stays."""


class Schedule(Protocol):
    """The factor of the learning rate at a step, for a training of `steps` >= 1 steps.

    Steps (…) of whole numbers, an array that counts from 0 -> (…) float32, finite and >= 0, of each
    step its own, also beyond `steps`. A pure function without `if` on a step: steps are compiled.
    """

    def __call__(self, step: "mx.array") -> "mx.array":
        """The factor."""


def _ignored(*_: Any) -> None:
    pass


@frozen
class Observer:
    """Told of a run, which it cannot change; one that raises is switched off with one line.

    `start(folder, config)`: the run folder and the configuration as a tree; `record(figures)`: at
    every validation, "step", "loss" and whatever else is known; `end(results)`: what results.json
    holds, or None where the run ended early.
    """

    start: Callable[[Path, Mapping[str, Any]], object] = _ignored
    record: Callable[[Mapping[str, Any]], object] = _ignored
    end: Callable[[Mapping[str, Any] | None], object] = _ignored


E = TypeVar("E")


@runtime_checkable
class Adapter(Protocol[E]):
    """K-shot training: an embedder (E is `fewshot.Embedder`) fitted to the support of one task.

    images (s, h, w, c) uint8 and labels (s,), 0..n_way-1, every class at least once; the metric
    that embeddings are compared by; a seed. Returns a new embedder, whose embeddings are finite,
    with a backbone of its own: the caller's keeps its weights and modes, and training one never
    changes the other. A pure function: the same arguments give the same embedder.
    Where the embedder has a centre, it is subtracted from what the new backbone gives, too:
    whoever maps embeddings maps it. One that fits a classifier, too, gives it as `fitted`: a head
    that answers about the classes of this support, and whose `fit` takes no other.
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


_Floats = NDArray[np.float32]


@frozen
class Mixer:
    """Images of a batch mixed with each other, and their targets alike. NumPy only.

    `mix(images (b, h, w, c), targets (b, n_way), rng)` -> both, of the same shapes and types:
    float32 images in [0, 1], and how much of each class is in each, float32 rows >= 0 that sum to 1
    (given as one 1 each). None for a function: as they are. For labelled images and a loss that
    takes soft targets; in training alone, after augmentation.
    """

    mix: Callable[[_Floats, _Floats, np.random.Generator], tuple[_Floats, _Floats]] | None


@runtime_checkable
class Dataset(Protocol):
    """Labelled images of one size.

    `classes`: names; `labels` (n,) int64 into `classes`, known without decoding; `groups` (n,) or
    None: images of one shot or signer share a number; item i: (h, w, c) uint8, asked for from
    several threads, DataError where it cannot be read. Optional: `split`, a `ClassSplit` of its
    own; `role` (n,), of each image "support", "query" or "both", what it may be in an episode;
    `parents`, of each class the name of what it belongs to, such as its alphabet; `source` (n,), of
    each image the name of whom or where it is from; `names`, what to call each image (its file);
    and `load(progress)`, all images at once as (n, h, w, c), where that is faster (`progress(done,
    total)` or None). `--data PATH` sets the option `path`.
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

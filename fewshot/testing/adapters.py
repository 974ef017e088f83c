"""The laws of an adapter, on a small network with batch norm and dropout."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map
from numpy.typing import NDArray

from ..compute.folding import folded
from ..compute.layers import BatchNorm, Flatten, Sequential
from ..core.draws import Ints
from ..core.interfaces import Adapter
from ..core.options import NoOptions
from ..data.datasets import ArrayDataset
from ..engine.embedding import embed
from ..parts.embedder import Embedder
from ..parts.metrics import cosine, euclidean, sqeuclidean
from .laws import Kind, fail, first, law, laws_of, told, touches_global_random_numbers
from .strategies import Array, seeds, shuffled, supports

_METRICS = {"euclidean": euclidean(), "sqeuclidean": sqeuclidean(), "cosine": cosine()}
_metrics = st.sampled_from(list(_METRICS))

_QUERIES = np.random.default_rng(5).integers(256, size=(9, 8, 8, 1)).astype(np.uint8)

Support = tuple[NDArray[np.uint8], Ints]

_SUPPORT: Support = (
    np.random.default_rng(6).integers(256, size=(7, 8, 8, 1)).astype(np.uint8),
    np.array([2, 0, 1, 1, 0, 2, 1]),
)


def check_adapter(factory: Callable[[Any], Adapter[Embedder]], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of an adapter."""
    KIND.check(factory, options)


def small_embedder(normalize: Any = "l2", dropout: float = 0.5) -> Embedder:
    """For images 8x8x1, with everything that has a mode or a state; always of the same weights."""
    mx.random.seed(0)
    backbone: Any = Sequential(
        nn.Conv2d(1, 4, 3, padding=1), BatchNorm(4), nn.ReLU(), Flatten(), nn.Dropout(dropout),
        nn.Linear(4 * 8 * 8, 6),
    )  # fmt: skip
    backbone.embedding_dim = 6
    mx.eval(backbone.parameters())
    return Embedder(backbone, normalize=normalize)


def state(module: nn.Module) -> dict[str, bytes]:
    """Every parameter and running statistic by name."""
    flat: Any = tree_flatten(module.parameters())
    return {name: np.array(array).tobytes() for name, array in flat}


def modes(module: nn.Module) -> list[tuple[bool, frozenset[str]]]:
    """Of every part: whether it trains, and what is frozen."""
    return [(part.training, frozenset(part._no_grad)) for part in module.modules()]


def embedded(model: Embedder, images: Array) -> Array:
    """Embeddings in eval mode."""
    return embed(model, ArrayDataset(images, np.zeros(len(images), np.int64), ["any"]))


def seen(model: Embedder, images: Array = _QUERIES) -> Array:
    """Embeddings (q, d), beside them the scores of the head that was fitted with them, if any."""
    rows = embedded(model, images)
    if model.fitted is None:
        return rows
    given, metric = mx.array(rows), euclidean()
    scores = model.fitted(given[:1], mx.array([0]), given, metric, 1)
    return np.concatenate([rows, np.array(scores)], axis=1)


@law()
def made(adapter: Any) -> None:
    """The factory makes a function from an embedder, a support, a metric and a seed."""
    if not callable(adapter):
        fail(f"the factory returned {adapter!r}, which cannot be called")


@law()
def gives_an_embedder(adapter: Adapter[Embedder]) -> None:
    """It returns an `Embedder`; a fitted head has the support's classes, and asks for none."""
    found = adapter(small_embedder(), *_SUPPORT, euclidean(), 0)
    if not isinstance(found, Embedder):
        fail(f"it returned {type(found).__name__}")
    if found.fitted is not None:
        n_way = seen(found).shape[1] - found.backbone.embedding_dim
        if n_way != 3:
            fail(f"its fitted head has scores of {n_way} classes, where the support has 3")


@law()
def the_callers_stays(adapter: Adapter[Embedder]) -> None:
    """The embedder given keeps its weights, its modes and its answers."""
    for training in (True, False):
        ours = small_embedder()
        ours.backbone.train(training)
        ours.backbone.layers[0].freeze()
        before = state(ours.backbone), modes(ours.backbone)
        answers = embedded(ours, _QUERIES)
        adapter(ours, *_SUPPORT, euclidean(), 3)
        if state(ours.backbone) != before[0]:
            fail("its weights are others afterwards: work on a copy")
        if modes(ours.backbone) != before[1]:
            fail("parts of it are in another mode, or frozen, afterwards: work on a copy")
        if not np.array_equal(embedded(ours, _QUERIES), answers):
            fail("its answers are others afterwards")


@law()
def backbone_of_its_own(adapter: Adapter[Embedder]) -> None:
    """What it returns shares no part with the embedder given: training one leaves the other."""
    ours = small_embedder()
    before = state(ours.backbone), modes(ours.backbone)
    adapted = adapter(ours, *_SUPPORT, euclidean(), 3)
    mine = {id(part) for part in ours.backbone.modules()}
    if mine & {id(part) for part in adapted.backbone.modules()}:
        fail("a module is in both backbones: work on a copy")
    adapted.backbone.update(tree_map(lambda array: array * 0 + 9, adapted.backbone.parameters()))
    adapted.backbone.freeze()
    if (state(ours.backbone), modes(ours.backbone)) != before:
        fail("changing what it returned changes the embedder given")


@law(support=supports(), metric=_metrics, normalize=st.sampled_from(["l2", "none"]))
def finite(adapter: Adapter[Embedder], support: Support, metric: str, normalize: str) -> None:
    """Embeddings and fitted scores are finite: of one image a class, of equal images, too."""
    adapted = adapter(small_embedder(normalize), *support, _METRICS[metric], 0)
    rows = seen(adapted)
    at = first(~np.isfinite(rows))
    if at:
        fail(f"an embedding or a score holds {rows[at]} for {_told(support)}")


def _told(support: Support) -> str:
    return told(labels=support[1])


@law()
def form_of_embeddings(adapter: Adapter[Embedder]) -> None:
    """`embedding_dim` is right, and embeddings are normalised as before."""
    for normalize in ("l2", "none"):
        adapted = adapter(small_embedder(normalize), *_SUPPORT, euclidean(), 0)
        found, due = embedded(adapted, _QUERIES).shape[1], adapted.backbone.embedding_dim
        if found != due:
            fail(f"an embedding has {found} numbers, where embedding_dim says {due}")
        if adapted.normalize != normalize:
            fail(f"normalize was '{normalize}' and is '{adapted.normalize}'")


@law()
def same_again(adapter: Adapter[Embedder]) -> None:
    """The same arguments give the same embedder, whatever was done or drawn before."""
    ours = small_embedder()
    for name, metric in _METRICS.items():
        mx.random.seed(1)
        once = adapter(ours, *_SUPPORT, metric, 7)
        adapter(ours, *_SUPPORT, metric, 8)
        mx.random.seed(2)
        again = adapter(ours, *_SUPPORT, metric, 7)
        if state(once.backbone) != state(again.backbone) or (seen(once) != seen(again)).any():
            fail(f"asked twice with the seed 7, the weights are others, for {told(metric=name)}")


@law(support=supports(one_colour=False), metric=_metrics, seed=seeds)
def support_order(adapter: Adapter[Embedder], support: Support, metric: str, seed: int) -> None:
    """The order of the support does not matter."""
    images, labels = support
    order = shuffled(len(labels), seed)
    one, other = (
        seen(adapter(small_embedder(), *given, _METRICS[metric], 0))
        for given in (support, (images[order], labels[order]))
    )
    if not np.allclose(one, other, rtol=0, atol=1e-5):
        fail(
            f"embeddings or scores are others with the support in the order {order.tolist()}: "
            f"{_told(support)}"
        )


@law()
def inputs_untouched(adapter: Adapter[Embedder]) -> None:
    """Images and labels are not changed."""
    images, labels = _SUPPORT[0].copy(), _SUPPORT[1].copy()
    adapter(small_embedder(), images, labels, euclidean(), 0)
    if not (np.array_equal(images, _SUPPORT[0]) and np.array_equal(labels, _SUPPORT[1])):
        fail("they are others afterwards")


@law()
def global_random_numbers(adapter: Adapter[Embedder]) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    if touches_global_random_numbers(lambda: adapter(small_embedder(), *_SUPPORT, euclidean(), 0)):
        fail("the state of `random` or `np.random` is another: fewshot.generator(seed, …) is due")


@law()
def goes_on(adapter: Adapter[Embedder]) -> None:
    """What it returns can be adapted again, and folded for single images."""
    adapted = adapter(small_embedder(), *_SUPPORT, euclidean(), 0)
    quick = evolve(adapted, backbone=folded(adapted.backbone))
    if not np.allclose(embedded(adapted, _QUERIES), embedded(quick, _QUERIES), atol=1e-4):
        fail("folded, it has other embeddings")
    twice = adapter(adapted, *_SUPPORT, euclidean(), 0)
    if not np.isfinite(embedded(twice, _QUERIES)).all():
        fail("adapted again, embeddings are not finite")


KIND = Kind("adapter", lambda factory, options: factory(options), laws_of(globals()))

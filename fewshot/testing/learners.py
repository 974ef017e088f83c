"""The laws of a learner, on a small network with everything that has a mode or a state."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from mlx.utils import tree_flatten

from ..compute.compiling import compiling
from ..core.draws import Episode, Labelled, Pairs, Triplets
from ..core.interfaces import Batch, Learner, Miner
from ..core.options import NoOptions
from ..engine.objective import Learned, Objective, batch_of
from ..parts.heads.prototypes import nearest_prototype
from ..parts.losses.pairs import contrastive
from ..parts.losses.scores import prototypical
from ..parts.losses.triplets import triplet
from ..parts.metrics import sqeuclidean
from .adapters import modes, small_embedder, state
from .laws import Kind, fail, law, laws_of, touches_global_random_numbers

LAYOUTS = ("pairs", "triplets", "episode", "labelled")


def check_learner(factory: Callable[[Any], Learner], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of a learner."""
    KIND.check(factory, options)


@frozen
class Step:
    """Parts, two batches that they learn from, and what a learner makes of the first."""

    learned: Learned
    objective: Objective
    batch: Batch
    other: Batch

    def by(self, learner: Learner, batch: Batch | None = None) -> tuple[Any, dict[str, mx.array]]:
        """Figures and gradients by name; the parts are then what they were."""
        weights, buffers = self.learned.trainable_parameters(), self.learned.parameters()
        mx.random.seed(3)
        found = learner.step(self.learned, self.objective, batch or self.batch)
        self.learned.update(buffers)
        self.learned.update(weights)
        return found[0], dict(tree_flatten(found[1]))


def step_of(learner: Learner) -> Step:
    """What a learner is tried on: two draws of 8 images that its layout, if any, allows."""
    layout = learner.layout or "episode"
    of_class = np.arange(8) % 2
    left, right = np.triu_indices(8, 1)
    every: dict[str, Any] = {
        "episode": Episode(
            np.arange(8), np.array([1, 4, 3, 6]), of_class[[1, 4, 3, 6]],
            np.array([0, 2, 5, 7]), of_class[[0, 2, 5, 7]], (0, 1),
        ),
        "pairs": Pairs(np.arange(8), left, right, of_class[left] == of_class[right]),
        "triplets": Triplets(np.arange(8), np.arange(6), np.arange(2, 8), np.arange(1, 7)),
        "labelled": Labelled(np.arange(8), of_class, (0, 1)),
    }  # fmt: skip
    loss = {"pairs": contrastive(), "triplets": triplet()}.get(layout, prototypical())
    embedder, metric = small_embedder(dropout=0.3), sqeuclidean()
    embedder.backbone.layers[0].freeze(keys=["weight"])
    width = embedder.backbone.embedding_dim
    proxies = mx.random.normal((2, width)) if layout == "labelled" else None
    learned = Learned(embedder.backbone, metric, loss, None, proxies, learner=learner.module)
    objective = Objective(embedder, metric, loss, nearest_prototype(), Miner(None), learned, layout)
    learned.train()
    mx.eval(learned.parameters())
    rng = np.random.default_rng(1)
    first, second = (
        batch_of(mx.array(rng.random((16, 8, 8, 1), np.float32)), [every[layout]] * 2)
        for _ in range(2)
    )
    return Step(learned, objective, first, second)


@law()
def made(learner: Any) -> None:
    """The factory makes a `Learner`: a function and the layout of draws it needs, or None."""
    if not isinstance(learner, Learner):
        fail(f"the factory returned {learner!r}, which is no Learner")
    if not callable(learner.step):
        fail(f"step is {learner.step!r}, which cannot be called")
    if learner.layout not in (None, *LAYOUTS):
        fail(f"layout is {learner.layout!r}: {', '.join(LAYOUTS)} or None is due")


@law()
def figures(learner: Learner) -> None:
    """As many as the objective's, single numbers, finite, the loss first."""
    step = step_of(learner)
    found, _ = step.by(learner)
    due = step.objective(step.batch)
    if len(found) != len(due):
        fail(f"there are {len(found)} figures, where the objective has {len(due)}")
    for figure in found:
        if figure.size != 1 or not np.isfinite(np.array(figure)).all():
            fail(f"a figure is {np.array(figure).tolist()}")


@law()
def gradients(learner: Learner) -> None:
    """One for every trainable parameter, of its shape and type, and none for another; finite."""
    step = step_of(learner)
    _, found = step.by(learner)
    due = dict(tree_flatten(step.learned.trainable_parameters()))
    if found.keys() != due.keys():
        fail(f"no parameter, or one without gradient: {sorted(found.keys() ^ due.keys())}")
    for name, array in found.items():
        if (array.shape, array.dtype) != (due[name].shape, due[name].dtype):
            fail(f"the gradient of {name} is {array.dtype} {array.shape}")
        if not np.isfinite(np.array(array)).all():
            fail(f"the gradient of {name} is not finite")


@law()
def downhill(learner: Learner) -> None:
    """Small steps against the gradients of one batch make its first figure smaller."""
    step = step_of(learner)
    before = step.by(learner)[0][0].item()
    for _ in range(20):
        _, found = step.by(learner)
        weights = dict(tree_flatten(step.learned.trainable_parameters()))
        length = sum(mx.square(array).sum() for array in found.values()) ** 0.5
        moved = [(n, w - 0.02 * found[n] / mx.maximum(length, 1e-6)) for n, w in weights.items()]
        step.learned.load_weights(moved, strict=False)
        mx.eval(step.learned.parameters())
    after = step.by(learner)[0][0].item()
    if not after < before:
        fail(f"it was {before:.4g}, and is {after:.4g} after 20 steps")


@law()
def asked_twice(learner: Learner) -> None:
    """The same parts and batch give the same gradients, whatever it learned from before."""
    step = step_of(learner)
    figures_once, once = step.by(learner)
    mx.eval(figures_once, once)
    step.by(learner, step.other)
    figures_again, again = step.by(learner)
    pairs = [*zip(figures_once, figures_again, strict=True), *((once[n], again[n]) for n in once)]
    if not all(np.array_equal(np.array(a), np.array(b)) for a, b in pairs):
        fail("asked again after another batch, figures or gradients are others")


@law()
def the_rest_stays(learner: Learner) -> None:
    """Frozen parameters, names of all, and modes stay; batch norm's buffers may move."""
    step = step_of(learner)
    before, how = state(step.learned), modes(step.learned)
    weights = step.learned.trainable_parameters()
    found = learner.step(step.learned, step.objective, step.batch)
    step.learned.update(weights)
    mx.eval(found, step.learned.parameters())
    after = state(step.learned)
    if after.keys() != before.keys():
        fail(f"parameters came or went: {sorted(after.keys() ^ before.keys())}")
    moved = [name for name in before if after[name] != before[name] and "running" not in name]
    if moved:
        fail(f"{moved[0]} is another afterwards")
    if modes(step.learned) != how:
        fail("parts of it are in another mode, or frozen, afterwards")


@law()
def adapts(learner: Learner) -> None:
    """Its steps on a support change trainable weights of the backbone alone, or give a layer."""
    if learner.adapt is None:
        return
    step = step_of(learner)
    embedder, support = step.objective.embedder, step.batch.split()[0].of_support()
    before, how = state(embedder.backbone), modes(embedder.backbone)
    trained = dict(tree_flatten(embedder.backbone.trainable_parameters()))
    found = learner.adapt(embedder, support, sqeuclidean(), prototypical(), nearest_prototype())
    after = state(embedder.backbone)
    moved = [name for name in before if after.get(name) != before[name] and name not in trained]
    if after.keys() != before.keys() or moved:
        fail(f"{[*moved, *(after.keys() ^ before.keys())][0]} is another afterwards")
    if modes(embedder.backbone) != how:
        fail("parts of the backbone are in another mode, or frozen, afterwards")
    if found is None:
        return
    due = (support.n_ways[0], embedder.backbone.embedding_dim)
    if not isinstance(found, nn.Linear) or found.weight.shape != due:
        fail(f"it returned {found!r}, where a linear layer {due} is due, or None")
    if not np.isfinite(np.array(found(mx.zeros((1, due[1]))))).all():
        fail("the layer's scores are not finite")


@law()
def traceable(learner: Learner) -> None:
    """It evaluates nothing, so that a step can be compiled."""
    step = step_of(learner)
    batch = step.batch

    def traced(images: mx.array) -> Any:
        given = Batch(images, batch.draws, batch.sizes, batch.n_ways)
        return learner.step(step.learned, step.objective, given)

    inputs = [step.learned.state, mx.random.state]
    try:
        with compiling():  # traced, not computed
            mx.compile(traced, inputs=inputs, outputs=inputs)(batch.images)
    except Exception as error:
        fail(f"traced, it raises {type(error).__name__}: {' '.join(str(error).split())}")


@law()
def global_random_numbers(learner: Learner) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    step = step_of(learner)
    if touches_global_random_numbers(lambda: mx.eval(step.by(learner))):
        fail("the state of `random` or `np.random` is another: mx.random is seeded at every step")


KIND = Kind("learner", lambda factory, options: factory(options), laws_of(globals()))

"""Adapters that fit the classes on the frozen network, or as a learner does."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen

from ...compute.modules import snapshot
from ...core.components import Component
from ...core.draws import Ints
from ...core.errors import ConfigError, TrainingError
from ...core.interfaces import Adapter, Batch, Head, Learner, Loss, Metric
from ...core.options import NoOptions, ZeroOr, option
from ..embedder import Embedder
from ..heads.linear import LogisticOptions, logistic
from ..heads.prototypes import nearest_prototype
from ..learners import linear_head, maml
from ..losses.scores import prototypical
from .copies import Images, in_order, own, rows_of


@frozen
class LinearProbeOptions:
    """Options of linear-probe."""

    strength: float = option(
        0.0,
        "weight of half the squared coefficients, against the sum of losses, from 0.01; 0: chosen "
        "from the support",
        ZeroOr(0.01),
    )


def linear_probe(options: LinearProbeOptions = LinearProbeOptions()) -> Adapter[Embedder]:
    """Logistic regression on the frozen network (Alain & Bengio 2017).

    The embedder stays as it is; its head is the fitted `logistic`, scores W x of embeddings x of
    length 1, with strength λ. The head `logistic` itself is the same without an adapter, but for
    the choice of λ.

    λ is of 0.01, 0.03 … 3 the one of least loss of the support, where each of up to five parts is
    left out in turn, counting images of classes that have two; 0.1 where none has. The order of
    the support does not matter.
    """

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = in_order(images, labels)
        mine, n_way = own(embedder), int(labels.max()) + 1
        rows = mx.array(rows_of(mine, images))
        strength = options.strength or _strength(rows, labels, metric, n_way)
        head = logistic(LogisticOptions(strength))
        weights = head.fit(rows, mx.array(labels), metric, n_way)

        def fit(support: mx.array, *_: Any) -> mx.array:
            return mx.broadcast_to(weights, (*support.shape[:-2], *weights.shape))

        return evolve(mine, fitted=evolve(head, fit=fit))

    return adapt


def _strength(rows: mx.array, labels: Ints, metric: Metric, n_way: int) -> float:
    """The strength of least loss of what is left out."""
    place = np.zeros(len(labels), np.int64)  # of an image in its class
    for label in range(n_way):
        place[labels == label] = np.arange((labels == label).sum())
    alone = np.bincount(labels)[labels] < 2
    folds = [(place % 5 == fold) & ~alone for fold in range(5)]
    losses = dict.fromkeys(_STRENGTHS, 0.0)
    for out in folds:
        if not out.any():
            continue
        kept, left = (mx.array(np.flatnonzero(part)) for part in (~out, out))
        truth = mx.array(labels)
        for strength in losses:
            head = logistic(LogisticOptions(strength))
            scores = head(rows[kept], truth[kept], rows[left], metric, n_way)
            losses[strength] += float(np.array(nn.losses.cross_entropy(scores, truth[left]).sum()))
    return 0.1 if alone.all() else min(losses, key=losses.__getitem__)


_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


# ----------------------------------------------------------------- steps a learner trains for


def learner(
    _: NoOptions = NoOptions(),
    *,
    learner: Learner = maml(),
    loss: Loss = prototypical(),
    head: Head = nearest_prototype(),
) -> Adapter[Embedder]:
    """The steps on the support that the run's learner trains for: the inner ones of `maml` & co.

    With the run's loss, if it is one of scores, else `prototypical`, and the run's head, if it has
    a gradient, else nearest-prototype. A linear layer of the classes that the learner fits is the
    embedder's head. Batch norm keeps its statistics, nothing is dropped. The order of the support
    does not matter. Raises ConfigError for a learner without such steps and for a frozen backbone,
    TrainingError where the weights are no longer finite.
    """
    steps = learner.adapt
    if steps is None:
        raise ConfigError(
            "adapter 'learner' takes the learner's steps on the support, and this one has none: "
            "--adapter none, or train with --learner maml"
        )
    loss = loss if loss.layout == "episode" else prototypical()
    head = head if head.differentiable else nearest_prototype()

    def adapt(
        embedder: Embedder, images: Images, labels: Ints, metric: Metric, seed: int
    ) -> Embedder:
        images, labels = in_order(images, labels)
        mine, truth, places = own(embedder), mx.array(labels), mx.arange(len(labels))
        draw = {"support": places, "query": places}
        draw |= {"support_labels": truth, "query_labels": truth}
        pixels = mx.array(embedder.prepared(images))
        support = Batch(pixels, [draw], [len(labels)], [int(labels.max()) + 1])
        classes = steps(evolve(mine, crops="one", mirror=False), support, metric, loss, head)
        if classes is not None:
            mine = evolve(mine, fitted=linear_head(classes))
        moved = [*snapshot(mine.backbone), *(snapshot(classes) if classes is not None else ())]
        mx.eval(moved)
        if not all(mx.isfinite(array).all().item() for _, array in moved):
            raise TrainingError(
                "adapter 'learner': weights are no longer finite: train with a "
                "lower learner.inner_rate"
            )
        return mine

    return adapt


COMPONENTS = (
    Component(
        "linear-probe",
        linear_probe,
        LinearProbeOptions,
        "logistic regression on the frozen network, its strength chosen on the support",
    ),
    Component(
        "learner",
        learner,
        summary="the steps on the support that the run's learner trains for: maml, anil, …",
    ),
)

"""Adapters whose embeddings are the shares of the classes, by a linear layer; a learner's own."""

from collections.abc import Callable

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
from ..learners import maml
from ..losses.scores import prototypical
from ..metrics import unit
from .copies import Images, in_order, own, rows_of

# -------------------------------------------------------- a linear layer on the embeddings


class Shares(nn.Module):
    """A backbone and a linear layer on its embeddings: images -> the classes' shares (b, n_way).

    `scaled`: what is done to embeddings before it.
    """

    def __init__(
        self, embedder: Embedder, classes: nn.Linear, scaled: Callable[[mx.array], mx.array]
    ) -> None:
        super().__init__()
        self.backbone, self.classes = embedder.backbone, classes
        if embedder.centre is not None:
            self.centre = embedder.centre
        self._scaled = scaled
        self.embedding_dim = classes.weight.shape[0]

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        rows = self.backbone(images)
        rows = self.centre(rows) if "centre" in self else rows
        return mx.softmax(self.classes(self._scaled(rows)), axis=-1)


def _shares(
    embedder: Embedder, classes: nn.Linear, scaled: Callable[[mx.array], mx.array]
) -> Embedder:
    """The centre is subtracted before the layer, and not again."""
    return evolve(embedder, backbone=Shares(embedder, classes, scaled).eval(), centre=None)


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
    """Logistic regression on the frozen network (Alain & Bengio 2017), whose shares are embeddings.

    An image is embedded as softmax(W x) (n_way), x its embedding of length 1 and W that of the head
    `logistic`, which gives the same answers without an adapter. The prototypes of shares lie near
    the corners of the simplex, so that the nearest is, but for ties, the class of most.

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
        fitted = logistic(LogisticOptions(strength)).fit(rows, mx.array(labels), metric, n_way)
        classes = nn.Linear(1, 1, bias=False)
        classes.weight = fitted.T
        return _shares(mine, classes, unit)

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
    a gradient, else nearest-prototype. Where the learner fits a linear layer of the classes, their
    shares are the embeddings, as in `linear_probe`. Batch norm keeps its statistics, nothing
    is dropped. The order of the support does not matter. Raises ConfigError for a learner without
    such steps and for a frozen backbone, TrainingError where the weights are no longer finite.
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
        classes = steps(evolve(mine, crops="one"), support, metric, loss, head)
        if classes is not None:
            mine = _shares(mine, classes, embedder.scaled)
        moved = snapshot(mine.backbone)
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
        "logistic regression on the frozen network, whose class shares are embeddings",
    ),
    Component(
        "learner",
        learner,
        summary="the steps on the support that the run's learner trains for: maml, anil, …",
    ),
)

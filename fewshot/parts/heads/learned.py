"""Heads with parts that are learned with the backbone."""

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import NoOptions, option, positive
from ..metrics import unit
from .prototypes import prototypes


@frozen
class RelationOptions:
    """Options of the relation head."""

    hidden: int = option(128, "units of the layer between a pair and its score", positive)


class Relation(nn.Module):
    """How much queries (…, q, d) are like prototypes (…, n_way, d): (…, q, n_way)."""

    def __init__(self, embedding_dim: int, hidden: int) -> None:
        super().__init__()
        # One linear layer of prototype and query side by side is the sum of two.
        self.prototype = nn.Linear(embedding_dim, hidden)
        self.query = nn.Linear(embedding_dim, hidden, bias=False)
        self.score = nn.Linear(hidden, 1)

    def __call__(self, prototypes: mx.array, query: mx.array) -> mx.array:
        """Scores of every pair, each vector at a length of √d.

        As long are the batch-normalised maps of the original; of length 1, the layer is nearly
        linear, and a sum of what it makes of either tells no class from another.
        """
        prototypes, query = (unit(x) * x.shape[-1] ** 0.5 for x in (prototypes, query))
        pairs = self.prototype(prototypes)[..., None, :, :] + self.query(query)[..., :, None, :]
        return self.score(nn.relu(pairs)).squeeze(-1)


def relation(options: RelationOptions = RelationOptions(), *, embedding_dim: int) -> Head:
    """A learned comparison of prototype and query (relation networks, Sung et al. 2018).

    r = g([p, q]) (eq. 1): g is a network of one hidden layer, to which each pair of prototype and
    query comes side by side; the metric has no say. It compares embeddings, the original feature
    maps.
    """
    module = Relation(embedding_dim, options.hidden)

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        return prototypes(support, support_labels, n_way)

    def scores(means: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return module(means, query)

    return Head(fit, scores, differentiable=True, module=module)


class SetToSet(nn.Module):
    """Prototypes (…, n_way, d) that have seen each other: one head of attention, added to each."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Linear(embedding_dim, embedding_dim, bias=False) for _ in range(3)
        )
        self.out = nn.Linear(embedding_dim, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)

    def __call__(self, prototypes: mx.array) -> mx.array:
        """Of the same shape."""
        query, key = self.query(prototypes), self.key(prototypes)
        alike = query @ key.swapaxes(-1, -2) / prototypes.shape[-1] ** 0.5
        seen = mx.softmax(alike, axis=-1) @ self.value(prototypes)
        return self.norm(prototypes + self.out(seen))


def feat(_: NoOptions = NoOptions(), *, embedding_dim: int) -> Head:
    """Minus the distance to prototypes that a transformer adapts to each other (Ye et al. 2020).

    FEAT, its eq. 4 to 6, with one attention head over the classes of the task and a layer norm; no
    dropout and no contrastive term.
    """
    module = SetToSet(embedding_dim)

    def fit(support: mx.array, support_labels: mx.array, metric: Metric, n_way: int) -> mx.array:
        return module(prototypes(support, support_labels, n_way))

    def scores(means: mx.array, query: mx.array, metric: Metric) -> mx.array:
        return -metric.table(query, means)

    return Head(fit, scores, differentiable=True, module=module)


COMPONENTS = (
    Component(
        "feat",
        feat,
        summary="minus the distance to class means that a transformer has adapted to each other",
    ),
    Component(
        "relation",
        relation,
        RelationOptions,
        "a learned comparison of class mean and query, trained by an episode loss",
    ),
)

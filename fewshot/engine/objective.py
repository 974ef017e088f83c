"""What training makes small: draws compared by the metric, judged by the loss."""

from collections.abc import Callable, Mapping

import mlx.core as mx
import mlx.nn as nn

from ..compute.modules import evaluating, late_parameters, parameter_count, parameter_shapes
from ..core.draws import Draw, DrawLayout, Episode, Labelled, Layout
from ..core.errors import ConfigError
from ..core.interfaces import Head, Loss, Metric, Sampler
from ..parts.embedder import Embedder

Arrays = Mapping[str, mx.array]

# What a loss reads of a draw.
_PARTS: dict[DrawLayout, tuple[str, ...]] = {
    "pairs": ("left", "right", "same"),
    "triplets": ("anchor", "positive", "negative"),
    "episode": ("support", "support_labels", "query", "query_labels"),
    "labelled": ("labels",),
}

# The draws that a loss of each layout can compare.
_FITS: dict[Layout, tuple[DrawLayout, ...]] = {
    "pairs": ("pairs",),
    "triplets": ("triplets",),
    "episode": ("episode", "labelled"),
}


class Learned(nn.Module):
    """Backbone, metric and loss in one module: what training leaves and a checkpoint saves."""

    def __init__(self, backbone: nn.Module, metric: Metric, loss: Loss | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        for name, part in (("metric", metric), ("loss", loss)):
            if part is not None and isinstance(part.fn, nn.Module):
                self[name] = part.fn


def _arrays(draw: Draw, layout: DrawLayout) -> Arrays:
    return {name: mx.array(getattr(draw, name)) for name in _PARTS[layout]}


def _n_way(draw: Draw) -> int:
    return draw.n_way if isinstance(draw, Episode) else 0


def _compare(
    embeddings: mx.array,
    draw: Arrays,
    n_way: int,
    metric: Metric,
    loss: Loss,
    head: Head | None,
    proxies: mx.array | None,
) -> mx.array:
    """The loss's values, one per pair, triplet, query or labelled image, of an embedded draw."""
    if loss.layout == "pairs":
        distances = metric.fn(embeddings[draw["left"]], embeddings[draw["right"]])
        return loss.fn(distances, draw["same"])
    if loss.layout == "triplets":
        anchor = embeddings[draw["anchor"]]
        return loss.fn(
            metric.fn(anchor, embeddings[draw["positive"]]),
            metric.fn(anchor, embeddings[draw["negative"]]),
        )
    if proxies is not None:
        return loss.fn(-metric.table(embeddings, proxies), draw["labels"])
    assert head is not None  # `check_fits`
    support, query = embeddings[draw["support"]], embeddings[draw["query"]]
    scores = head.scores(support, draw["support_labels"], query, metric, n_way)
    return loss.fn(scores, draw["query_labels"])


def check_fits(
    embedder: Embedder, sampler: Sampler[Draw], loss: Loss, metric: Metric, head: Head | None
) -> None:
    """Raise ConfigError where these cannot be trained together.

    That is: the sampler does not draw what the loss compares, episodes have no head with a
    gradient, or the loss's margin is beyond the metric's bound.
    """
    if sampler.layout not in _FITS[loss.layout]:
        raise ConfigError(
            f"the loss wants '{loss.layout}' draws, the sampler gives '{sampler.layout}': take a "
            "sampler that fits (the command line chooses one where none is named)"
        )
    if sampler.layout == "episode" and (head is None or not head.differentiable):
        raise ConfigError(
            "episodes are trained on through the head, and this one has no gradient: use "
            "nearest-prototype"
        )
    bounded = embedder.normalize == "l2" or "scale_free" in metric.laws
    upper = metric.upper(embedder.backbone.embedding_dim)
    if bounded and loss.margin is not None and loss.margin > upper:
        raise ConfigError(
            f"the loss's margin {loss.margin:g} is out of reach: this metric is at most {upper:g} "
            "between embeddings of length 1"
        )


def check_learned(
    embedder: Embedder,
    sampler: Sampler[Draw],
    loss: Loss,
    metric: Metric,
    head: Head | None,
    shape: tuple[int, int, int],
    steps: int,
) -> None:
    """Raise ConfigError where `steps` steps would train nothing, or a part is not there yet.

    The backbone is asked about an image of `shape`, the rest about a draw's embeddings, all zeros.
    """
    learned = Learned(embedder.backbone, metric, loss)
    _require_trainable(learned, steps)
    draw, d = sampler.draw(0, 0), embedder.backbone.embedding_dim
    proxies = mx.zeros((draw.n_way, d)) if isinstance(draw, Labelled) else None

    def asked() -> None:
        embedder.backbone(mx.zeros((1, *shape)))
        embeddings, n_way = mx.zeros((len(draw.items), d)), _n_way(draw)
        arrays = _arrays(draw, sampler.layout)
        _compare(embeddings, arrays, n_way, metric, loss, head, proxies)

    _require_made(learned, asked)


def _require_trainable(learned: Learned, steps: int) -> None:
    if steps and not parameter_count(learned):
        raise ConfigError(
            "nothing to train: backbone, metric and loss have no weight that is not frozen: "
            "training.steps=0 evaluates them as they are"
        )


def _require_made(learned: Learned, ask: Callable[[], object]) -> None:
    """Ask the parts, in eval mode: nothing is computed, but what is made at a call is made."""
    before = parameter_shapes(learned)
    with evaluating(learned):
        ask()
    if late := late_parameters(learned, before):
        raise ConfigError(
            f"'{late[0]}' is no parameter, or of another shape, until it is first called, and "
            "would not be trained: make it in __init__"
        )

"""What training makes small: draws compared by the metric, judged by the loss."""

from collections.abc import Callable, Mapping, Sequence

import attrs
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from ..compute.modules import (
    evaluating,
    is_frozen,
    late_parameters,
    parameter_count,
    parameter_shapes,
)
from ..compute.tables import without_own
from ..core.draws import Draw, DrawLayout, Labelled, Layout
from ..core.errors import ConfigError
from ..core.interfaces import Batch, Head, Learner, Loss, Metric, Miner, Mixer, Sampler
from ..core.seeding import mlx_seed
from ..parts.embedder import Embedder

Arrays = Mapping[str, mx.array]


class Memory(nn.Module):
    """The last n embeddings and their labels, the newest first; a label of -1: none yet."""

    def __init__(self, n: int, embedding_dim: int) -> None:
        super().__init__()
        self.embeddings = mx.zeros((n, embedding_dim))
        self.labels = mx.full((n,), -1, mx.int32)
        self.freeze()

    def keep(self, embeddings: mx.array, labels: mx.array) -> None:
        """Put these in front; the oldest are forgotten."""
        n = len(self.labels)
        labels = labels.astype(mx.int32)
        self.embeddings = mx.concatenate([mx.stop_gradient(embeddings), self.embeddings])[:n]
        self.labels = mx.concatenate([labels, self.labels])[:n]


Values = tuple[mx.array, mx.array | None]  # a loss's values, and how much each counts


class Learned(nn.Module):
    """All that training changes, in one module: what it leaves and a checkpoint saves.

    `backbone`; `metric`, `loss`, `head` and `learner` where they have learned parts; `proxies`
    (n_way · centres, d), vectors of classes that an episode loss compares labelled images with;
    `memory` of a loss that has one; `centre`, which an embedder may subtract outside training, is
    only kept here.
    """

    def __init__(
        self,
        backbone: nn.Module,
        metric: Metric,
        loss: Loss | None = None,
        head: Head | None = None,
        proxies: mx.array | None = None,
        centre: nn.Module | None = None,
        learner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        parts = {
            "metric": metric.fn,
            "loss": loss and loss.fn,
            "head": head and head.module,
            "centre": centre,
            "learner": learner,
        }
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self[name] = part
        if proxies is not None:
            self.proxies = proxies
        if loss is not None and loss.memory:
            self.memory = Memory(loss.memory, backbone.embedding_dim)

    def train(self, mode: bool = True) -> "Learned":
        """Set the mode of all parts; what is frozen, with its running statistics, stays in eval."""
        super().train(mode)
        for _, part in self.named_modules()[1:] if mode else ():
            if is_frozen(part):
                part.eval()
        return self


def proxies_of(sampler: Sampler[Draw], loss: Loss, width: int, seed: int) -> mx.array | None:
    """Vectors (n_way · centres, width), where an episode loss is to learn from labelled images.

    The centres of a class stand together.
    """
    if (sampler.layout, loss.layout) != ("labelled", "episode"):
        return None
    first = sampler.draw(seed, 0)
    assert isinstance(first, Labelled)
    key = mx.random.key(mlx_seed(seed, "proxies"))
    return mx.random.normal((first.n_way * sampler.centres, width), key=key)


def arrays(draw: Draw) -> Arrays:
    """What a loss reads of a draw: all but which images and classes these are."""
    names = [a.name for a in attrs.fields(type(draw)) if a.name not in ("items", "classes")]
    return {name: mx.array(getattr(draw, name)) for name in names}


def batch_of(
    images: mx.array, draws: Sequence[Draw], targets: Sequence[NDArray[np.float32]] = ()
) -> Batch:
    """Draws and their images, in order, as a learner takes them; `targets` of each, where mixed."""
    soft = [{"targets": mx.array(np.ascontiguousarray(rows))} for rows in targets] or [
        {} for _ in draws
    ]
    return Batch(
        images,
        [{**arrays(draw), **more} for draw, more in zip(draws, soft, strict=True)],
        [len(draw.items) for draw in draws],
        [getattr(draw, "n_way", 0) for draw in draws],
    )


@frozen
class Objective:
    """The loss of a batch, and the share of its values above 0, of the parts as they are now.

    `layout`: what the sampler draws.
    """

    embedder: Embedder
    metric: Metric
    loss: Loss
    head: Head | None
    miner: Miner
    learned: Learned
    layout: DrawLayout

    def __call__(self, batch: Batch) -> tuple[mx.array, mx.array]:
        """Mean of all values, with the auxiliary ones' added, and the share above 0."""
        embeddings = self.embedder(batch.images)
        found, start = [], 0
        for draw, size, n_way in zip(batch.draws, batch.sizes, batch.n_ways, strict=True):
            values, weights = self.values(embeddings[start : start + size], draw, n_way)
            ones = mx.ones_like(values) if weights is None else weights.astype(values.dtype)
            found.append((values.flatten(), ones.flatten()))
            start += size
        every, counts = (mx.concatenate(list(part)) for part in zip(*found, strict=True))
        total = mx.maximum(counts.sum(), 1e-12)
        mean = (every * counts).sum() / total
        if self.loss.auxiliary is not None:
            mean = mean + self.loss.auxiliary(self.embedder.backbone, batch.images).mean()
        return mean, ((every > 0) * counts).sum() / total

    def values(self, embeddings: mx.array, draw: Arrays, n_way: int) -> Values:
        """The loss's values of one draw's embeddings, and how much each counts; None: alike."""
        return LAYOUTS[self.loss.layout].fed_by[self.layout].compare(self, embeddings, draw, n_way)


# ------------------------------------------------------------------- a comparison a layout


def _pairs(o: Objective, x: mx.array, draw: Arrays, _: int) -> Values:
    return o.loss.fn(o.metric.fn(x[draw["left"]], x[draw["right"]]), draw["same"]), None


def _triplets(o: Objective, x: mx.array, draw: Arrays, _: int) -> Values:
    anchor = x[draw["anchor"]]
    distances = (o.metric.fn(anchor, x[draw[name]]) for name in ("positive", "negative"))
    return o.loss.fn(*distances), None


def _episode(o: Objective, x: mx.array, draw: Arrays, n_way: int) -> Values:
    assert o.head is not None  # `check_fits`
    support, query = x[draw["support"]], x[draw["query"]]
    scores = o.head(support, draw["support_labels"], query, o.metric, n_way)
    return o.loss.fn(scores, draw["query_labels"]), None


def _proxies(o: Objective, x: mx.array, draw: Arrays, n_way: int) -> Values:
    proxies = o.embedder.scaled(o.learned.proxies)
    to_centres = o.metric.table(x, proxies).reshape(len(x), n_way, -1)
    distances = to_centres.min(axis=-1) if o.loss.centres is None else o.loss.centres(to_centres)
    return o.loss.fn(-distances, draw.get("targets", draw["labels"])), None


def _against_others(o: Objective, x: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    """Distances (b, m) of each image to the others, and the others' labels.

    m is b − 1, and with a memory as many more as that holds: while some of these are none yet,
    columns of the batch's own stand in their place.
    """
    b = len(x)
    distances = without_own(o.metric.table(x, x))
    others = without_own(mx.broadcast_to(labels, (b, b)))
    if not o.loss.memory:
        return distances, others
    memory = o.learned.memory
    n = len(memory.labels)
    there, own = memory.labels >= 0, mx.arange(n) % (b - 1)
    earlier = mx.where(there, o.metric.table(x, memory.embeddings), distances[:, own])
    of_earlier = mx.where(there, memory.labels, others[:, own])
    if o.learned.training:
        memory.keep(x, labels)
    return (
        mx.concatenate([distances, earlier], axis=1),
        mx.concatenate([others, of_earlier.astype(others.dtype)], axis=1),
    )


def _batch(o: Objective, x: mx.array, draw: Arrays, _: int) -> Values:
    distances, others = _against_others(o, x, draw["labels"])
    return o.loss.fn(distances, draw["labels"], others), None


def _mined(o: Objective, x: mx.array, labels: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Distances (b, m), whether of one class (b, m), and the miner's mask."""
    distances, others = _against_others(o, x, labels)
    same = others == labels[:, None]
    if o.miner.mask is None:
        return distances, same, mx.ones(same.shape, mx.bool_)
    return distances, same, o.miner.mask(mx.stop_gradient(distances), labels, others)


def _mined_pairs(o: Objective, x: mx.array, draw: Arrays, _: int) -> Values:
    distances, same, mask = _mined(o, x, draw["labels"])
    if mask.ndim == 3:
        triplets = mask & _possible(same)
        mask = triplets.any(axis=2) | triplets.any(axis=1)
    values = o.loss.fn(distances.flatten(), same.flatten())
    return values, mask.flatten()


def _mined_triplets(o: Objective, x: mx.array, draw: Arrays, _: int) -> Values:
    distances, same, mask = _mined(o, x, draw["labels"])
    if mask.ndim == 2:
        mask = mask[:, :, None] & mask[:, None, :]
    b, m = distances.shape
    to_positive = mx.broadcast_to(distances[:, :, None], (b, m, m))
    to_negative = mx.broadcast_to(distances[:, None, :], (b, m, m))
    values = o.loss.fn(to_positive.flatten(), to_negative.flatten())
    return values, (mask & _possible(same)).flatten()


def _possible(same: mx.array) -> mx.array:
    """(b, m) -> (b, m, m): triplets whose positive is of the class and whose negative is not."""
    return same[:, :, None] & ~same[:, None, :]


@frozen
class Feed:
    """How draws of one layout become a loss's values, and the sampler of them to start with."""

    compare: Callable[[Objective, mx.array, Arrays, int], Values]
    sampler: str


@frozen
class Fed:
    """What a loss of one layout is fed: by the layouts of draws that serve it, the usual one first.

    `head`: what it is tested with where no other is named.
    """

    fed_by: Mapping[DrawLayout, Feed]
    head: str

    def sampler(self, draws: DrawLayout | None) -> str:
        """That of the draws that a loss is meant for; None: the usual one."""
        return (next(iter(self.fed_by.values())) if draws is None else self.fed_by[draws]).sampler


LAYOUTS: dict[Layout, Fed] = {
    "pairs": Fed(
        {"pairs": Feed(_pairs, "all-pairs"), "labelled": Feed(_mined_pairs, "balanced")},
        "nearest-support",
    ),
    "triplets": Fed(
        {"triplets": Feed(_triplets, "triplets"), "labelled": Feed(_mined_triplets, "balanced")},
        "nearest-support",
    ),
    "episode": Fed(
        {"episode": Feed(_episode, "episodes"), "labelled": Feed(_proxies, "proxies")},
        "nearest-prototype",
    ),
    "batch": Fed({"labelled": Feed(_batch, "balanced")}, "nearest-prototype"),
}


# ------------------------------------------------------------------------- what fits


def check_fits(
    embedder: Embedder,
    sampler: Sampler[Draw],
    loss: Loss,
    metric: Metric,
    head: Head | None,
    miner: Miner = Miner(None),
    learner: Learner | None = None,
    mixer: Mixer = Mixer(None),
) -> None:
    """Raise ConfigError where these cannot be trained together.

    That is: the sampler does not draw what loss and learner want, episodes have no head with a
    gradient, a learned head has no episodes, there is nothing to mine or to mix, the metric lacks a
    law that loss or miner requires, or the loss's margin is beyond the metric's bound.
    """
    fed_by = LAYOUTS[loss.layout].fed_by
    if sampler.layout not in fed_by:
        raise ConfigError(
            f"the loss wants '{loss.layout}' draws, the sampler gives '{sampler.layout}': take a "
            "sampler that fits (the command line chooses one where none is named)"
        )
    if learner is not None and learner.layout not in (None, sampler.layout):
        raise ConfigError(
            f"the learner wants '{learner.layout}' draws, the sampler gives '{sampler.layout}': "
            "take a sampler that fits, or the learner plain"
        )
    if miner.mask is not None and (
        sampler.layout != "labelled" or loss.layout not in ("pairs", "triplets")
    ):
        raise ConfigError(
            "a miner chooses among the images of a class-balanced batch for a loss of pairs or "
            f"triplets: here the loss wants '{loss.layout}' and the sampler gives "
            f"'{sampler.layout}' draws (--miner none, or --sampler balanced)"
        )
    if loss.memory and sampler.layout != "labelled":
        raise ConfigError(
            "a loss with a memory compares labelled images with those of earlier batches, and the "
            f"sampler gives '{sampler.layout}' draws (--sampler balanced)"
        )
    of_batch = loss.fn if loss.layout == "batch" else miner.mask
    if loss.memory and of_batch is not None and not _takes_others(of_batch):
        raise ConfigError(
            "a loss with a memory compares a batch with images outside it, and the loss, or the "
            "miner, takes those of the batch alone: take another (--miner none)"
        )
    if mixer.mix is not None and (
        sampler.layout != "labelled" or loss.layout != "episode" or not loss.soft
    ):
        takes = "takes" if loss.soft else "takes no"
        raise ConfigError(
            "a mixer mixes labelled images for a loss of scores that takes soft targets: here the "
            f"loss wants '{loss.layout}' draws and {takes} soft targets, the sampler gives "
            f"'{sampler.layout}' draws (--mixer none, or --loss prototypical --sampler proxies)"
        )
    if sampler.layout == "episode" and (head is None or not head.differentiable):
        raise ConfigError(
            "episodes are trained on through the head, and this one has no gradient: use "
            "nearest-prototype"
        )
    if sampler.layout != "episode" and head is not None and head.module is not None:
        raise ConfigError(
            "a head with learned parts is trained by an episode loss on episodes (--loss "
            f"prototypical), and the sampler gives '{sampler.layout}' draws"
        )
    for name, part in (("loss", loss), ("miner", miner)):
        missing = sorted(part.requires - metric.laws)
        if missing:
            way_out = "--metric cosine" if "cosine" in missing else "take another with --metric"
            raise ConfigError(
                f"the {name} requires of its metric the law {' and '.join(missing)}, which this "
                f"one does not keep: {way_out}"
            )
    bounded = embedder.normalize == "l2" or "scale_free" in metric.laws
    upper = metric.upper(embedder.backbone.embedding_dim)
    if bounded and loss.margin is not None and loss.margin > upper:
        raise ConfigError(
            f"the loss's margin {loss.margin:g} is out of reach: this metric is at most {upper:g} "
            "between embeddings of length 1"
        )


def _takes_others(fn: Callable[..., mx.array]) -> bool:
    """Whether it takes distances of 3 images to 5 others."""
    labels, others = mx.array([0, 0, 1]), mx.array([[0, 1, 0, 1, 2]] * 3)
    try:
        mx.eval(fn(mx.ones((3, 5)), labels, others))
    except ValueError:
        return False
    return True


def check_learned(objective: Objective, draw: Draw, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError where steps would train nothing, or a part is not there yet.

    The backbone is asked about an image of `shape`, the rest about a draw's embeddings, all zeros.
    """
    require_trainable(objective.learned, 1)
    backbone = objective.embedder.backbone

    def asked() -> None:
        backbone(mx.zeros((1, *shape)))
        embeddings = mx.zeros((len(draw.items), backbone.embedding_dim))
        objective.values(embeddings, arrays(draw), getattr(draw, "n_way", 0))

    require_made(objective.learned, asked)


def require_trainable(learned: Learned, steps: int) -> None:
    """Raise ConfigError where there are steps and nothing for them to change."""
    if steps and not parameter_count(learned):
        raise ConfigError(
            "nothing to train: backbone, metric, loss and head have no weight that is not frozen: "
            "training.steps=0 evaluates them as they are"
        )


def require_made(learned: Learned, ask: Callable[[], object]) -> None:
    """Ask the parts, in eval mode: nothing is computed, but what is made at a call is made.

    Raises ConfigError where that changes which parameters there are.
    """
    before = parameter_shapes(learned)
    with evaluating(learned):
        ask()
    if late := late_parameters(learned, before):
        raise ConfigError(
            f"'{late[0]}' is no parameter, or of another shape, until it is first called, and "
            "would not be trained: make it in __init__"
        )

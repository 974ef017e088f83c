"""Losses of scores: of queries among an episode's classes, or of images among learned proxies."""

import math

import mlx.core as mx
import mlx.nn as nn
from attrs import evolve, frozen

from ...compute.tables import log_sum, mean_of
from ...core.components import Component
from ...core.interfaces import Loss
from ...core.options import NoOptions, at_least, below, option, positive, within


@frozen
class PrototypicalOptions:
    """Options of the prototypical cross-entropy."""

    temperature: float = option(1.0, "scores are divided by it before the softmax", positive)
    label_smoothing: float = option(
        0.0, "share spread over all classes", within(at_least(0), below(1))
    )


def prototypical(options: PrototypicalOptions = PrototypicalOptions()) -> Loss:
    """−log softmax(scores / T)[label]: Snell et al. 2017, equation 2, with a temperature T.

    With soft targets, the mean of these over the classes, weighted by the target.
    """

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        return nn.losses.cross_entropy(
            scores / options.temperature, labels, label_smoothing=options.label_smoothing
        )

    return Loss(fn=values, layout="episode", soft=True)


def _own(scores: mx.array, labels: mx.array) -> mx.array:
    """(…, q, n_way): whether a class is the query's own."""
    return mx.arange(scores.shape[-1]) == labels[..., None]


@frozen
class NormfaceOptions:
    """Options of NormFace."""

    scale: float = option(20.0, "cosines are multiplied by it before the softmax", positive)


def normface(options: NormfaceOptions = NormfaceOptions()) -> Loss:
    """−log softmax(s · cosines)[label], the normalised softmax: Wang et al. 2017, "NormFace"."""
    return _of_cosines(0.0, options.scale)


@frozen
class CosfaceOptions:
    """Options of CosFace."""

    margin: float = option(
        0.35, "taken from the cosine of the own class", within(at_least(0), below(2))
    )
    scale: float = option(64.0, "cosines are multiplied by it before the softmax", positive)


def cosface(options: CosfaceOptions = CosfaceOptions()) -> Loss:
    """−log softmax(s · cosines)[label], where the label's is cos θ − m: Wang et al. 2018, eq. 4."""
    return _of_cosines(options.margin, options.scale)


def _of_cosines(margin: float, scale: float) -> Loss:
    def values(scores: mx.array, labels: mx.array) -> mx.array:
        logits = scale * mx.where(_own(scores, labels), scores - margin, scores)
        return nn.losses.cross_entropy(logits, labels)  # the 1 of cos θ = 1 − D is in all of them

    return Loss(fn=values, layout="episode", requires=["cosine"], draws="labelled")


@frozen
class SoftTripleOptions:
    """Options of SoftTriple."""

    margin: float = option(
        0.01, "taken from the likeness of the own class", within(at_least(0), below(2))
    )
    scale: float = option(20.0, "likenesses are multiplied by it before the softmax", positive)
    softness: float = option(0.1, "cosines to a class's centres are divided by it", positive)


def soft_triple(options: SoftTripleOptions = SoftTripleOptions()) -> Loss:
    """CosFace's loss of likenesses to classes of several centres, Σₖ softmax(cos θ / γ)ₖ cos θₖ.

    Qian et al. 2019, section 3; without the term that draws a class's centres together.
    """

    def likeness(distances: mx.array) -> mx.array:
        return (mx.softmax(-distances / options.softness, axis=-1) * distances).sum(axis=-1)

    return evolve(_of_cosines(options.margin, options.scale), centres=likeness)


@frozen
class ArcfaceOptions:
    """Options of ArcFace."""

    margin: float = option(
        0.5, "angle in radians added to that of the own class", within(at_least(0), below(math.pi))
    )
    scale: float = option(64.0, "cosines are multiplied by it before the softmax", positive)


def arcface(options: ArcfaceOptions = ArcfaceOptions()) -> Loss:
    """−log softmax(s · cosines)[label], where the label's is cos(θ + m): Deng et al. 2019, eq. 3.

    Scores are minus the distances 1 − cos θ to the classes' proxies (or prototypes). Where θ + m is
    beyond π and the cosine would rise again it goes on falling, as −2 − cos(θ + m) (Liu et al.
    2017's ψ), without the step that the paper's code makes there to cos θ − m sin m.
    """
    cos_m, sin_m = math.cos(options.margin), math.sin(options.margin)

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        cosines = 1 + mx.clip(scores, -2, 0)
        own = labels[..., None]
        score = mx.clip(mx.take_along_axis(scores, own, axis=-1), -2, 0)
        cos = 1 + score
        # sin² from the distance keeps its digits where cos is near 1; the root's gradient at 0 is 0
        squares = -score * (2 + score)
        flat = squares <= 0
        sin = mx.where(flat, 0.0, mx.sqrt(mx.where(flat, 1.0, squares)))
        moved = cos * cos_m - sin * sin_m
        moved = mx.where(cos >= -cos_m, moved, -2 - moved)
        logits = options.scale * mx.where(_own(scores, labels), moved, cosines)
        return nn.losses.cross_entropy(logits, labels)

    return Loss(fn=values, layout="episode", requires=["cosine"], draws="labelled")


def proxy_nca(_: NoOptions = NoOptions()) -> Loss:
    """−log(exp(−D(x, own proxy)) / Σ exp(−D(x, other proxies))): Movshovitz-Attias et al. 2017.

    Section 3 of the paper, where D is `sqeuclidean` between vectors of length 1. The own class is
    not in the sum, so values fall below 0. With it there (Teh et al. 2020, "ProxyNCA++"), and a
    temperature, the loss is `cross-entropy` over proxies.
    """

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        own = _own(scores, labels)
        right = mx.where(own, scores, 0).sum(axis=-1)
        return mx.where((~own).any(axis=-1), log_sum(scores, ~own) - right, 0)

    return Loss(fn=values, layout="episode", draws="labelled")


@frozen
class ProxyAnchorOptions:
    """Options of the proxy anchor loss."""

    margin: float = option(
        0.1, "added to cosines of other classes, taken from the own", at_least(0)
    )
    scale: float = option(32.0, "cosines are multiplied by it", positive)


def proxy_anchor(options: ProxyAnchorOptions = ProxyAnchorOptions()) -> Loss:
    """Kim et al. 2020, equation 4: every proxy against the images of its class and the others.

    Mean over the batch's classes of log(1 + Σ exp(−s(cos θ − m))) over a class's own images, plus
    the mean over all classes of log(1 + Σ exp(s(cos θ + m))) over the others'. Every image of the
    batch has that one value.
    """

    def values(scores: mx.array, labels: mx.array) -> mx.array:
        cosines, own = 1 + scores, _own(scores, labels)
        pull = log_sum(-options.scale * (cosines - options.margin), own, axis=-2)
        push = log_sum(options.scale * (cosines + options.margin), ~own, axis=-2)
        total = mean_of(nn.softplus(pull), own.any(axis=-2)) + nn.softplus(push).mean(axis=-1)
        return mx.broadcast_to(total[..., None], labels.shape)

    return Loss(fn=values, layout="episode", requires=["cosine"], draws="labelled")


COMPONENTS = (
    Component(
        "prototypical",
        prototypical,
        PrototypicalOptions,
        "episodes: cross-entropy of the head's scores / temperature",
    ),
    Component("cross-entropy", prototypical, PrototypicalOptions, "the same as prototypical"),
    Component(
        "normface", normface, NormfaceOptions, "proxies: cross-entropy of cosines times a scale"
    ),
    Component(
        "cosface",
        cosface,
        CosfaceOptions,
        "proxies: cross-entropy of cosines, a margin on the own class's cosine",
    ),
    Component(
        "arcface",
        arcface,
        ArcfaceOptions,
        "proxies or episodes: cross-entropy of cosines, a margin on the own class's angle",
    ),
    Component(
        "sub-center-arcface",
        arcface,
        ArcfaceOptions,
        "proxies: arcface, several proxies a class, of which the nearest counts (Deng et al. 2020)",
        implies={"sampler": {"centres": 3}},
    ),
    Component(
        "soft-triple",
        soft_triple,
        SoftTripleOptions,
        "proxies: cross-entropy of cosines, several proxies a class in a soft mean",
        implies={"sampler": {"centres": 10}},
    ),
    Component(
        "proxy-nca", proxy_nca, summary="proxies: the own one's distance against the others'"
    ),
    Component(
        "proxy-anchor",
        proxy_anchor,
        ProxyAnchorOptions,
        "proxies: each against the batch's images of its class and the others",
    ),
)

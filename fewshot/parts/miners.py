"""Which pairs or triplets of a batch a loss learns from."""

import math
from typing import Literal

import mlx.core as mx
from attrs import frozen

from ..compute.tables import largest, smallest, with_own, without_own
from ..core.components import Component
from ..core.interfaces import Miner
from ..core.options import NoOptions, at_least, below, option, positive, within


def none(_: NoOptions = NoOptions()) -> Miner:
    """All that the sampler draws."""
    return Miner(None)


def batch_hard(_: NoOptions = NoOptions()) -> Miner:
    """For each image its farthest positive and its nearest negative: a mask of pairs.

    Hermans et al. 2017, equation 5: one triplet an image. All of several equally far are taken,
    so that their order in the batch does not matter.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        farthest, nearest = largest(distances, same), smallest(distances, ~same)
        return mx.where(same, distances == farthest, distances == nearest)

    return Miner(mask)


@frozen
class SemiHardOptions:
    """Options of semi-hard negatives."""

    margin: float = option(0.3, "how much farther than the positive: the loss's margin", positive)


def semi_hard(options: SemiHardOptions = SemiHardOptions()) -> Miner:
    """Triplets whose negative is farther than the positive, but by less than the margin.

    Schroff et al. 2015, section 3.2: D(a, p) < D(a, n) < D(a, p) + m. All such negatives are taken.
    A positive without any is left out of the step; a batch without any triplet changes no weight.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        to_positive, to_negative = distances[:, :, None], distances[:, None, :]
        band = (to_negative > to_positive) & (to_negative < to_positive + options.margin)
        return band & same[:, :, None] & ~same[:, None, :]

    return Miner(mask)


@frozen
class BatchEasyHardOptions:
    """Options of batch-easy-hard."""

    positives: Literal["easy", "hard"] = option("easy", "easy: the nearest; hard: the farthest")
    negatives: Literal["easy", "semi-hard", "hard"] = option(
        "semi-hard",
        "hard: the nearest; semi-hard: the nearest beyond the positive; easy: the farthest",
    )


def batch_easy_hard(options: BatchEasyHardOptions = BatchEasyHardOptions()) -> Miner:
    """For each image one positive and one negative, easy or hard: a mask of pairs.

    Xuan, Stylianou & Pless 2020: the nearest positive lets a class keep several looks. An image
    that lacks either, or a semi-hard negative, is left out; all of several equally far are
    taken.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        easy = options.positives == "easy"
        positive = smallest(distances, same) if easy else largest(distances, same)
        possible = ~same & (distances > positive) if options.negatives == "semi-hard" else ~same
        easy = options.negatives == "easy"
        negative = largest(distances, possible) if easy else smallest(distances, possible)
        chosen = mx.where(same, distances == positive, possible & (distances == negative))
        return chosen & mx.isfinite(positive) & mx.isfinite(negative)

    return Miner(mask)


@frozen
class HardPairsOptions:
    """Options of hard pairs."""

    positives: float = option(0.2, "positives farther than this are hard", at_least(0))
    negatives: float = option(0.8, "negatives nearer than this are hard", positive)


def hard_pairs(options: HardPairsOptions = HardPairsOptions()) -> Miner:
    """Positives that are too far, and negatives that are too near: a mask of pairs."""

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        return mx.where(same, distances > options.positives, distances < options.negatives)

    return Miner(mask)


@frozen
class MultiSimilarityPairsOptions:
    """Options of the multi-similarity miner."""

    margin: float = option(0.1, "how much easier than the hardest of the others a pair may be")


def multi_similarity_pairs(
    options: MultiSimilarityPairsOptions = MultiSimilarityPairsOptions(),
) -> Miner:
    """Pairs that are hard beside an image's others: a mask of pairs.

    Negatives nearer than its farthest positive + ε, and positives farther than its nearest
    negative − ε: Wang et al. 2019, eq. 11 and 12, whose cosines are 1 − D.
    """

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        far = distances > smallest(distances, ~same) - options.margin
        near = distances < largest(distances, same) + options.margin
        return mx.where(same, far, near)

    return Miner(mask)


@frozen
class AngularTripletsOptions:
    """Options of the angular miner."""

    angle: float = option(
        20.0, "degrees; pairs seen under a larger angle are mined", within(at_least(0), below(90))
    )


def angular_triplets(options: AngularTripletsOptions = AngularTripletsOptions()) -> Miner:
    """Triplets whose pair is seen from the negative under a large angle.

    tan α = |a − p| / (2 |n − c|), c midway between a and p: the angle of Wang et al. 2017, section
    3. Between vectors of length 1 squared lengths are 2 D, hence the cosine metric.
    """
    t = math.tan(math.radians(options.angle)) ** 2

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        table, same = with_own(distances, 0.0), with_own(others == labels[:, None], False)
        pair = table[:, :, None]
        to_middle = (table[:, None, :] + table[None]) / 2 - pair / 4  # Apollonius
        seen = pair > 4 * t * to_middle
        possible = same[:, :, None] & with_own(others != labels[:, None], False)[:, None, :]
        triplets = without_own(seen & possible).swapaxes(1, 2)
        return without_own(triplets).swapaxes(1, 2)

    return Miner(mask, requires=["cosine"])


def _chance(*distances: mx.array) -> mx.array:
    """Numbers between 0 and 1, as if by chance, of distances' bits (Appleby's MurmurHash3)."""
    h = mx.array(0, mx.uint32)
    for each in distances:
        h = h * mx.array(0x9E3779B1, mx.uint32) + (each + 0.0).view(mx.uint32)  # -0 is 0
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            h = (h ^ (h >> shift)) * mx.array(factor, mx.uint32)
    return ((h >> 8).astype(mx.float32) + 0.5) / (1 << 24)


@frozen
class DistanceWeightedOptions:
    """Options of distance-weighted negatives."""

    cutoff: float = option(0.5, "nearer negatives (|x − y|) weigh as if they were so far", positive)
    largest: float = option(
        1.4, "farther negatives (|x − y|) are not drawn", within(positive, below(2))
    )


def distance_weighted(
    options: DistanceWeightedOptions = DistanceWeightedOptions(), embedding_dim: int = 128
) -> Miner:
    """For each image and positive one negative, drawn so that all distances are equally likely.

    Wu, Manmatha, Smola & Krähenbühl 2017, section 4: with a chance ∝ 1 / q(d), where
    q(d) ∝ d^(n−2) (1 − d²/4)^((n−3)/2) is how many points of the unit sphere in n dimensions are at
    d = |x − y| = √(2 D). The chance is drawn from the distances' own bits.
    """
    n = embedding_dim

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        drawable = (~same & (2 * distances < options.largest**2))[:, None, :]
        squares = mx.clip(2 * distances, options.cutoff**2, options.largest**2)
        log_weights = -((n - 2) * mx.log(squares) + (n - 3) * mx.log(1 - squares / 4)) / 2
        luck = -mx.log(-mx.log(_chance(distances[:, :, None], distances[:, None, :])))  # Gumbel's
        keys = log_weights[:, None, :] + luck
        return (keys == largest(keys, drawable)) & drawable & same[:, :, None]

    return Miner(mask, requires=["cosine"])


@frozen
class UniformPairsOptions:
    """Options of uniform pairs."""

    bins: int = option(20, "equal parts of the range of distances", positive)
    per_bin: int = option(32, "pairs of each, about", positive)


def uniform_pairs(options: UniformPairsOptions = UniformPairsOptions()) -> Miner:
    """About as many pairs of every distance, positives and negatives apart: a mask of pairs.

    The range of distances between the least and the largest is cut into bins; where there are
    more than `per_bin` in one, each is kept with a chance of per_bin / how many, drawn from its
    distance's own bits.
    """

    def kept(distances: mx.array, kind: mx.array) -> mx.array:
        every = distances.reshape(1, -1), kind.reshape(1, -1)
        least = smallest(*every)
        width = mx.maximum(largest(*every) - least, 1e-12) / options.bins
        places = mx.clip(mx.floor((distances - least) / width), 0, options.bins - 1)
        within_bin = (places[..., None] == mx.arange(options.bins)) & kind[..., None]
        counts = (within_bin * within_bin.sum(axis=(0, 1))).sum(axis=-1)
        return kind & (_chance(distances) * counts < options.per_bin)

    def mask(distances: mx.array, labels: mx.array, others: mx.array) -> mx.array:
        same = others == labels[:, None]
        return kept(distances, same) | kept(distances, ~same)

    return Miner(mask)


COMPONENTS = (
    Component("none", none, summary="every pair or triplet that the sampler draws"),
    Component(
        "batch-hard", batch_hard, summary="each image's farthest positive and nearest negative"
    ),
    Component(
        "semi-hard",
        semi_hard,
        SemiHardOptions,
        "negatives farther than the positive, but within a margin",
    ),
    Component(
        "batch-easy-hard",
        batch_easy_hard,
        BatchEasyHardOptions,
        "each image's nearest positive, and the nearest negative beyond it",
    ),
    Component(
        "hard-pairs",
        hard_pairs,
        HardPairsOptions,
        "positives beyond a distance, negatives within one",
    ),
    Component(
        "multi-similarity",
        multi_similarity_pairs,
        MultiSimilarityPairsOptions,
        "pairs that are hard beside an image's others",
    ),
    Component(
        "angular",
        angular_triplets,
        AngularTripletsOptions,
        "triplets whose pair is seen from the negative under a large angle",
    ),
    Component(
        "distance-weighted",
        distance_weighted,
        DistanceWeightedOptions,
        "a negative for each positive, all distances equally likely",
    ),
    Component(
        "uniform", uniform_pairs, UniformPairsOptions, "about as many pairs of every distance"
    ),
)

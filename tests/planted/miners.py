"""Miners with a fault, and odd ones without."""

import mlx.core as mx
import numpy as np

from fewshot import Miner, batch_hard
from planted import Collection

CASES = Collection("miner")


def alike(labels, others):
    return others == labels[:, None]


@CASES.breaks("made")
def a_bare_function(_):
    return lambda distances, labels, others: distances < 1


@CASES.breaks("made")
def a_mask_of_numbers(_):
    return Miner(mx.ones((3, 2), mx.bool_))


@CASES.breaks("made")
def requires_what_no_metric_keeps(_):
    return Miner(None, requires=["angles"])


@CASES.breaks("shape")
def the_whole_batch(_):
    def mask(distances, labels, others):
        return labels[:, None] == labels

    return Miner(mask)


@CASES.breaks("shape")
def one_place_an_image(_):
    return Miner(lambda distances, labels, others: distances.min(axis=1) < 1)


@CASES.breaks("boolean")
def weights(_):
    return Miner(lambda distances, labels, others: mx.exp(-distances))


@CASES.breaks("traced")
def by_numpy(_):
    def mask(distances, labels, others):
        return mx.array(np.array(distances) <= np.median(np.array(distances)))

    return Miner(mask)


@CASES.breaks("traced")
def all_where_none_is_near(_):
    def mask(distances, labels, others):
        near = distances < 1
        return near if near.any() else ~near

    return Miner(mask)


@CASES.breaks("lonely")
def needs_positives(_):
    def mask(distances, labels, others):
        positives = np.array(distances)[np.array(alike(labels, others))]
        return distances <= positives.max()

    return Miner(mask)


@CASES.breaks("mines")
def nothing(_):
    return Miner(lambda distances, labels, others: distances < 0)


@CASES.breaks("mines")
def positives_alone(_):
    return Miner(lambda distances, labels, others: alike(labels, others))


@CASES.breaks("mines")
def triplets_of_one_class(_):
    def mask(distances, labels, others):
        same = alike(labels, others)
        return same[:, :, None] & same[:, None, :]

    return Miner(mask)


@CASES.breaks("batch order")
def the_first_of_equals(_):
    def mask(distances, labels, others):
        nearest = mx.where(alike(labels, others), mx.inf, distances).argmin(axis=1)
        chosen = mx.arange(distances.shape[1]) == nearest[:, None]
        return chosen | alike(labels, others)

    return Miner(mask)


@CASES.breaks("batch order")
def the_first_half_of_the_images(_):
    def mask(distances, labels, others):
        b, m = distances.shape
        return mx.broadcast_to(mx.arange(b)[:, None] < b // 2, (b, m))

    return Miner(mask)


@CASES.breaks("class names")
def no_anchor_of_class_1(_):
    def mask(distances, labels, others):
        return mx.broadcast_to(labels[:, None] != 1, distances.shape)

    return Miner(mask)


@CASES.breaks("asked twice")
def by_chance(_):
    def mask(distances, labels, others):
        return mx.random.uniform(shape=distances.shape) < 0.5

    return Miner(mask)


@CASES.breaks("asked twice")
def the_nearest_so_far(_):
    seen = [mx.array(mx.inf)]

    def mask(distances, labels, others):
        before = seen[0]
        seen[0] = mx.minimum(before, distances.min())
        return distances <= before

    return Miner(mask)


@CASES.breaks("inputs untouched")
def in_place(_):
    def mask(distances, labels, others):
        distances -= distances.mean()
        return distances < 0

    return Miner(mask)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def all_of_the_batch(_):
    return Miner(lambda distances, labels, others: mx.ones(distances.shape, mx.bool_))


@CASES.sound
def none_to_be_had(_):
    return Miner(None)


@CASES.sound
def triplets_of_the_hardest(_):
    def mask(distances, labels, others):
        pairs = batch_hard().mask(distances, labels, others)
        return pairs[:, :, None] & pairs[:, None, :]

    return Miner(mask)


@CASES.sound
def below_the_median(_):
    return Miner(lambda d, labels, others: d <= mx.sort(d.flatten())[d.size // 2])

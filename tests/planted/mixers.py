"""Mixers with a fault, and odd ones without."""

import numpy as np

from fewshot import Mixer, cutmix, mixup
from planted import Collection

CASES = Collection("mixer")


def blended(images, targets, other, kept):
    """As mixup: `kept` (b,) of each, the rest of another."""
    kept = np.asarray(kept, np.float32)
    wide = kept[:, None, None, None]
    mixed = images * wide + images[other] * (1 - wide)
    return np.clip(mixed, 0, 1), targets * kept[:, None] + targets[other] * (1 - kept[:, None])


def halves(images, targets, rng):
    return blended(images, targets, rng.permutation(len(images)), np.full(len(images), 0.5))


@CASES.breaks("made")
def a_bare_function(_):
    return halves


@CASES.breaks("made")
def images_alone(_):
    return Mixer(lambda images, targets, rng: halves(images, targets, rng)[0])


@CASES.breaks("shape")
def both_images_side_by_side(_):
    def mix(images, targets, rng):
        other = rng.permutation(len(images))
        both = np.concatenate([images, images[other]], axis=2)
        return both, (targets + targets[other]) / 2

    return Mixer(mix)


@CASES.breaks("shape")
def two_labels_and_a_share(_):
    def mix(images, targets, rng):
        mixed, rows = halves(images, targets, rng)
        return mixed, np.concatenate([rows, np.zeros((len(rows), 1), np.float32)], axis=1)

    return Mixer(mix)


@CASES.breaks("float32")
def shares_in_float64(_):
    def mix(images, targets, rng):
        mixed, rows = halves(images, targets, rng)
        return mixed, rows.astype(np.float64)

    return Mixer(mix)


@CASES.breaks("within range")
def extrapolated(_):
    def mix(images, targets, rng):
        other = rng.permutation(len(images))
        return images + (images - images[other]) / 2, (targets + targets[other]) / 2

    return Mixer(mix)


@CASES.breaks("targets")
def both_labels_count_whole(_):
    def mix(images, targets, rng):
        other = rng.permutation(len(images))
        return (images + images[other]) / 2, np.maximum(targets, targets[other])

    return Mixer(mix)


@CASES.breaks("targets")
def extrapolated_targets(_):
    def mix(images, targets, rng):
        other = rng.permutation(len(images))
        return images, targets * np.float32(1.5) - targets[other] * np.float32(0.5)

    return Mixer(mix)


@CASES.breaks("shares")
def the_share_of_the_other(_):
    def mix(images, targets, rng):
        other, kept = rng.permutation(len(images)), rng.random(len(images))
        return blended(images, targets, other, kept)[0], blended(images, targets, other, 1 - kept)[
            1
        ]

    return Mixer(mix)


@CASES.breaks("shares")
def targets_of_another_order(_):
    def mix(images, targets, rng):
        one, other = (rng.permutation(len(images)) for _ in range(2))
        kept = np.full(len(images), 0.5)
        return blended(images, targets, one, kept)[0], blended(images, targets, other, kept)[1]

    return Mixer(mix)


@CASES.breaks("shares")
def a_rectangle_that_is_counted_whole(_):
    def mix(images, targets, rng):
        b, h, w, _ = images.shape
        other, top, left = rng.permutation(b), rng.integers(h), rng.integers(w)
        mixed = images.copy()
        mixed[:, top : top + 3, left : left + 3] = images[other, top : top + 3, left : left + 3]
        kept = np.full(b, max(0, 1 - 9 / (h * w)))  # of which some may be beyond the border
        return mixed, blended(images, targets, other, kept)[1]

    return Mixer(mix)


@CASES.breaks("mixes")
def as_they_are(_):
    return Mixer(lambda images, targets, rng: (images, targets))


@CASES.breaks("mixes")
def only_of_one_class(_):
    def mix(images, targets, rng):
        order = np.argsort(targets.argmax(axis=1), kind="stable")
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        other = np.where((targets == targets[other]).all(axis=1), other, np.arange(len(images)))
        return blended(images, targets, other, rng.random(len(images)))

    return Mixer(mix)


@CASES.breaks("class names")
def the_first_class_is_not_mixed(_):
    def mix(images, targets, rng):
        kept = np.maximum(rng.random(len(images)), targets[:, 0])
        return blended(images, targets, rng.permutation(len(images)), kept)

    return Mixer(mix)


@CASES.breaks("inputs untouched")
def images_in_place(_):
    def mix(images, targets, rng):
        images *= 0.5
        return images, targets

    return Mixer(mix)


@CASES.breaks("inputs untouched")
def targets_in_place(_):
    def mix(images, targets, rng):
        targets[:] = (targets + targets[rng.permutation(len(images))]) / 2
        return images, targets

    return Mixer(mix)


@CASES.breaks("generator alone")
def an_order_from_numpy_itself(_):
    def mix(images, targets, rng):
        kept = np.random.rand(len(images))  # noqa: NPY002
        return blended(images, targets, rng.permutation(len(images)), kept)

    return Mixer(mix)


@CASES.breaks("generator alone")
def with_the_batch_before(_):
    before = []

    def mix(images, targets, rng):
        before.append(images.shape)
        kept = np.full(len(images), 1 / len(before))
        return blended(images, targets, np.roll(np.arange(len(images)), 1), kept)

    return Mixer(mix)


@CASES.breaks("global random numbers")
def seeds_numpy(_):
    def mix(images, targets, rng):
        np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
        return halves(images, targets, rng)

    return Mixer(mix)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def one_half_of_each(_):
    return Mixer(halves)


@CASES.sound
def nothing_to_mix(_):
    return Mixer(None)


@CASES.sound
def by_turns(_):
    def mix(images, targets, rng):
        chosen = mixup() if rng.random() < 0.5 else cutmix()
        return chosen.mix(images, targets, rng)

    return Mixer(mix)

"""Transforms with a fault, and odd ones without."""

import random

import mlx.core as mx
import numpy as np

from fewshot import ConfigError
from planted import Collection

CASES = Collection("transform")


def brightness(images, rng):
    factors = rng.uniform(0.5, 1, (len(images), 1, 1, 1)).astype(np.float32)
    return images * factors


@CASES.breaks("made")
def a_number(_):
    return 0.5


@CASES.breaks("made")
def an_mlx_array(_):
    return lambda images, rng: mx.array(images)


@CASES.breaks("shape")
def centre_crop(_):
    return lambda images, rng: images[:, 1:-1, 1:-1]


@CASES.breaks("shape")
def to_grey(_):
    return lambda images, rng: images.mean(-1, keepdims=True)


@CASES.breaks("shape")
def quarter_turns_of_squares_only(_):
    return lambda images, rng: np.rot90(images, axes=(1, 2)).copy()


@CASES.breaks("float32")
def float64_noise(_):
    return lambda images, rng: np.clip(images + rng.normal(0, 0.01, images.shape), 0, 1)


@CASES.breaks("finite")
def standardised_by_its_own_spread(_):
    def apply(images, rng):
        with np.errstate(invalid="ignore"):
            centred = images - images.mean((1, 2, 3), keepdims=True)
            return centred / images.std((1, 2, 3), keepdims=True)

    return apply


@CASES.breaks("within range")
def brightness_unclipped(_):
    return lambda images, rng: 2 * brightness(images, rng)


@CASES.breaks("inputs untouched")
def in_place(_):
    def apply(images, rng):
        images *= 0.5
        return images

    return apply


@CASES.breaks("generator alone")
def noise_from_numpy_itself(_):
    def apply(images, rng):
        factors = np.random.rand(len(images), 1, 1, 1)  # noqa: NPY002
        return (images * factors).astype(np.float32)

    return apply


@CASES.breaks("generator alone")
def darker_each_time(_):
    calls = []

    def apply(images, rng):
        calls.append(0)
        return images * np.float32(0.9 ** len(calls))

    return apply


@CASES.breaks("no memory")
def mixed_with_the_batch_before(_):
    before = []

    def apply(images, rng):
        last = before[-1] if before else images
        if not before or last.shape != images.shape or not np.array_equal(last, images):
            before.append(images.copy())
        return (images + len(before) / 100).astype(np.float32) / 2

    return apply


@CASES.breaks("global random numbers")
def seeds_numpy(_):
    def apply(images, rng):
        np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
        factors = np.random.rand(len(images), 1, 1, 1)  # noqa: NPY002
        return (images * factors).astype(np.float32)

    return apply


@CASES.breaks("global random numbers")
def seeds_python(_):
    def apply(images, rng):
        random.seed(int(rng.integers(2**32)))
        factors = np.array([random.random() for _ in images], np.float32)
        return images * factors[:, None, None, None]

    return apply


@CASES.breaks("own numbers")
def one_number_for_all(_):
    return lambda images, rng: images * np.float32(rng.random())


@CASES.breaks("image alone")
def contrast_about_the_batch(_):
    return lambda images, rng: (images + images.mean()) / 2


@CASES.breaks("image alone")
def mixup(_):
    def apply(images, rng):
        return (images + images[rng.permutation(len(images))]) / 2

    return apply


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def whitened(_):
    return lambda images, rng: (images - np.float32(0.5)) * np.float32(8)


@CASES.sound
def nothing(_):
    return lambda images, rng: images


@CASES.sound
def rgb_only(_):
    def apply(images, rng):
        if images.shape[-1] != 3:
            raise ConfigError("rgb-only: three channels are due")
        return images[..., ::-1].copy()

    return apply


@CASES.sound
def rarely_anything(_):
    def apply(images, rng):
        kept = (rng.random(len(images)) < 0.9)[:, None, None, None]
        return np.where(kept, images, 1 - images)

    return apply

"""Adapters with a fault, and odd ones without."""

import random

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve

from fewshot import Embedder, generator
from fewshot.parts.adapters.copies import none
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import linear_head
from planted import Collection

CASES = Collection("adapter")
COPY = none()


class Changed(nn.Module):
    """A backbone and what is done to its embeddings."""

    def __init__(self, backbone, change):
        super().__init__()
        self.backbone = backbone
        self.embedding_dim = backbone.embedding_dim
        self.change = change

    def __call__(self, images):
        return self.change(self.backbone(images))


def changed(embedder, change):
    """A copy whose embeddings are changed."""
    mine = COPY(embedder, None, None, None, 0)
    return evolve(mine, backbone=Changed(mine.backbone, change).eval())


@CASES.breaks("made")
def a_number(_):
    return 3


@CASES.breaks("gives an embedder")
def a_backbone(_):
    return lambda embedder, images, labels, metric, seed: (
        COPY(embedder, images, labels, metric, seed).backbone
    )


@CASES.breaks("gives an embedder")
def a_head_that_fits_the_support_it_is_given(_):
    def adapt(embedder, images, labels, metric, seed):
        return evolve(COPY(embedder, images, labels, metric, seed), fitted=nearest_prototype())

    return adapt


@CASES.breaks("finite")
def a_head_that_divides_by_the_spread(_):
    def adapt(embedder, images, labels, metric, seed):
        classes = nn.Linear(6, int(labels.max()) + 1)
        classes.weight = classes.weight / mx.array(float(images.std() > 0))
        return evolve(COPY(embedder, images, labels, metric, seed), fitted=linear_head(classes))

    return adapt


@CASES.breaks("support order")
def a_head_by_the_first_image(_):
    def adapt(embedder, images, labels, metric, seed):
        classes = nn.Linear(6, int(labels.max()) + 1, bias=False)
        classes.weight = mx.full(classes.weight.shape, float(images[0].mean()))
        return evolve(COPY(embedder, images, labels, metric, seed), fitted=linear_head(classes))

    return adapt


@CASES.breaks("the callers stays")
def trains_the_callers(_):
    def adapt(embedder, images, labels, metric, seed):
        last = embedder.backbone.layers[-1]
        last.weight = last.weight * 0.9
        return COPY(embedder, images, labels, metric, seed)

    return adapt


@CASES.breaks("the callers stays")
def leaves_it_in_eval_mode(_):
    def adapt(embedder, images, labels, metric, seed):
        embedder.backbone.eval()
        return COPY(embedder, images, labels, metric, seed)

    return adapt


@CASES.breaks("backbone of its own")
def the_same_backbone(_):
    return lambda embedder, images, labels, metric, seed: evolve(embedder)


@CASES.breaks("finite")
def divided_by_the_spread(_):
    def adapt(embedder, images, labels, metric, seed):
        spread = float(np.std(images / 255.0))
        scale = mx.array(0.0) / mx.array(spread) if spread == 0 else mx.array(1.0)
        return changed(embedder, lambda rows: rows * scale)

    return adapt


@CASES.breaks("form of embeddings")
def one_number_more(_):
    return lambda embedder, images, labels, metric, seed: changed(
        embedder, lambda rows: mx.concatenate([rows, rows[:, :1]], axis=1)
    )


@CASES.breaks("form of embeddings")
def always_of_length_one(_):
    def adapt(embedder, images, labels, metric, seed):
        return evolve(COPY(embedder, images, labels, metric, seed), normalize="l2")

    return adapt


class Scaled(Changed):
    """A backbone times a learned number for each part of an embedding."""

    def __init__(self, backbone, scale):
        super().__init__(backbone, None)
        self.scale = scale

    def __call__(self, images):
        return self.backbone(images) * self.scale


def scaled(embedder, scale):
    mine = COPY(embedder, None, None, None, 0)
    return evolve(mine, backbone=Scaled(mine.backbone, scale).eval())


@CASES.breaks("same again")
def drawn_from_mlx(_):
    return lambda embedder, images, labels, metric, seed: scaled(
        embedder, mx.random.uniform(shape=(6,))
    )


@CASES.breaks("same again")
def counts_its_calls(_):
    calls = []

    def adapt(embedder, images, labels, metric, seed):
        calls.append(0)
        return scaled(embedder, mx.full((6,), 1.0 + len(calls)))

    return adapt


@CASES.breaks("support order")
def the_first_image_decides(_):
    return lambda embedder, images, labels, metric, seed: scaled(
        embedder, mx.array(np.arange(1.0, 7.0, dtype=np.float32)) ** (images[0].mean() / 64)
    )


@CASES.breaks("inputs untouched")
def sorts_the_labels(_):
    def adapt(embedder, images, labels, metric, seed):
        labels[:] = np.sort(labels)
        return COPY(embedder, images, labels, metric, seed)

    return adapt


@CASES.breaks("global random numbers")
def seeds_python(_):
    def adapt(embedder, images, labels, metric, seed):
        random.seed(seed)
        return COPY(embedder, images, labels, metric, seed)

    return adapt


@CASES.breaks("goes on")
def adapted_but_once(_):
    def adapt(embedder, images, labels, metric, seed):
        assert not isinstance(embedder.backbone, Changed), "adapted already"
        return changed(embedder, lambda rows: rows)

    return adapt


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def a_random_scale_by_the_seed(_):
    return lambda embedder, images, labels, metric, seed: scaled(
        embedder, mx.array(generator(seed, "scale").uniform(1, 2, 6).astype(np.float32))
    )


@CASES.sound
def of_another_size(_):
    def adapt(embedder, images, labels, metric, seed):
        mine = changed(embedder, lambda rows: mx.concatenate([rows, rows], axis=1))
        mine.backbone.embedding_dim *= 2
        return Embedder(mine.backbone, mine.preprocess, mine.normalize)

    return adapt

"""Learners with a fault, and odd ones without."""

import random

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from fewshot import Learner
from fewshot.parts.learners import MamlOptions, ReptileOptions, anil, maml, plain, reptile
from fewshot.testing.learners import step_of
from planted import Collection

CASES = Collection("learner")
GOOD = plain()


def changed(change):
    """The plain gradient, changed: `change(model, figures, gradients)`."""

    def step(model, objective, batch):
        return change(model, *GOOD.step(model, objective, batch))

    return Learner(step)


@CASES.breaks("made")
def a_bare_function(_):
    return GOOD.step


@CASES.breaks("made")
def a_layout_of_its_own(_):
    return Learner(GOOD.step, "tasks")


@CASES.breaks("figures")
def the_loss_alone(_):
    return changed(lambda model, figures, gradients: (figures[:1], gradients))


@CASES.breaks("figures")
def losses_not_averaged(_):
    return changed(lambda model, figures, gradients: ((mx.ones(3), figures[1]), gradients))


@CASES.breaks("gradients")
def of_the_backbone_alone_by_its_own_names(_):
    return changed(lambda model, figures, gradients: (figures, gradients["backbone"]))


@CASES.breaks("gradients")
def divided_by_nothing(_):
    return changed(
        lambda model, figures, gradients: (figures, tree_map(lambda g: g / (0 * g), gradients))
    )


@CASES.breaks("downhill")
def the_wrong_sign(_):
    return changed(lambda model, figures, gradients: (figures, tree_map(lambda g: -g, gradients)))


@CASES.breaks("downhill")
def the_first_step_undone_too_early(_):
    """Reptile's difference, taken the wrong way round."""

    def step(model, objective, batch):
        figures, gradients = GOOD.step(model, objective, batch)
        before = model.trainable_parameters()
        model.update(tree_map(lambda w, g: w - 0.1 * g, before, gradients))
        return figures, tree_map(lambda a, b: a - b, model.trainable_parameters(), before)

    return Learner(step)


@CASES.breaks("asked twice")
def with_momentum_of_its_own(_):
    last = []

    def change(model, figures, gradients):
        if last:
            gradients = tree_map(lambda a, b: a + 0.5 * b, gradients, last[-1])
        last.append(gradients)
        return figures, gradients

    return changed(change)


@CASES.breaks("the rest stays")
def trains_in_eval_mode(_):
    def step(model, objective, batch):
        model.eval()
        return GOOD.step(model, objective, batch)

    return Learner(step)


@CASES.breaks("the rest stays")
def decays_what_is_frozen(_):
    def change(model, figures, gradients):
        first = model.backbone.layers[0]
        first.weight = first.weight * 0.9
        return figures, gradients

    return changed(change)


@CASES.breaks("adapts")
def adapts_in_training_mode(_):
    """Batch norm's statistics move with the support's."""

    def adapt(embedder, support, metric, loss, head):
        embedder.backbone.train()
        embedder(support.images)

    return Learner(GOOD.step, adapt=adapt)


@CASES.breaks("adapts")
def a_layer_of_one_class_too_many(_):
    def adapt(embedder, support, metric, loss, head):
        return nn.Linear(embedder.backbone.embedding_dim, support.n_ways[0] + 1)

    return Learner(GOOD.step, adapt=adapt)


@CASES.breaks("adapts")
def adapts_what_is_frozen(_):
    def adapt(embedder, support, metric, loss, head):
        embedder.backbone.layers[0].weight = embedder.backbone.layers[0].weight * 0.9

    return Learner(GOOD.step, adapt=adapt)


@CASES.breaks("downhill")
def reptile_to_where_it_came_from(_):
    """The difference of weights, the wrong way round."""
    good = reptile(ReptileOptions(inner_steps=1))

    def step(model, objective, batch):
        figures, gradients = good.step(model, objective, batch)
        return figures, tree_map(mx.negative, gradients)

    return Learner(step)


@CASES.breaks("the rest stays")
def leaves_the_inner_weights_frozen(_):
    """ANIL by freezing the body, which stays frozen."""
    good = anil()

    def step(model, objective, batch):
        found = good.step(model, objective, batch)
        model.backbone.freeze()
        return found

    return Learner(step, "episode")


@CASES.breaks("traceable")
def looks_at_the_loss(_):
    return changed(
        lambda model, figures, gradients: (
            figures,
            gradients if figures[0].item() > 0 else tree_map(lambda g: 0 * g, gradients),
        )
    )


@CASES.breaks("global random numbers")
def noise_from_python(_):
    def change(model, figures, gradients):
        scale = 1 + 0.0 * random.random()
        return figures, tree_map(lambda g: scale * g, gradients)

    return changed(change)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def of_first_order(_):
    return maml(MamlOptions(inner_steps=1, second_order=False))


@CASES.sound
def with_rates_of_its_own(_):
    return maml(
        MamlOptions(1, learned_rates=True, multi_step=3, first_order_steps=2),
        backbone=step_of(GOOD).learned.backbone,
    )


@CASES.sound
def noisy_by_mlx(_):
    return changed(
        lambda model, figures, gradients: (
            figures,
            tree_map(lambda g: g * mx.random.uniform(0.9, 1.1, g.shape), gradients),
        )
    )


@CASES.sound
def of_pairs_alone(_):
    return Learner(GOOD.step, "pairs")


@CASES.sound
def of_labelled_images_alone(_):
    return Learner(GOOD.step, "labelled")


@CASES.sound
def of_triplets_alone(_):
    return Learner(GOOD.step, "triplets")

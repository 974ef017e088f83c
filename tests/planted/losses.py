"""Losses with a fault, and odd ones without."""

import mlx.core as mx
import mlx.nn as nn

from fewshot import Loss, prototypical
from fewshot.compute.tables import with_own, without_own
from planted import Collection

CASES = Collection("loss")


def contrast(d, same, m=1.0):
    return mx.where(same, d * d, mx.maximum(m - d, 0) ** 2)


def hinge(near, far, m=0.5):
    return mx.maximum(near - far + m, 0)


def entropy(scores, labels):
    return nn.losses.cross_entropy(scores, labels)


def nt_xent(d, labels, others):
    same = others == labels[:, None]
    costs = mx.logsumexp(-d, axis=1, keepdims=True) + d
    return mx.where(same, costs, 0).sum(1) / mx.maximum(same.sum(1), 1)


@CASES.breaks("made")
def a_bare_function(_):
    return contrast


@CASES.breaks("made")
def a_layout_of_its_own(_):
    return Loss(contrast, "quadruplets")


@CASES.breaks("made")
def meant_for_draws_that_cannot_serve_it(_):
    return Loss(contrast, "pairs", draws="episode")


@CASES.breaks("made")
def a_margin_below_zero(_):
    return Loss(contrast, "pairs", margin=-1.0)


@CASES.breaks("made")
def requires_what_no_metric_keeps(_):
    return Loss(contrast, "pairs", requires={"angles"})


@CASES.breaks("traced")
def a_look_at_a_number(_):
    def fn(d, same):
        return contrast(d, same) if same.any().item() else 0 * d

    return Loss(fn, "pairs")


@CASES.breaks("traced")
def no_value_at_all(_):
    return Loss(lambda d, labels, others: mx.zeros((0,)), "batch")


@CASES.breaks("one value each")
def takes_the_mean_itself(_):
    return Loss(lambda d, same: contrast(d, same).mean(), "pairs")


@CASES.breaks("one value each")
def one_value_a_class(_):
    return Loss(lambda scores, labels: -scores, "episode")


@CASES.breaks("float32")
def half_precision(_):
    return Loss(lambda near, far: hinge(near, far).astype(mx.bfloat16), "triplets")


@CASES.breaks("finite")
def the_log_of_a_distance(_):
    return Loss(lambda d, same: mx.where(same, d, -mx.log(d)), "pairs")


@CASES.breaks("finite")
def balanced_by_a_count_of_none(_):
    def fn(d, same):
        return contrast(d, same) * mx.where(same, 1 / same.sum(), 1 / (~same).sum())

    def divided(d, same):
        pull = (d * d * same).sum() / same.sum()
        return contrast(d, same) + 0 * pull

    return Loss(divided, "pairs")


@CASES.breaks("finite gradient")
def a_bare_root(_):
    return Loss(lambda d, same: mx.where(same, mx.sqrt(d), mx.maximum(1 - d, 0)), "pairs")


@CASES.breaks("finite gradient")
def a_root_of_the_hinge(_):
    return Loss(lambda near, far: mx.sqrt(hinge(near, far)), "triplets")


@CASES.breaks("finite")
def a_mean_over_no_positives(_):
    def fn(d, labels, others):
        same = others == labels[:, None]
        return (d * same).sum(1) / same.sum(1) - d.mean(1)

    return Loss(fn, "batch")


@CASES.breaks("through a metric")
def an_angle_by_arccos(_):
    return Loss(
        lambda scores, y: entropy(-mx.arccos(1 + scores), y), "episode", requires={"cosine"}
    )


@CASES.breaks("through a metric")
def a_root_of_every_distance(_):
    def fn(d, labels, others):
        return nt_xent(mx.sqrt(d), labels, others)

    return Loss(fn, "batch", requires={"identity"})


@CASES.breaks("direction")
def distances_for_similarities(_):
    return Loss(lambda d, labels, others: nt_xent(-d, labels, others), "batch")


@CASES.breaks("direction")
def same_and_different_confused(_):
    return Loss(lambda d, same: contrast(d, ~same), "pairs")


@CASES.breaks("direction")
def anchor_far_from_the_positive(_):
    return Loss(lambda near, far: hinge(far, near), "triplets")


@CASES.breaks("direction")
def scores_for_distances(_):
    return Loss(lambda scores, labels: entropy(-scores, labels), "episode")


def of_centres(centres):
    return Loss(entropy, "episode", draws="labelled", centres=centres)


@CASES.breaks("centres")
def farther_than_every_centre(_):
    return of_centres(lambda d: d.sum(axis=-1))


@CASES.breaks("centres")
def the_first_centre(_):
    return of_centres(lambda d: d[..., 0])


@CASES.breaks("centres")
def a_root_of_the_mean_square(_):
    return of_centres(lambda d: mx.sqrt((d * d).mean(axis=-1)))


@CASES.breaks("centres")
def one_for_all_classes(_):
    return of_centres(lambda d: d.min())


@CASES.breaks("teaches")
def a_constant(_):
    return Loss(lambda d, same: 0 * d + 1, "pairs")


@CASES.breaks("teaches")
def no_negatives_in_the_batch(_):
    def fn(d, labels, others):
        return mx.where(others == labels[:, None], d, 0)

    return Loss(fn, "batch")


@CASES.breaks("teaches")
def no_negatives(_):
    return Loss(lambda d, same: mx.where(same, d * d, 0 * d), "pairs")


@CASES.breaks("teaches")
def a_gradient_cut_off(_):
    return Loss(lambda s, y: entropy(mx.stop_gradient(s), y), "episode")


@CASES.breaks("margin")
def twice_the_margin_it_says(_):
    return Loss(lambda d, same: contrast(d, same, 2.0), "pairs", margin=1.0)


@CASES.breaks("margin")
def half_the_margin_it_says(_):
    return Loss(lambda near, far: hinge(near, far, 0.5), "triplets", margin=1.0)


@CASES.breaks("order")
def neighbours_count(_):
    return Loss(lambda d, same: mx.cumsum(contrast(d, same)), "pairs")


@CASES.breaks("order")
def the_first_weighs_double(_):
    def fn(near, far):
        return hinge(near, far) * (1 + (mx.arange(near.shape[0]) == 0))

    return Loss(fn, "triplets")


@CASES.breaks("batch order")
def the_first_image_weighs_double(_):
    def fn(d, labels, others):
        return nt_xent(d, labels, others) * (1 + (mx.arange(len(labels)) == 0))

    return Loss(fn, "batch")


@CASES.breaks("batch order")
def the_first_other_weighs_double(_):
    def fn(d, labels, others):
        return nt_xent(d * (1 + (mx.arange(d.shape[1]) == 0)), labels, others)

    return Loss(fn, "batch")


@CASES.breaks("batch class names")
def class_0_does_not_count(_):
    return Loss(lambda d, labels, others: nt_xent(d, labels, others) * (labels > 0), "batch")


@CASES.breaks("class names")
def the_first_class_weighs_double(_):
    return Loss(lambda s, y: entropy(s, y) * mx.where(y == 0, 2.0, 1.0), "episode")


@CASES.breaks("class names")
def labels_from_one(_):
    return Loss(lambda s, y: entropy(s, mx.maximum(y - 1, 0)), "episode")


@CASES.breaks("asked twice")
def hinge_with_dropout(_):
    return Loss(lambda near, far: nn.Dropout(0.5)(hinge(near, far)), "triplets")


@CASES.breaks("inputs untouched")
def in_place(_):
    def fn(near, far):
        near -= far
        return mx.maximum(near + 0.5, 0)

    return Loss(fn, "triplets")


class Tempered(nn.Module):
    """Cross-entropy with a learned temperature."""

    def __init__(self, start=1.0):
        super().__init__()
        self.temperature = mx.array(start)

    def __call__(self, scores, labels):
        return entropy(scores / self.temperature, labels)


class Rooted(Tempered):
    """Adds the root of a temperature of 0."""

    def __call__(self, scores, labels):
        return entropy(scores, labels) + mx.sqrt(self.temperature)


@CASES.breaks("learned parts")
def the_root_of_a_learned_zero(_):
    return Loss(Rooted(0.0), "episode")


class Late(nn.Module):
    """A temperature, made at the first call."""

    def __call__(self, scores, labels):
        if "temperature" not in self:
            self.temperature = mx.array(1.0)
        return entropy(scores / self.temperature, labels)


@CASES.breaks("made whole")
def weights_at_the_first_call(_):
    return Loss(Late(), "episode")


@CASES.breaks("made")
def pairs_by_soft_targets(_):
    return Loss(contrast, "pairs", soft=True)


@CASES.breaks("soft labels")
def a_value_a_class(_):
    def fn(scores, labels):
        if labels.ndim < scores.ndim:
            return entropy(scores, labels)
        return -labels * nn.log_softmax(scores, axis=-1)

    return Loss(fn, "episode", soft=True)


@CASES.breaks("soft teaches")
def the_largest_alone(_):
    def fn(scores, labels):
        return entropy(scores, labels if labels.ndim < scores.ndim else labels.argmax(axis=-1))

    return Loss(fn, "episode", soft=True)


@CASES.breaks("soft labels")
def divergence_of_nothing(_):
    def fn(scores, labels):
        if labels.ndim < scores.ndim:
            return nn.losses.cross_entropy(scores, labels)
        return (labels * (mx.log(labels) - nn.log_softmax(scores, axis=-1))).sum(axis=-1)

    return Loss(fn, "episode", soft=True)


@CASES.breaks("soft targets")
def over_whole_labels_alone(_):
    def fn(scores, labels):
        costs = nn.losses.cross_entropy(scores, labels)
        return costs if labels.ndim < scores.ndim else costs / (labels == 1).sum(axis=-1)

    return Loss(fn, "episode", soft=True)


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def learned_with_dropout(_):
    class Dropping(Tempered):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def __call__(self, scores, labels):
            return super().__call__(self.drop(scores), labels)

    return Loss(Dropping(), "episode")


@CASES.sound
def learned_temperature(_):
    return Loss(Tempered(), "episode")


@CASES.sound
def one_value_of_a_batch(_):
    return Loss(lambda d, labels, others: nt_xent(d, labels, others).mean(), "batch")


@CASES.sound
def multi_similarity(_):
    """Wang et al. 2019, of cosines, without its mining."""

    def fn(d, labels, others):
        same, s = others == labels[:, None], 1 - d
        pull = mx.where(same, mx.exp(-2 * (s - 0.5)), 0).sum(1)
        push = mx.where(same, 0, mx.exp(10 * (s - 0.5))).sum(1)
        return mx.log1p(pull) / 2 + mx.log1p(push) / 10

    return Loss(fn, "batch", requires={"cosine"})


@CASES.sound
def the_mean_of_centres(_):
    return of_centres(lambda d: d.mean(axis=-1))


@CASES.sound
def both_ways_by_places(_):
    """The others stand in the batch's order: each is compared with the image itself, too."""

    def fn(d, labels, others):
        table = with_own(d, 0.0)
        return nt_xent(without_own(table + table.T), labels, others)

    return Loss(fn, "batch")


@CASES.breaks("made")
def a_memory_of_scores(_):
    return Loss(prototypical().fn, "episode", memory=4)


@CASES.breaks("auxiliary")
def a_spread_of_one_image(_):
    """The standard deviation over images, sample by sample: of one image 0 / 0."""

    def spread(backbone, images):
        x = backbone(images)
        return ((x - x.mean(axis=0)) ** 2).sum(axis=0) / (len(x) - 1)

    return Loss(contrast, "pairs", margin=1.0, auxiliary=spread)


@CASES.breaks("auxiliary")
def the_root_of_a_difference(_):
    return Loss(
        contrast, "pairs", margin=1.0,
        auxiliary=lambda backbone, images: mx.sqrt(backbone(images) - backbone(images)),
    )  # fmt: skip


@CASES.sound
def shrinking_embeddings(_):
    return Loss(
        contrast, "pairs", margin=1.0,
        auxiliary=lambda backbone, images: (backbone(images) ** 2).sum(axis=-1),
    )  # fmt: skip


@CASES.sound
def soft_margin(_):
    return Loss(lambda near, far: nn.softplus(near - far), "triplets")


@CASES.sound
def smoothed(_):
    from fewshot import PrototypicalOptions

    return prototypical(PrototypicalOptions(temperature=0.1, label_smoothing=0.3))


@CASES.sound
def balanced_over_the_batch(_):
    """Positives and negatives averaged apart: a pair's value depends on how many there are."""

    def fn(d, same):
        share = mx.maximum(same.mean(), 0.1)
        return contrast(d, same) * mx.where(same, 1 / share, 1 / (1.1 - share))

    return Loss(fn, "pairs", margin=1.0)


@CASES.sound
def negative_values(_):
    return Loss(lambda d, same: mx.where(same, d, -mx.minimum(d, 2)), "pairs", margin=2.0)


@CASES.sound
def multi_class_hinge(_):
    def fn(scores, labels):
        right = mx.take_along_axis(scores, labels[..., None], axis=-1)
        return mx.maximum(scores - right + 1, 0).sum(-1) - 1

    return Loss(fn, "episode")

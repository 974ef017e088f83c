"""Heads with a fault, and odd ones without."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve

from fewshot import Head, nearest_prototype, nearest_support
from planted import Collection

CASES = Collection("head")
GOOD = nearest_prototype()


def head(scores, differentiable=False, **more):
    """One that keeps the whole support: `scores(support, labels, query, metric, n_way)`."""

    def fit(support, labels, metric, n_way):
        return support, labels, labels[..., None] == mx.arange(n_way)

    def asked(state, query, metric):
        support, labels, of_class = state
        return scores(support, labels, query, metric, of_class.shape[-1])

    return Head(fit, asked, differentiable, **more)


def changed(change, **more):
    """Nearest prototype, its scores changed."""
    return head(lambda *given: change(GOOD(*given)), **more)


@CASES.breaks("made")
def a_bare_function(_):
    return GOOD.scores


@CASES.breaks("made")
def differentiable_by_a_word(_):
    return evolve(GOOD, differentiable="yes")


@CASES.breaks("made")
def asked_in_another_way(_):
    return evolve(GOOD, queries="some")


@CASES.breaks("made")
def a_module_that_is_none(_):
    return evolve(GOOD, module=GOOD.scores)


@CASES.breaks("made")
def names_by_a_word(_):
    return evolve(GOOD, names="yes")


@CASES.breaks("shape")
def classes_before_queries(_):
    return changed(lambda found: found.swapaxes(-1, -2))


@CASES.breaks("shape")
def answers_for_scores(_):
    return changed(lambda found: found.argmax(-1))


@CASES.breaks("distances")
def scores_for_distances(_):
    return evolve(GOOD, distances=lambda state, query, scores: scores)


@CASES.breaks("one query")
def squeezes_one_query(_):
    return changed(lambda found: found.squeeze())


@CASES.breaks("one query")
def names_that_want_images(_):
    """Distances to names and to the nearest image of any class, of which there may be none."""

    def fit(support, labels, metric, n_way):
        return support[..., :n_way, :], support[..., n_way:, :]

    def scores(state, query, metric):
        names, images = state
        near = metric.table(query, images).min(-1, keepdims=True)
        return near - metric.table(query, names)

    return Head(fit, scores, differentiable=False, names=True)


@CASES.breaks("any counts")
def the_same_count_for_all(_):
    def scores(support, labels, query, metric, n_way):
        order = mx.argsort(labels)
        means = support[order].reshape(n_way, -1, support.shape[-1]).mean(1)
        return -metric.table(query, means)

    return head(scores)


@CASES.breaks("any counts")
def the_spread_of_a_single_image(_):
    def scores(support, labels, query, metric, n_way):
        members = (labels[None] == mx.arange(n_way)[:, None]).astype(mx.float32)
        n = members.sum(-1)
        means = (members @ support) / n[:, None]
        spread = (members @ (support - means[labels]) ** 2).sum(-1) / (n - 1)
        return -metric.table(query, means) / spread

    return head(scores)


@CASES.breaks("tells apart")
def distances_for_scores(_):
    return changed(lambda found: -found)


@CASES.breaks("tells apart")
def labels_off_by_one(_):
    return changed(lambda found: mx.roll(found, 1, axis=-1))


@CASES.breaks("tells apart")
def never_the_last_class(_):
    return changed(
        lambda found: mx.concatenate([found[..., :-1], mx.full_like(found[..., -1:], -1e9)], -1)
    )


@CASES.breaks("support order")
def the_first_image_of_a_class(_):
    def scores(support, labels, query, metric, n_way):
        first = mx.array([np.flatnonzero(np.array(labels) == c)[0] for c in range(n_way)])
        return -metric.table(query, support[first])

    return head(scores)


@CASES.breaks("support order")
def later_images_weigh_more(_):
    def scores(support, labels, query, metric, n_way):
        weights = mx.arange(1, labels.shape[-1] + 1)
        members = (labels[None] == mx.arange(n_way)[:, None]) * weights
        return -metric.table(query, (members @ support) / members.sum(-1, keepdims=True))

    return head(scores)


@CASES.breaks("class names")
def the_first_class_is_favoured(_):
    return changed(lambda found: found + (mx.arange(found.shape[-1]) == 0))


@CASES.breaks("query alone")
def scores_about_the_mean_query(_):
    return changed(lambda found: found - found.mean(-2, keepdims=True))


@CASES.breaks("query alone")
def balanced_over_the_queries(_):
    """Every class gets its share of the queries: PT-MAP's assumption."""
    return changed(
        lambda found: mx.softmax(found, -1) / mx.softmax(found, -1).sum(-2, keepdims=True)
    )


@CASES.breaks("asked twice")
def remembers_the_support(_):
    seen = []

    def scores(support, labels, query, metric, n_way):
        seen.append(support.mean())
        return GOOD(support, labels, query, metric, n_way) + sum(seen)

    return head(scores)


@CASES.breaks("asked twice")
def breaks_ties_at_random(_):
    return changed(lambda found: found + 1e-3 * mx.random.uniform(shape=found.shape))


@CASES.breaks("episodes")
def prototypes_of_all_episodes(_):
    def scores(support, labels, query, metric, n_way):
        found = GOOD(support, labels, query, metric, n_way)
        axes = tuple(range(found.ndim - 2))
        return found + (found.mean(axes) if axes else 0)

    return head(scores)


@CASES.breaks("episodes")
def one_episode_at_a_time(_):
    def scores(support, labels, query, metric, n_way):
        assert support.ndim == 2, "one episode at a time"
        return GOOD(support, labels, query, metric, n_way)

    return head(scores)


@CASES.breaks("inputs untouched")
def centred_in_place(_):
    def scores(support, labels, query, metric, n_way):
        query -= support.mean(-2, keepdims=True)
        return GOOD(support - support.mean(-2, keepdims=True), labels, query, metric, n_way)

    return head(scores)


@CASES.breaks("trains")
def votes_that_say_they_train(_):
    return evolve(nearest_support(), differentiable=True)


@CASES.breaks("trains")
def a_root_of_the_spread(_):
    def scores(support, labels, query, metric, n_way):
        spread = mx.sqrt(((support - support.mean(-2, keepdims=True)) ** 2).sum((-1, -2)))
        return GOOD(support, labels, query, metric, n_way) + spread[..., None, None]

    return head(scores, differentiable=True)


@CASES.breaks("query order")
def later_queries_weigh_more(_):
    def scores(support, labels, query, metric, n_way):
        weights = mx.arange(1, query.shape[-2] + 1)[:, None]
        mean = (weights * query).sum(-2, keepdims=True) / weights.sum()
        return GOOD(support, labels, query - 0.1 * mean, metric, n_way)

    return head(scores, queries="together")


@CASES.breaks("state")
def a_state_of_numbers(_):
    return evolve(
        GOOD,
        fit=lambda support, labels, metric, n_way: (
            GOOD.fit(support, labels, metric, n_way),
            n_way,
        ),
        scores=lambda state, query, metric: GOOD.scores(state[0], query, metric),
    )


@CASES.breaks("state")
def a_state_without_episodes(_):
    """The number of classes by the length of an array."""
    return evolve(
        GOOD,
        fit=lambda support, labels, metric, n_way: (
            GOOD.fit(support, labels, metric, n_way),
            mx.arange(n_way),
        ),
        scores=lambda state, query, metric: GOOD.scores(state[0], query, metric),
    )


@CASES.breaks("asked twice")
def state_kept_aside(_):
    kept = {}

    def fit(support, labels, metric, n_way):
        kept["means"] = GOOD.fit(support, labels, metric, n_way)
        return kept["means"]

    return Head(fit, lambda _, query, metric: GOOD.scores(kept["means"], query, metric), True)


@CASES.breaks("inputs untouched")
def queries_join_the_state(_):
    def scores(means, query, metric):
        means += query.mean(-2, keepdims=True)
        return -metric.table(query, means - query.mean(-2, keepdims=True))

    return Head(GOOD.fit, scores, True)


class Scale(nn.Module):
    """Scores times a number that is learned."""

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = mx.array(weight)

    def __call__(self, found):
        return found * self.weight


class Late(nn.Module):
    def __call__(self, found):
        self.weight = mx.array(1.0)
        return found * self.weight


def learned(module, change):
    return evolve(GOOD, module=module, scores=lambda *given: change(GOOD.scores(*given)))


@CASES.breaks("made whole")
def weights_at_the_first_call(_):
    module = Late()
    return learned(module, module)


@CASES.breaks("learned parts")
def a_module_that_is_not_asked(_):
    return learned(Scale(), lambda found: found)


@CASES.breaks("learned parts")
def a_root_of_a_weight(_):
    module = Scale(0.0)
    return learned(module, lambda found: found * (1 + mx.sqrt(module.weight)))


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def ridge_regression(_):
    """Fitted inside the call, by its own rule whatever the metric."""

    def scores(support, labels, query, metric, n_way):
        target = (labels[..., None] == mx.arange(n_way)).astype(mx.float32)
        gram = support @ support.swapaxes(-1, -2) + mx.eye(support.shape[-2])
        weights = mx.linalg.solve(gram, target, stream=mx.cpu)
        return query @ support.swapaxes(-1, -2) @ weights

    return head(scores)


@CASES.sound
def softmax_of_prototypes(_):
    return head(lambda *given: mx.softmax(GOOD(*given), -1), differentiable=True)


@CASES.sound
def keeps_the_whole_support(_):
    return head(GOOD, differentiable=True)


@CASES.sound
def centred_by_the_queries(_):
    def scores(support, labels, query, metric, n_way):
        centre = support.mean(-2, keepdims=True)
        moved = query + 0.1 * (centre - query.mean(-2, keepdims=True))
        return GOOD(support, labels, moved, metric, n_way)

    return head(scores, differentiable=True, queries="together")


@CASES.sound
def a_map_of_embeddings(_, *, embedding_dim):
    linear = nn.Linear(embedding_dim, 2 * embedding_dim)

    def fit(support, labels, metric, n_way):
        return GOOD.fit(linear(support), labels, metric, n_way)

    def scores(means, query, metric):
        return GOOD.scores(means, linear(query), metric)

    return Head(fit, scores, differentiable=True, module=linear)


@CASES.sound
def nearest_image_without_ranks(_):
    def scores(support, labels, query, metric, n_way):
        far = metric.table(query, support)[..., None]
        of = (labels[..., None, :, None] == mx.arange(n_way)) + 0 * far
        return -mx.where(of > 0, far, mx.inf).min(-2)

    return head(scores)

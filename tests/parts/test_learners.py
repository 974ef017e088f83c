"""What a learner gives the optimizer: MAML's gradients against closed forms and differences."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from tasks import smooth, two_episodes
from toys import network, toy

import fewshot as fs
from fewshot.compute.modules import copied
from fewshot.core.errors import ConfigError
from fewshot.core.interfaces import Batch, Head, Loss
from fewshot.engine.objective import Learned, Objective, check_fits
from fewshot.parts.backbones import Conv4Options, conv4
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import (
    MamlOptions,
    ReptileOptions,
    descend,
    maml,
    plain,
    reptile,
)
from fewshot.parts.metrics import sqeuclidean
from fewshot.parts.samplers import PairsOptions, pairs

Array = NDArray[np.float64]


class Quadratic(nn.Module):
    """A backbone that is a vector w (d,) and a part that is another, v (d,)."""

    def __init__(self, w: Array, v: Array) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.w = mx.array(w.astype(np.float32))
        self.metric = nn.Module()
        self.metric.v = mx.array(v.astype(np.float32))


class Misses:
    """Its objective: ½ |X w − y + v·1|² / q over the queries, whose images are the rows (X, y)."""

    def __init__(self, model: Quadratic) -> None:
        self.model, self.backbone, self.embedder, self.metric = model, model.backbone, self, None
        self.loss = Loss(lambda misses, _: misses * misses / 2, "episode")
        self.head = Head(lambda *_: (), lambda _, query, __: query, differentiable=True)

    def __call__(self, given: Any) -> Any:
        """Of images what they miss by, of a batch the figures."""
        if isinstance(given, mx.array):
            return given[:, :-1] @ (self.backbone.w + self.model.metric.v) - given[:, -1]
        values, start = [], 0
        for draw, size in zip(given.draws, given.sizes, strict=True):
            values.append(self(given.images[start : start + size][draw["query"]]))
            start += size
        loss = mx.stack([(miss * miss).mean() / 2 for miss in values]).mean()
        return loss, loss


def task(rng: np.random.Generator, d: int) -> tuple[Array, dict[str, Any]]:
    """Rows (X, y) of 3 support and 4 query images in any order, and where these are."""
    order = rng.permutation(7)
    draw = {
        "support": mx.array(order[:3]),
        "support_labels": mx.array([0, 1, 2]),
        "query": mx.array(order[3:]),
        "query_labels": mx.array([0, 1, 2, 0]),
    }
    return rng.normal(size=(7, d + 1)), draw


def normal(rows: Array) -> tuple[Array, Array]:
    """The loss of these rows is ½ w'Aw − c'w and a constant: A, c."""
    x, y = rows[:, :-1], rows[:, -1]
    return x.T @ x / len(x), x.T @ y / len(x)


@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 3),
    tasks=st.integers(1, 3),
    steps=st.integers(0, 3),
    second=st.booleans(),
)
def test_the_gradients_of_maml_are_those_of_the_quadratic_model_in_closed_form(
    seed: int, d: int, tasks: int, steps: int, second: bool
) -> None:
    rng, rate = np.random.default_rng(seed), 0.2
    w, v = rng.normal(size=(2, d))
    drawn = [task(rng, d) for _ in range(tasks)]
    of_w, of_v, losses = np.zeros(d), np.zeros(d), []
    for rows, draw in drawn:
        (a, c), (b, e) = (normal(rows[np.array(draw[name])]) for name in ("support", "query"))
        once = np.eye(d) - rate * a  # a step is w ← (I − αA) w + α (c − A v)
        moved, through, by_v = w, np.eye(d), np.eye(d)
        for _ in range(steps):
            moved = once @ moved + rate * (c - a @ v)
            through, by_v = once @ through, once @ (by_v - np.eye(d)) - rate * a + np.eye(d)
        outer = b @ (moved + v) - e
        of_w += (through.T if second else np.eye(d)) @ outer / tasks
        of_v += (by_v.T if second else np.eye(d)) @ outer / tasks
        asked = rows[np.array(draw["query"])]
        losses.append(np.square(asked[:, :-1] @ (moved + v) - asked[:, -1]).mean() / 2)
    images = mx.array(np.concatenate([rows for rows, _ in drawn]).astype(np.float32))
    batch = Batch(images, [draw for _, draw in drawn], [7] * tasks, [3] * tasks)
    model = Quadratic(w, v)
    figures, gradients = maml(MamlOptions(steps, rate, second)).step(model, Misses(model), batch)
    scale = 1e-4 * (1 + np.abs(of_w).max() + np.abs(of_v).max())
    assert figures[0].item() == pytest.approx(np.mean(losses), rel=1e-3, abs=1e-5)
    assert np.allclose(np.array(gradients["backbone"]["w"]), of_w, rtol=0, atol=10 * scale)
    assert np.allclose(np.array(gradients["metric"]["v"]), of_v, rtol=0, atol=10 * scale)


def descended(module: nn.Module, loss: Any, steps: int, rate: float) -> None:
    """Take the steps."""
    for _ in descend(module, loss, steps, lambda *_: rate):
        pass


@pytest.mark.parametrize("steps", [1, 3])
def test_second_order_is_the_slope_of_the_whole_outer_loss_and_first_order_is_not(
    steps: int,
) -> None:
    objective, batch = smooth()
    model: Any = objective.learned
    start = model.trainable_parameters()
    flat = dict(tree_flatten(start))
    rate = 0.03

    def outer(along: dict[str, mx.array], way: float) -> float:
        model.load_weights([(n, w + way * along[n]) for n, w in flat.items()])
        figures, _ = maml(MamlOptions(steps, rate)).step(model, objective, batch)
        model.update(start)
        return float(figures[0].item())

    def slopes(second: bool) -> dict[str, mx.array]:
        _, gradients = maml(MamlOptions(steps, rate, second)).step(model, objective, batch)
        model.update(start)
        return dict(tree_flatten(gradients))

    first, second = slopes(False), slopes(True)
    miss = {}
    for name, found in (("first", first), ("second", second)):
        along = {n: second[n] - 0.5 * first[n] for n in flat}
        length = sum(mx.square(a).sum().item() for a in along.values()) ** 0.5
        along = {n: a / length for n, a in along.items()}
        measured = (outer(along, 1e-2) - outer(along, -1e-2)) / 2e-2
        said = sum((found[n] * along[n]).sum().item() for n in flat)
        miss[name] = abs(said - measured) / abs(measured)
    assert miss["second"] < 1e-3
    assert miss["first"] > 10 * miss["second"]


def test_no_inner_step_is_the_plain_gradient() -> None:
    for objective, batch in (
        smooth(),
        two_episodes(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1)),
    ):
        for one in batch.split():  # batch norm is over an episode there, over the batch here
            start = objective.learned.trainable_parameters()
            found = []
            for learner in (plain(), maml(MamlOptions(inner_steps=0))):
                figures, gradients = learner.step(objective.learned, objective, one)
                objective.learned.update(start)
                found.append([*figures, *(g for _, g in tree_flatten(gradients))])
            assert all(mx.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("second", [True, False])
def test_running_statistics_are_those_of_episodes_after_the_inner_steps(second: bool) -> None:
    objective, batch = two_episodes(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1))
    (one, _) = batch.split()
    model: Any = objective.learned
    norm = model.backbone.layers.layers[1]
    start = model.trainable_parameters()
    before = np.array(norm.running_mean)
    buffers = tree_flatten(copied(model.backbone).parameters())  # inner steps normalise by them
    maml(MamlOptions(3, 0.5, second)).step(model, objective, one)
    model.update(start)
    found = np.array(norm.running_mean)

    model.backbone.load_weights(buffers)
    descended(model.backbone, lambda: objective(one.of_support())[0], 3, 0.5)
    assert np.array_equal(np.array(norm.running_mean), before)
    objective(one)
    assert np.allclose(np.array(norm.running_mean), found, rtol=1e-4, atol=1e-6)
    assert not np.allclose(found, before)


def test_the_support_of_a_batch_is_its_images_and_no_other() -> None:
    _, batch = smooth()
    support = batch.of_support()
    start = 0
    expected = []
    for draw, size in zip(batch.draws, batch.sizes, strict=True):
        expected.append(batch.images[start : start + size][draw["support"]])
        start += size
    assert mx.array_equal(support.images, mx.concatenate(expected))
    assert support.sizes == [6, 6]
    for part, draw in zip(support.draws, batch.draws, strict=True):
        for name in ("support", "query"):
            assert part[name].tolist() == list(range(6))
            assert mx.array_equal(part[f"{name}_labels"], draw["support_labels"])


def test_what_maml_cannot_learn_from_is_refused_in_one_line() -> None:
    objective, _ = smooth()
    sampler = pairs(PairsOptions(4), np.repeat(np.arange(4), 6))
    with pytest.raises(ConfigError, match=r"wants 'episode'.*'pairs'.*plain") as refusal:
        check_fits(
            objective.embedder, sampler, fs.contrastive(), sqeuclidean(), None, learner=maml()
        )
    assert "\n" not in str(refusal.value)


def test_inner_steps_are_in_eval_mode_whatever_mode_the_network_is_in() -> None:
    found = []
    for training in (True, False):
        mx.random.seed(0)
        objective, batch = two_episodes(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1), k_shot=2)
        backbone: Any = objective.learned.backbone
        support = batch.split()[0].of_support()
        backbone.train(training)
        descended(backbone, lambda o=objective, s=support: o(s)[0], 2, 0.1)
        assert backbone.training is training
        found.append([np.array(value) for _, value in tree_flatten(backbone.parameters())])
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))


# ------------------------------------------------------------------------------- reptile


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_down_the_gradient_of_reptile_is_where_steps_of_training_lead(steps: int) -> None:
    objective, batch = smooth()
    model: Any = objective.learned
    start = dict(tree_flatten(model.trainable_parameters()))
    rate = 0.05
    _, gradients = reptile(ReptileOptions(steps, rate)).step(model, objective, batch)
    model.load_weights(list(start.items()))
    ends = []
    for draw in batch.split():
        sgd = optimizers.SGD(rate)
        for _ in range(steps):
            sgd.update(model, plain().step(model, objective, draw)[1])
        ends.append(dict(tree_flatten(model.trainable_parameters())))
        model.load_weights(list(start.items()))
    for name, gradient in tree_flatten(gradients):
        mean = sum(end[name] for end in ends) / len(ends)
        assert mx.allclose(start[name] - rate * gradient, mean, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------ maml++


def gradients_of(learner: fs.Learner, objective: Objective, batch: Batch) -> dict[str, mx.array]:
    """By name, of a model with the learner's own parts, left as it was; the loss as "loss"."""
    parts = (objective.learned.backbone, objective.metric, objective.loss)
    model = Learned(*parts, learner=learner.module)
    start = model.trainable_parameters()
    figures, gradients = learner.step(model, objective, batch)
    model.update(start)
    return {"loss": figures[0], **dict(tree_flatten(gradients))}


def alike(one: dict[str, mx.array], other: dict[str, mx.array]) -> bool:
    return all(
        bool(np.allclose(np.array(one[n]), np.array(other[n]), rtol=1e-4, atol=1e-5)) for n in other
    )


@pytest.mark.parametrize("second", [True, False])
def test_slopes_by_learned_rates_sum_up_to_that_by_the_one_rate(second: bool) -> None:
    objective, batch = smooth()
    backbone, rate, h = objective.learned.backbone, 0.1, 0.004

    def loss(inner_rate: float) -> float:
        return float(
            gradients_of(maml(MamlOptions(2, inner_rate)), objective, batch)["loss"].item()
        )

    learned = maml(MamlOptions(2, rate, second, learned_rates=True), backbone=backbone)
    found = gradients_of(learned, objective, batch)
    assert found["learner.rates"].shape == (2, 2)
    assert alike(found, gradients_of(maml(MamlOptions(2, rate, second)), objective, batch))
    if second:  # first order leaves out how a step moves the next one's gradient
        slope = (loss(rate + h) - loss(rate - h)) / (2 * h)
        assert found["learner.rates"].sum().item() == pytest.approx(slope, rel=1e-2)


def test_a_layer_of_rate_0_takes_no_inner_step_and_the_adapter_knows_the_rates() -> None:
    objective, batch = smooth()
    backbone: Any = objective.learned.backbone
    learner = maml(MamlOptions(2, 0.1, learned_rates=True), backbone=backbone)
    assert learner.module is not None
    assert learner.adapt is not None
    learner.module.rates = mx.array([[0.0, 0.1], [0.0, 0.1]])
    before = dict(tree_flatten(copied(backbone).parameters()))
    support = batch.split()[0].of_support()
    learner.adapt(
        objective.embedder, support, objective.metric, objective.loss, nearest_prototype()
    )
    after = dict(tree_flatten(backbone.parameters()))
    moved = {name for name in before if not mx.array_equal(before[name], after[name])}
    last = max(name.rpartition(".")[0] for name in before)
    assert moved == {f"{last}.weight", f"{last}.bias"}


def test_rates_of_no_backbone_are_refused() -> None:
    with pytest.raises(ConfigError, match="rates of a backbone's layers"):
        maml(MamlOptions(learned_rates=True))


@pytest.mark.parametrize("gone", [0, 3, 10, 17])
def test_multi_step_losses_are_a_weighted_sum_of_those_after_each_step(gone: int) -> None:
    objective, batch = smooth()
    learner = maml(MamlOptions(3, 0.1, multi_step=10))
    assert learner.module is not None
    learner.module.running_steps = mx.array(float(gone))
    found = gradients_of(learner, objective, batch)
    each = [gradients_of(maml(MamlOptions(n, 0.1)), objective, batch) for n in (1, 2, 3)]
    done = min(gone / 10, 1)
    shares = (1 - done) / 3 + done * np.array([0, 0, 1])
    due = {name: sum(s * one[name] for s, one in zip(shares, each, strict=True)) for name in found}
    assert alike(found, due)
    assert learner.module.running_steps.item() == gone + 1


def test_the_second_order_sets_in_after_so_many_training_steps() -> None:
    objective, batch = smooth()
    learner = maml(MamlOptions(2, 0.1, first_order_steps=2))
    found = [gradients_of(learner, objective, batch) for _ in range(3)]
    first, second = (
        gradients_of(maml(MamlOptions(2, 0.1, order)), objective, batch) for order in (False, True)
    )
    assert not alike(first, second)
    assert [alike(each, first) for each in found] == [True, True, False]
    assert alike(found[2], second)


def test_learned_rates_are_trained_with_the_network() -> None:
    net = network()
    learner = maml(MamlOptions(1, 0.1, learned_rates=True), backbone=net)
    assert learner.module is not None
    before = np.array(learner.module.rates)
    data = toy()
    sampler = fs.episodes(fs.EpisodesOptions(3, 2, 2), data.labels)
    rest = fs.prototypical(), sqeuclidean(), nearest_prototype()
    options = fs.TrainingOptions(2, learning_rate=1e-2)
    fs.fit(fs.Embedder(net), data, sampler, *rest, options, learner=learner)
    assert (np.array(learner.module.rates) != before).any()
    assert learner.module.running_steps.item() == 2

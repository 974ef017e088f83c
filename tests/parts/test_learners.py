"""What a learner gives the optimizer: MAML's gradients against closed forms and differences."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from numpy.typing import NDArray

import fewshot as fs
from fewshot.compute.modules import copied
from fewshot.core.errors import ConfigError
from fewshot.core.interfaces import Batch, Head, Loss, Miner
from fewshot.engine.objective import Learned, Objective, batch_of, check_fits
from fewshot.parts.backbones import Conv4Options, conv4
from fewshot.parts.embedder import Embedder
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import MamlOptions, descend, maml, plain
from fewshot.parts.losses.scores import prototypical
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


def small(layers: int = 2) -> tuple[Objective, Batch]:
    """An episode of noise and a network of smooth layers."""
    mx.random.seed(3)
    net: Any = fs.Sequential(fs.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 4))
    net.embedding_dim = 4
    return of(net, (4, 4, 1), k_shot=2)


def of(net: Any, shape: tuple[int, int, int], k_shot: int = 1) -> tuple[Objective, Batch]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    images = rng.normal(size=(24, *shape)).astype(np.float32)
    images += 0.7 * rng.normal(size=(4, *shape)).astype(np.float32)[labels]
    sampler = episodes(EpisodesOptions(3, k_shot, 2), labels)
    draws = [sampler.draw(0, i) for i in range(2)]
    pixels = images[np.concatenate([draw.items for draw in draws])]
    embedder, metric, loss = Embedder(net), sqeuclidean(), prototypical()
    learned = Learned(net, metric, loss)
    head, miner = nearest_prototype(), Miner(None)
    objective = Objective(embedder, metric, loss, head, miner, learned, "episode")
    return objective, batch_of(mx.array(pixels), list(draws))


def descended(module: nn.Module, loss: Any, steps: int, rate: float) -> None:
    """Take the steps."""
    for _ in descend(module, loss, steps, lambda *_: rate):
        pass


@pytest.mark.parametrize("steps", [1, 3])
def test_second_order_is_the_slope_of_the_whole_outer_loss_and_first_order_is_not(
    steps: int,
) -> None:
    objective, batch = small()
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
    for objective, batch in (small(), of(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1))):
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
    objective, batch = of(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1))
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
    _, batch = small()
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
    objective, _ = small()
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
        objective, batch = of(conv4(Conv4Options(4), (16, 16, 1)), (16, 16, 1), k_shot=2)
        backbone: Any = objective.learned.backbone
        support = batch.split()[0].of_support()
        backbone.train(training)
        descended(backbone, lambda o=objective, s=support: o(s)[0], 2, 0.1)
        assert backbone.training is training
        found.append([np.array(value) for _, value in tree_flatten(backbone.parameters())])
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True))

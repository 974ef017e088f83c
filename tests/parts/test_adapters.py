"""The built-in adapters; what every adapter keeps is in test_laws.py."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from attrs import evolve
from mlx.utils import tree_map
from numpy.typing import NDArray

from fewshot.compute.layers import Sequential
from fewshot.compute.modules import copied
from fewshot.core.errors import ConfigError, TrainingError
from fewshot.core.interfaces import Batch
from fewshot.core.seeding import generator
from fewshot.deploy.classifier import Classifier
from fewshot.parts.adapters.copies import in_order, none
from fewshot.parts.adapters.linear import LinearProbeOptions, learner, linear_probe
from fewshot.parts.adapters.steps import FinetuneOptions, LoraOptions, finetune, held_out, lora
from fewshot.parts.adapters.whitening import WhitenOptions, whiten
from fewshot.parts.embedder import Centre, Embedder
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.learners import MamlOptions, anil, maml, plain, proto_maml
from fewshot.parts.losses.scores import PrototypicalOptions, prototypical
from fewshot.parts.metrics import euclidean
from fewshot.parts.transforms import normalise
from fewshot.testing.adapters import embedded, seen, small_embedder, state

Array = NDArray[Any]

QUERIES = np.random.default_rng(5).integers(256, size=(9, 8, 8, 1)).astype(np.uint8)


# ---------------------------------------------------------------------------- finetune


def task(k_shot: int, n_way: int = 3) -> tuple[Array, Array]:
    """Classes that differ in brightness, under much noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(n_way), k_shot)
    images = 60 * labels[:, None, None, None] + rng.integers(120, size=(len(labels), 8, 8, 1))
    return images.clip(0, 255).astype(np.uint8), labels


def separation(model: Embedder, images: Array, labels: Array) -> float:
    """Distance between class means over the distance to one's own."""
    rows = embedded(model, images)
    means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = np.linalg.norm(rows - means[labels], axis=1).mean()
    return float(np.linalg.norm(means[:, None] - means[None], axis=-1).mean() / within)


@pytest.mark.parametrize("layers", [0, 1])
def test_finetuning_separates_the_classes_of_the_support(layers: int) -> None:
    images, labels = task(5)
    options = FinetuneOptions(steps=30, learning_rate=3e-3, layers=layers)
    adapted = finetune(options)(small_embedder(), images, labels, euclidean(), 0)
    before = separation(small_embedder(), images, labels)
    assert separation(adapted, images, labels) > 1.2 * before


def test_finetuning_of_the_last_layer_changes_that_alone() -> None:
    ours = small_embedder()
    options = FinetuneOptions(steps=2, learning_rate=1e-3, layers=1)
    adapted = finetune(options)(ours, *task(2), euclidean(), 0)
    before, after = state(ours.backbone), state(adapted.backbone)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"layers.5.weight", "layers.5.bias"}


def test_batch_norm_keeps_its_statistics() -> None:
    ours = small_embedder()
    adapted = finetune(FinetuneOptions(steps=2))(ours, *task(2), euclidean(), 0)
    for name in ("running_mean", "running_var"):
        np.testing.assert_array_equal(
            ours.backbone.layers[1][name], adapted.backbone.layers[1][name]
        )


def test_no_steps_change_nothing() -> None:
    ours = small_embedder()
    adapted = finetune(FinetuneOptions(steps=0))(ours, *task(2), euclidean(), 0)
    assert state(ours.backbone) == state(adapted.backbone)


def test_diverged_finetuning_is_told() -> None:
    wild = finetune(FinetuneOptions(steps=50, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"adapter\.learning_rate"):
        wild(small_embedder("none"), *task(2), euclidean(), 0)


# ------------------------------------------------------------------------------ whiten


def test_whitening_makes_the_spread_within_classes_alike_in_all_directions() -> None:
    images, labels = task(20)
    plain = WhitenOptions(shrinkage=1e-6, views=1, crop=1, colour=0)
    ours = evolve(small_embedder("none"), preprocess=(normalise(),))
    rows = embedded(whiten(plain)(ours, images, labels, euclidean(), 0), images).astype(np.float64)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(3)])
    covariance = np.cov((rows - means[labels]).T)
    mean = np.trace(covariance) / len(covariance)
    np.testing.assert_allclose(covariance / mean, np.eye(len(covariance)), atol=0.02)


@pytest.mark.parametrize("options", [WhitenOptions(shrinkage=1), WhitenOptions(crop=1, colour=0)])
def test_whitening_changes_nothing_at_full_shrinkage_or_without_any_spread(
    options: WhitenOptions,
) -> None:
    images, labels = task(1)
    ours = small_embedder()
    adapted = whiten(options)(ours, images, labels, euclidean(), 0)
    np.testing.assert_allclose(embedded(ours, QUERIES), embedded(adapted, QUERIES), atol=1e-6)


def test_whitening_sees_embeddings_raised_to_the_embedders_power() -> None:
    images, labels = task(1)
    ours = evolve(small_embedder("none"), power=0.5)
    adapted = whiten()(ours, images, labels, euclidean(), 0)
    matrix = np.array(adapted.backbone.matrix)
    np.testing.assert_allclose(
        embedded(adapted, QUERIES), embedded(ours, QUERIES) @ matrix, atol=1e-5
    )


# ------------------------------------------------------------------------------ copies


def test_a_copy_shares_no_array_that_can_be_written_to() -> None:
    ours = small_embedder().backbone
    mine = copied(ours)
    before = state(ours)
    for layer in mine.layers:
        if "weight" in layer:
            layer.weight[0] = 7.0
    assert state(ours) == before != state(mine)


# ---------------------------------------------------------------------------- the centre


@pytest.mark.parametrize(
    "adapter",
    [none(), finetune(FinetuneOptions(steps=1)), learner(), lora(LoraOptions(steps=1)), whiten()],
)
def test_an_adapted_embedder_keeps_the_centre(adapter: Any) -> None:
    images, labels = task(2)
    ours = small_embedder("none")
    centre = Centre(6)
    centre.mean = mx.array(np.linspace(-1, 1, 6, dtype=np.float32))
    ours = evolve(ours, centre=centre)
    adapted = adapter(ours, images, labels, euclidean(), 0)
    raw = embedded(evolve(adapted, centre=None), QUERIES).astype(np.float64)
    mean, matrix = np.linspace(-1, 1, 6), getattr(adapted.backbone, "matrix", np.eye(6))
    # A linear map is one of what was centred: (x - c) M.
    expected = raw - mean @ np.array(matrix, np.float64)
    assert np.allclose(embedded(adapted, QUERIES), expected, atol=1e-5)
    assert adapted.centre is not centre
    assert np.allclose(np.array(centre.mean), mean)


@pytest.mark.parametrize("adapter", [finetune(), learner()])
def test_a_frozen_backbone_cannot_be_trained_and_the_way_out_is_named(adapter: Any) -> None:
    ours = small_embedder()
    ours.backbone.freeze()
    with pytest.raises(ConfigError, match=r"frozen: --set backbone\.frozen=false"):
        adapter(ours, *task(2), euclidean(), 0)


# ------------------------------------------------------------- what finetune trains, and how


def changed(ours: Embedder, adapted: Embedder) -> set[str]:
    before, after = state(ours.backbone), state(adapted.backbone)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_biases_and_norms_alone_are_trained() -> None:
    ours = small_embedder()
    options = FinetuneOptions(steps=2, learning_rate=0.01, layers=0, only="bias-norm")
    adapted = finetune(options)(ours, *task(2), euclidean(), 0)
    assert changed(ours, adapted) == {
        "layers.0.bias", "layers.1.weight", "layers.1.bias", "layers.5.bias",
    }  # fmt: skip


def test_layers_without_biases_or_norms_are_refused() -> None:
    ours = small_embedder()
    ours.backbone.layers[5].freeze(keys=["bias"])
    with pytest.raises(ConfigError, match=r"neither biases nor norms: adapter\.layers=0"):
        finetune(FinetuneOptions(layers=1, only="bias-norm"))(ours, *task(2), euclidean(), 0)


class Stages(nn.Module):
    """Two blocks, the second with a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 6), nn.Linear(6, 6)
        self.scale = mx.ones(6)
        self.embedding_dim = 6

    def block_names(self) -> list[list[str]]:
        return [["first"], ["second"]]

    def __call__(self, images: mx.array) -> mx.array:
        return self.scale * self.second(nn.relu(self.first(images.flatten(1))))


def test_blocks_are_trained_from_the_one_named_on_and_all_with_what_is_in_no_layer() -> None:
    ours = Embedder(Stages())
    found = []
    for options in ({"train_from": 2}, {"train_from": 1}, {"layers": 0}, {"layers": 1}):
        adapt = finetune(FinetuneOptions(steps=1, learning_rate=0.01, **options))
        found.append(changed(ours, adapt(ours, *task(2), euclidean(), 0)))
    second = {"second.weight", "second.bias"}
    first = {"first.weight", "first.bias"}
    assert found == [second, first | second, first | second | {"scale"}, second]


def test_a_block_that_there_is_not_is_refused() -> None:
    adapt = finetune(FinetuneOptions(train_from=3))
    with pytest.raises(ConfigError, match=r"train_from is 3: the backbone has blocks 1 to 2"):
        adapt(Embedder(Stages()), *task(2), euclidean(), 0)
    with pytest.raises(ConfigError, match=r"names no blocks: adapter\.layers"):
        adapt(small_embedder(), *task(2), euclidean(), 0)


def held_out_loss(model: Embedder, images: Array, labels: Array, held: Array) -> float:
    """Of what was held out, by prototypes of the rest, at the temperature of the default."""
    rows = embedded(model, images).astype(np.float64)
    kept = np.setdiff1d(np.arange(len(labels)), held)
    means = np.stack([rows[kept][labels[kept] == k].mean(axis=0) for k in range(3)])
    scores = -np.linalg.norm(rows[held][:, None] - means, axis=-1) / 0.1
    shares = scipy.special.log_softmax(scores, axis=1)
    return float(-shares[np.arange(len(held)), labels[held]].mean())


@pytest.mark.parametrize("adapter", ["finetune", "lora"])
def test_rate_and_steps_are_those_of_least_loss_of_a_held_out_share(adapter: str) -> None:
    images, labels = in_order(*task(5))
    ours = small_embedder()
    factory: Any = {"finetune": finetune, "lora": lora}[adapter]
    made: Any = {"finetune": FinetuneOptions, "lora": LoraOptions}[adapter]
    rates = {"finetune": (1e-4, 1e-3), "lora": (1e-3, 1e-2)}[adapter]
    held = held_out(labels, generator(4, f"{adapter} held out"))
    assert np.bincount(labels[held]).tolist() == [1, 1, 1]
    kept = np.setdiff1d(np.arange(len(labels)), held)

    def adapted(rate: float, steps: int, which: Any) -> Embedder:
        adapt = factory(made(steps=steps, learning_rate=rate))
        found: Embedder = adapt(ours, images[which], labels[which], euclidean(), 4)
        return found

    tries = [
        (held_out_loss(adapted(rate, steps, kept), images, labels, held), rate, steps)
        for rate in rates
        for steps in (0, 2, 4, 6, 8)
    ]
    _, rate, steps = min(tries)
    chosen = factory(made(steps=8))(ours, images, labels, euclidean(), 4)
    assert state(chosen.backbone) == state(adapted(rate, steps, slice(None)).backbone)


def test_one_image_a_class_leaves_nothing_to_choose_by() -> None:
    found = [
        finetune(FinetuneOptions(steps=2, **options))(small_embedder(), *task(1), euclidean(), 0)
        for options in ({}, {"learning_rate": 1e-4})
    ]
    assert not changed(*found)


# ---------------------------------------------------------------------------------- lora


def test_lora_adds_a_matrix_of_its_rank_to_linear_layers_and_changes_nothing_else() -> None:
    ours = small_embedder()
    ours.backbone.freeze()
    options = LoraOptions(steps=5, learning_rate=0.01, rank=2)
    adapted = lora(options)(ours, *task(2), euclidean(), 0)
    assert changed(ours, adapted) == {"layers.5.weight"}
    added = np.array(adapted.backbone.layers[5].weight, np.float64) - np.array(
        ours.backbone.layers[5].weight, np.float64
    )
    sizes = np.linalg.svd(added, compute_uv=False)
    assert sizes[1] > 1e-3
    assert sizes[2] < 1e-5 * sizes[0]


@pytest.mark.parametrize("options", [LoraOptions(rank=0), LoraOptions(steps=0)])
def test_lora_of_rank_0_or_without_a_step_changes_nothing(options: LoraOptions) -> None:
    ours = small_embedder()
    assert not changed(ours, lora(options)(ours, *task(2), euclidean(), 0))


def test_lora_wants_linear_layers() -> None:
    ours = small_embedder()
    convolutions: Any = Sequential(*ours.backbone.layers[:4])
    convolutions.embedding_dim = 256
    with pytest.raises(ConfigError, match="has none: --adapter finetune"):
        lora()(Embedder(convolutions), *task(2), euclidean(), 0)


# -------------------------------------------------------------------------- linear-probe


def unit_rows(model: Embedder, images: Array) -> Array:
    rows = embedded(model, images).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def regression(x: Array, y: Array, strength: float) -> Array:
    """W (d, n_way) of the least penalised loss, in float64."""
    members = np.eye(y.max() + 1)[y]
    shape = x.shape[1], members.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        w = flat.reshape(shape)
        logs = scipy.special.log_softmax(x @ w, axis=1)
        slope = x.T @ (np.exp(logs) - members) + strength * w
        return float(-(logs * members).sum() + strength / 2 * (w * w).sum()), slope.ravel()

    found = scipy.optimize.minimize(loss, np.zeros(x.shape[1] * shape[1]), jac=True, tol=1e-10)
    return np.array(found.x.reshape(shape))


@pytest.mark.parametrize("normalize", ["l2", "none"])
def test_a_probe_is_logistic_regression_on_the_network_as_it_is(normalize: str) -> None:
    images, labels = task(4)
    ours = small_embedder(normalize)
    adapted = linear_probe(LinearProbeOptions(0.1))(ours, images, labels, euclidean(), 0)
    assert state(adapted.backbone) == state(ours.backbone)
    weights = regression(unit_rows(ours, images), labels, 0.1)
    assert np.allclose(seen(adapted)[:, 6:], unit_rows(ours, QUERIES) @ weights, atol=1e-3)


def test_the_strength_of_a_probe_is_that_of_least_loss_of_what_is_left_out() -> None:
    images, labels = in_order(*task(3))
    ours = small_embedder()
    rows, losses = unit_rows(ours, images), {}
    for strength in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
        total = 0.0
        for fold in range(3):
            out = np.arange(len(labels)) % 3 == fold
            w = regression(rows[~out], labels[~out], strength)
            logs = scipy.special.log_softmax(rows[out] @ w, axis=1)
            total -= logs[np.arange(out.sum()), labels[out]].sum()
        losses[strength] = total
    best = min(losses, key=losses.__getitem__)
    chosen, due = (
        linear_probe(LinearProbeOptions(strength))(ours, images, labels, euclidean(), 0)
        for strength in (0.0, best)
    )
    assert np.array_equal(seen(chosen), seen(due))


def test_a_probe_of_one_image_a_class_takes_the_usual_strength() -> None:
    chosen, due = (
        linear_probe(LinearProbeOptions(strength))(small_embedder(), *task(1), euclidean(), 0)
        for strength in (0.0, 0.1)
    )
    assert np.array_equal(seen(chosen), seen(due))


# ------------------------------------------------------------------- the learner's steps


def test_a_learner_without_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has none: --adapter none"):
        learner(learner=plain())


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_steps_are_those_of_the_learner_on_the_loss_of_the_run(temperature: float) -> None:
    images, labels = in_order(*task(2))
    loss, head, ours = prototypical(PrototypicalOptions(temperature)), nearest_prototype(), None
    adapted = learner(learner=maml(MamlOptions(2, 0.1)), loss=loss, head=head)(
        small_embedder(), images, labels, euclidean(), 0
    )
    ours = small_embedder()
    ours.backbone.eval()
    pixels, truth = mx.array(ours.prepared(images)), mx.array(labels)
    for _ in range(2):

        def objective(ours: Embedder = ours) -> mx.array:
            rows = ours(pixels)
            return loss.fn(head(rows, truth, rows, euclidean(), 3), truth).mean()

        weights = ours.backbone.trainable_parameters()
        _, gradients = nn.value_and_grad(ours.backbone, objective)()
        ours.backbone.update(tree_map(lambda w, g: w - 0.1 * g, weights, gradients))
    found, due = embedded(adapted, QUERIES), embedded(ours, QUERIES)
    assert np.allclose(found, due, atol=1e-5)
    assert not np.allclose(found, embedded(small_embedder(), QUERIES), atol=1e-3)


@pytest.mark.parametrize("steps", [anil(), proto_maml()])
def test_a_linear_layer_of_classes_answers_as_the_learner_fits_it(steps: Any) -> None:
    images, labels = in_order(*task(2))
    adapted = learner(learner=steps)(small_embedder(), images, labels, euclidean(), 0)
    ours = small_embedder()
    ours.backbone.eval()
    places, truth = mx.arange(6), mx.array(labels)
    draw = {"support": places, "query": places, "support_labels": truth, "query_labels": truth}
    support = Batch(mx.array(ours.prepared(images)), [draw], [6], [3])
    layer = steps.adapt(ours, support, euclidean(), prototypical(), nearest_prototype())
    scores = np.array(layer(mx.array(embedded(ours, QUERIES))))
    assert np.allclose(seen(adapted)[:, 6:], scores, atol=1e-5)


def test_a_classifier_of_other_classes_cannot_take_a_fitted_head() -> None:
    images, labels = task(2)
    adapted = linear_probe()(small_embedder(), images, labels, euclidean(), 0)
    with pytest.raises(ConfigError, match=r"takes no others.*head logistic"):
        Classifier.of(adapted, {"one": images[:2], "two": images[2:]})


def test_steps_that_diverge_are_told() -> None:
    wild = learner(learner=maml(MamlOptions(5, 1e30)))
    with pytest.raises(TrainingError, match=r"lower learner\.inner_rate"):
        wild(small_embedder("none"), *task(2), euclidean(), 0)

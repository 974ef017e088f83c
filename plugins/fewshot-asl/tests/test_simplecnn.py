"""The experiment's network: its size by arithmetic, its options, its order of layers."""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from fewshot import ConfigError
from fewshot.catalogue.loading import build_registry
from fewshot.compute.modules import parameter_count
from fewshot.experiments.config import resolve
from fewshot_asl.simplecnn import SimpleCNN, SimpleCNNOptions, simplecnn

DOCUMENTED = 2_994_384  # "about 3 million"


def expected(options: SimpleCNNOptions, shape: tuple[int, int, int]) -> int:
    """Parameters by arithmetic: 3x3 kernels, biases, batch norms, and the linear layer."""
    height, width, inputs = shape
    total = 0
    for i, outputs in enumerate(options.channels):
        total += 9 * inputs * outputs + 2 * outputs
        total += outputs if options.order == "relu-norm" else 0
        if i < len(options.channels) - 1 or options.pool_last:
            height, width = height // 2, width // 2
        inputs = outputs
    return total + (inputs * height * width + 1) * options.embedding


def features(options: SimpleCNNOptions, height: int, width: int) -> int:
    """Numbers that the last block gives."""
    pools = len(options.channels) - (not options.pool_last)
    return options.channels[-1] * (height >> pools) * (width >> pools)


def test_at_the_defaults_it_has_the_documented_number_of_parameters():
    model = simplecnn(SimpleCNNOptions(), (64, 64, 3))
    assert parameter_count(model) == expected(SimpleCNNOptions(), (64, 64, 3)) == DOCUMENTED
    assert f"{DOCUMENTED:,}" in str(SimpleCNN.__doc__)
    assert round(DOCUMENTED / 1e6) == 3


OPTIONS = st.builds(
    SimpleCNNOptions,
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    pool_last=st.booleans(),
    embedding=st.integers(0, 9),
    dropout=st.sampled_from([0.0, 0.5]),
    order=st.sampled_from(["relu-norm", "norm-relu"]),
)
SHAPES = st.tuples(st.integers(16, 19), st.integers(16, 19), st.sampled_from([1, 3, 4]))


@given(OPTIONS, SHAPES)
@settings(max_examples=25)
def test_any_options_and_shape_give_embeddings_and_the_expected_size(
    options: SimpleCNNOptions, shape: tuple[int, int, int]
):
    model = simplecnn(options, shape)
    assert parameter_count(model) == expected(options, shape)
    assert model.embedding_dim == (options.embedding or features(options, *shape[:2]))
    out = np.array(model(mx.random.uniform(shape=(2, *shape))))
    assert out.shape == (2, model.embedding_dim)
    assert np.isfinite(out).all()


def kinds(model: Any) -> list[str]:
    """Its layers by what they are, whichever batch norm it is."""
    names = [type(layer).__name__ for layer in model.layers.layers]
    return ["Norm" if "Norm" in name else name for name in names]


@pytest.mark.parametrize(
    ("order", "pair"), [("relu-norm", ["ReLU", "Norm"]), ("norm-relu", ["Norm", "ReLU"])]
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_order_of_layers(order: Any, pair: list[str], dropout: float):
    model = simplecnn(SimpleCNNOptions(order=order, dropout=dropout), (64, 64, 3))
    block = ["Conv2d", *pair]
    last = ["Dropout"] if dropout else []
    pooled = [*block, "MaxPool2x2"]
    assert kinds(model) == [*pooled * 3, *block, "Flatten", *last, "Linear"]


@pytest.mark.parametrize(("order", "has_bias"), [("relu-norm", True), ("norm-relu", False)])
def test_a_convolution_has_a_bias_only_where_no_batch_norm_follows(order: Any, has_bias: bool):
    model = simplecnn(SimpleCNNOptions(channels=(2, 3), order=order), (8, 8, 3))
    convolutions = [layer for layer in model.layers.layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 2
    assert [("bias" in layer) for layer in convolutions] == [has_bias] * 2


def test_dropout_acts_in_training_only():
    model = simplecnn(SimpleCNNOptions(channels=(2,), dropout=0.5), (8, 8, 3))
    images = mx.random.uniform(shape=(4, 8, 8, 3))
    model.eval()
    assert mx.array_equal(model(images), model(images))
    model.train()
    assert not mx.array_equal(model(images), model(images))


def test_every_parameter_has_a_gradient():
    model = simplecnn(SimpleCNNOptions(channels=(2, 3)), (8, 8, 3))
    images = mx.random.uniform(shape=(4, 8, 8, 3))
    weights = mx.random.normal((4, model.embedding_dim))

    def loss(model: Any) -> mx.array:
        return (weights * model(images)).sum()

    _, gradients = nn.value_and_grad(model, loss)(model)
    flat = tree_flatten(gradients)
    assert len(flat) == 2 * 2 + 2 * 2 + 2  # two convolutions, two norms, one linear layer
    for name, gradient in flat:
        assert mx.isfinite(gradient).all(), name
        assert mx.abs(gradient).max() > 0, name


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25)
def test_an_image_too_small_to_be_halved_is_refused(blocks: int, height: int, width: int):
    options = SimpleCNNOptions(channels=(1,) * blocks, embedding=1)
    if min(height, width) >= 2 ** (blocks - 1):
        assert simplecnn(options, (height, width, 1)).embedding_dim == 1
    else:
        with pytest.raises(ConfigError) as caught:
            simplecnn(options, (height, width, 1))
        assert f"{height}x{width}" in str(caught.value)
        assert "too small" in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"channels": []},
        {"channels": [0, 3]},
        {"embedding": -1},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"order": "norm"},
        {"width": 3},
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, Any]):
    registry, _ = build_registry()
    with pytest.raises(ConfigError) as caught:
        resolve(registry, [{"backbone": {"name": "simplecnn", **values}}])
    assert next(iter(values)) in str(caught.value)


def test_the_parts_of_the_name_are_as_the_summary_says():
    registry, _ = build_registry()
    entry = registry.get("backbone", "asl/simplecnn")
    assert "3 million parameters" in entry.component.summary
    assert math.isclose(DOCUMENTED, 3e6, rel_tol=0.01)
    assert entry.component.options is SimpleCNNOptions


def test_shrunk_images_are_what_the_network_sees() -> None:
    one, two = (SimpleCNNOptions(channels=(2, 3), embedding=4, shrink=n) for n in (1, 2))
    small, large = simplecnn(one, (8, 8, 3)), simplecnn(two, (17, 16, 3))
    weights = [array for _, array in tree_flatten(small.parameters())]
    names = [name for name, _ in tree_flatten(large.parameters())]
    large.load_weights(list(zip(names, weights, strict=True)))
    images = np.random.default_rng(0).random((3, 17, 16, 3)).astype("f4")
    halves = images[:, :16].reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    found, due = (
        np.array(net.eval()(mx.array(x))) for net, x in ((large, images), (small, halves))
    )
    assert np.allclose(found, due, atol=1e-5)

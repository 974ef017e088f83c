"""Every family keeps the laws of a backbone, and trains what its options say."""

from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

import fewshot as fs
from fewshot import ConfigError, build_registry
from fewshot.experiments.config import check_implied
from fewshot.testing import check_backbone
from fewshot.testing.components import KIND
from fewshot_pretrained.networks import resnet, vit
from fewshot_pretrained.networks.published import PublishedOptions
from fewshot_pretrained.plugin import fewshot_backbones
from fewshot_pretrained.table import page

SHAPE = (32, 32, 3)


def test_a_network_keeps_the_laws_of_a_backbone(network):
    _, factory, options = network
    check_backbone(factory, options(frozen=False))


def test_both_outputs_are_the_one_after_the_other(transformer):
    factory, options = transformer
    images = mx.random.normal((2, *SHAPE))
    rows = {}
    for which in ("class", "mean", "both"):
        mx.random.seed(0)
        rows[which] = np.array(factory(options(output=which), SHAPE)(images))
    np.testing.assert_array_equal(
        rows["both"], np.concatenate([rows["class"], rows["mean"]], axis=1)
    )


@pytest.mark.parametrize("kernels", [(3, 3), (1, 3, 1), (3, 3, 3)])
def test_residual_networks_answer_by_onnx_runtime_too(kernels):
    pytest.importorskip("onnxruntime")
    mx.random.seed(0)
    shape = (32, 40, 3)
    if len(kernels) == 3 and kernels[0] == 3:
        made = resnet.ResNet12(resnet.ResNet12Options(widths=(2, 2, 3, 4)), shape)
    else:
        made = resnet.ResNet((1, 1), (8, 16), kernels, PublishedOptions(), shape, stem=4)
    made.update(tree_map(lambda a: a + 0.3 * mx.random.uniform(shape=a.shape), made.parameters()))
    rng = np.random.default_rng(0)
    data = fs.from_arrays(rng.integers(0, 256, (3, 32, 40, 3), np.uint8), np.zeros(3, int))
    embedder = fs.Embedder(made, normalize="none")
    due = fs.embed(embedder, data, engine="mlx")
    found = fs.embed(embedder, data, engine="onnx")
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-4 * np.abs(due).max())


def test_resnet12_keeps_the_laws_of_a_backbone():
    check_backbone(resnet.ResNet12, resnet.ResNet12Options(widths=(2, 2, 3, 4)))


def test_frozen_is_what_lies_before_train_from(network):
    """The numbers that are trained become fewer from block to block, and the last has some."""
    _, factory, options = network

    def trained(**chosen):
        made = factory(options(**chosen), SHAPE)
        return {name for name, _ in tree_flatten(made.trainable_parameters())}

    assert not trained(frozen=True)
    assert not trained(frozen=True, train_from=1)
    steps = [trained(frozen=False, train_from=n) for n in range(3)]
    for more, fewer in pairwise(steps):
        assert fewer < more
    with pytest.raises(ConfigError, match="blocks 1 to"):
        trained(frozen=False, train_from=9)
    whole = factory(options(frozen=False), SHAPE)
    parts = dict(whole.named_modules())
    for n in (1, 2):
        named = [name for block in whole.block_names()[n - 1 :] for name in block]
        assert trained(frozen=False, train_from=n) == {
            f"{name}.{inner}"
            for name in named
            for inner, _ in tree_flatten(parts[name].trainable_parameters())
        }


def test_grey_is_equal_red_green_and_blue(network):
    _, factory, options = network
    grey = mx.random.normal((2, 32, 32, 1))
    mx.random.seed(0)
    alone = factory(options(), (32, 32, 1))
    mx.random.seed(0)
    colour = factory(options(), SHAPE)
    alone.eval()
    colour.eval()
    np.testing.assert_array_equal(alone(grey), colour(mx.repeat(grey, 3, axis=3)))


@pytest.mark.parametrize(
    ("shape", "says"), [((32, 32, 2), "channels"), ((4, 32, 3), "from"), ((32, 36, 3), "32x32")]
)
def test_images_that_do_not_fit_are_refused(shape, says):
    plan = vit.Plan(patch=8, width=8, heads=2, depth=1)
    with pytest.raises(ConfigError, match=says):
        vit.ViT(plan, vit.ViTOptions(), shape)


@settings(max_examples=8)
@given(st.integers(0, 3), st.sampled_from([0.1, 0.3]), st.integers(1, 5))
def test_dropblock_drops_its_share_in_squares(seed, share, square):
    mx.random.seed(seed)
    drop = resnet.DropBlock(share, square, warmup=0)
    ones = mx.ones((4, 12, 12, 32))
    found = np.array(drop(ones))
    dropped = (found == 0).mean()
    # Overlapping squares drop less than the share: 1 − e^−share where all places are alike, less
    # than half of that at the edges of few windows.
    assert 0.4 * share < dropped < 1.15 * share
    assert found.mean() == pytest.approx(1, abs=1e-4)
    zero = found == 0
    if square > 1:  # no zero stands alone: some whole square of zeros covers it
        windows = np.lib.stride_tricks.sliding_window_view(zero, (square, square), axis=(1, 2))
        whole = windows.all(axis=(-1, -2))
        covered = np.zeros_like(zero)
        for i in range(square):
            for j in range(square):
                covered[:, i : i + whole.shape[1], j : j + whole.shape[2]] |= whole
        assert (covered == zero).all()
    drop.eval()
    assert drop(ones) is ones


def test_dropblock_begins_with_nothing():
    drop = resnet.DropBlock(0.5, 1, warmup=10)
    ones = mx.ones((8, 12, 12, 64))
    shares = [float((np.array(drop(ones)) == 0).mean()) for _ in range(12)]
    np.testing.assert_allclose(shares, np.minimum(np.arange(1, 13) / 20, 0.5), atol=0.02)


@given(st.integers(1, 40), st.integers(1, 40))
def test_positions_are_resampled_as_pillow_does(before, after):
    from PIL import Image

    row = np.random.default_rng(before).normal(size=(1, before)).astype(np.float32)
    due = np.asarray(Image.fromarray(row).resize((after, 1), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(row @ vit.bicubic(before, after).T, due, atol=1e-5)


def test_components_can_be_offered():
    """Names, options, summaries and what they imply; networks have laws of their own."""
    registry, components = build_registry()[0], fewshot_backbones()
    for component in components:
        check_implied(registry, component, component.name)
    one_of_each = {component.options: component for component in components}
    for component in one_of_each.values():
        KIND.check(component, None)


def test_the_page_of_networks_is_what_the_code_says():
    written = Path(__file__).parents[1] / "NETWORKS.md"
    assert written.read_text(encoding="utf-8") == page()

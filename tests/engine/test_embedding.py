"""One way from images to embeddings, and the floor of raw pixels."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import astuple, evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import modes, network, state, toy

from fewshot.compute.modules import evaluating
from fewshot.core.figures import collapsed
from fewshot.data.datasets import ArrayDataset
from fewshot.engine.embedding import embed, raw_pixels, recentre, settled, spread
from fewshot.engine.speed import embedding_speed
from fewshot.engine.verification import roc_auc
from fewshot.parts.embedder import Centre, Embedder, powered, within_classes
from fewshot.testing.laws import ULP

seeds = st.integers(0, 2**32 - 1)


@given(data=st.data(), batch=st.integers(1, 40))
def test_embedding_puts_back_every_mode_and_changes_no_number(data: Any, batch: int) -> None:
    net, images = network(dropout=0.5), toy(per_class=4)
    # No `train(mode)`: that would set the children's too.
    for part in net.modules():
        part._training = data.draw(st.booleans())
    before, mode_before = state(net), modes(net)
    first = embed(Embedder(net), images, batch=batch)
    assert modes(net) == mode_before
    after = state(net)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    # Neither dropout nor the batch's own statistics: every batch size gives the same.
    assert np.allclose(first, embed(Embedder(net), images), atol=100 * ULP)


def test_modes_are_put_back_where_the_inside_fails() -> None:
    net = network(dropout=0.5)
    net.layers.layers[1].eval()
    before = modes(net)

    def fail() -> None:
        with evaluating(net):
            assert not any(modes(net).values())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert modes(net) == before


@given(data=st.data())
def test_rows_asked_for_are_those_of_the_whole_and_all_others_are_nan(data: Any) -> None:
    images = toy(per_class=3)
    rows = st.lists(st.integers(0, len(images.labels) - 1), min_size=1, max_size=25)
    indices = np.array(data.draw(rows))
    embedder = Embedder(network())
    whole, part = embed(embedder, images), embed(embedder, images, indices, batch=4)
    assert part.shape == whole.shape
    assert np.allclose(part[indices], whole[indices], atol=100 * ULP)
    assert np.isnan(part[np.setdiff1d(np.arange(len(whole)), indices)]).all()
    floor = raw_pixels(images, indices)
    assert np.isfinite(floor[indices]).all()
    assert np.isnan(floor[np.setdiff1d(np.arange(len(whole)), indices)]).all()


def test_embeddings_have_length_one_unless_told_otherwise() -> None:
    images, net = toy(per_class=3), network()
    plain = embed(Embedder(net, normalize="none"), images)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert lengths.min() > 0.01
    assert lengths.max() - lengths.min() > 0.01
    assert np.allclose(embed(Embedder(net), images), plain / lengths, atol=100 * ULP)


def views(embedder: Embedder, images: Any) -> Any:
    """(b, h, w, c) -> (v, b, h, w, c)."""
    down, across = embedder.view_matrices(*images.shape[1:3])
    assert len(down) == len(across) == embedder.views
    return np.einsum("vij,bjkc,vlk->vbilc", down, images, across)


@given(h=st.integers(6, 20), w=st.integers(6, 20), seed=seeds)
def test_five_crops_are_pillows_crops_scaled(h: int, w: int, seed: int) -> None:
    images = np.random.default_rng(seed).random((2, h, w, 3), np.float32)
    found = views(Embedder(network(), crops="five"), images)
    kept_h, kept_w = h - h // 6, w - w // 6
    corners = [(0, 0), (0, w - kept_w), (h - kept_h, 0), (h - kept_h, w - kept_w)]
    assert np.array_equal(found[0], images)
    for crop, (top, left) in zip(found[1:], corners, strict=True):
        for i, channel in np.ndindex(2, 3):
            plane = Image.fromarray(images[i, :, :, channel])
            box = (left, top, left + kept_w, top + kept_h)
            scaled = plane.crop(box).resize((w, h), Image.Resampling.BILINEAR)
            assert np.allclose(crop[i, :, :, channel], np.asarray(scaled), atol=1e-5)


@given(crops=st.sampled_from(["one", "five"]), seed=seeds)
def test_mirrored_views_are_the_others_with_left_and_right_exchanged(crops: Any, seed: int) -> None:
    images = np.random.default_rng(seed).random((2, 8, 9, 3), np.float32)
    plain = Embedder(network(), crops=crops)
    alone, found = views(plain, images), views(evolve(plain, mirror=True), images)
    assert np.array_equal(found[: plain.views], alone)
    assert np.array_equal(found[plain.views :], alone[:, :, :, ::-1])


@pytest.mark.parametrize("normalize", ["l2", "none"])
@pytest.mark.parametrize(("crops", "mirror"), [("five", False), ("one", True), ("five", True)])
def test_an_embedding_is_the_mean_over_its_views(normalize: Any, crops: Any, mirror: bool) -> None:
    net, images = network().eval(), np.random.default_rng(0).random((4, 16, 16, 1), "f4")
    one = Embedder(net, normalize=normalize)
    many = evolve(one, crops=crops, mirror=mirror)
    each = np.stack([np.array(one(mx.array(view))) for view in views(many, images)])
    expected = each.mean(axis=0)
    if normalize == "l2":
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(np.array(many(mx.array(images))), expected, atol=100 * ULP)
    net.train()
    alone = np.array(one(mx.array(images)))
    assert np.allclose(np.array(many(mx.array(images))), alone, atol=100 * ULP)


def test_progress_counts_the_images_of_an_embedding() -> None:
    calls: list[tuple[int, int]] = []
    embed(Embedder(network()), toy(4), batch=10, progress=lambda *done: calls.append(done))
    n = len(toy(4).labels)
    assert calls == [(round(n * done / 3), n) for done in (1, 2, 3)]


class Widths(nn.Module):
    """Remembers how many images it was shown at a time."""

    embedding_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[int] = []

    def __call__(self, images: mx.array) -> mx.array:
        self._seen.append(len(images))
        return images[:, 0, :2, 0]


@pytest.mark.parametrize(("size", "most"), [(16, 9), (512, 4), (1100, 1)])
def test_large_images_are_embedded_few_at_a_time(size: int, most: int) -> None:
    pixel = np.random.default_rng(0).integers(0, 256, (1, 1, 1, 1)).astype(np.uint8)
    images = ArrayDataset(
        np.broadcast_to(pixel, (9, size, size, 1)), np.repeat([0, 1, 2], 3), ("a", "b", "c")
    )
    net = Widths()
    embed(Embedder(net), images)
    assert max(net._seen) == most
    assert sum(net._seen) == 9


@given(size=st.integers(1, 8), by=st.integers(1, 4), c=st.sampled_from([1, 3]), seed=seeds)
def test_raw_pixels_are_pillows_box_average(size: int, by: int, c: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(256, size=(3, size * by, size * by, c))
    data = ArrayDataset(images.astype(np.uint8), [0, 0, 1], ("a", "b"))
    found = raw_pixels(data, np.arange(3), size).reshape(3, size, size, c)
    for i, channel in np.ndindex(3, c):
        plane = Image.fromarray(images[i, :, :, channel].astype(np.float32))
        box = np.asarray(plane.resize((size, size), Image.Resampling.BOX)) / 255
        assert np.allclose(found[i, :, :, channel], box, atol=1e-5)


@given(h=st.integers(1, 20), w=st.integers(1, 20), size=st.integers(1, 8), seed=seeds)
def test_raw_pixels_average_whole_blocks_of_any_image(h: int, w: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(256, size=(1, h, w, 2)).astype(np.uint8)
    data = ArrayDataset(image, [0], ("a",))
    found = raw_pixels(data, np.array([0]), size)
    rows, columns, down, across = min(size, h), min(size, w), max(1, h // size), max(1, w // size)
    expected = [
        image[0, r * down : (r + 1) * down, k * across : (k + 1) * across].mean(axis=(0, 1)) / 255
        for r in range(rows)
        for k in range(columns)
    ]
    assert np.allclose(found[0], np.ravel(expected), atol=1e-5)


def test_speeds_are_positive_and_one_image_takes_the_reciprocal() -> None:
    net = network().train()
    found = embedding_speed(Embedder(net), (16, 16, 1), batch=4, seconds=0)
    assert min(astuple(found)) > 0
    assert found.single_latency_ms * found.single_images_per_second == pytest.approx(1000)
    assert all(modes(net).values())


# ------------------------------------------------------------------------------- centring


def roots(raw: Any, power: float) -> Any:
    raw = raw.astype(np.float64)
    return np.sign(raw) * np.abs(raw) ** power


def of_numpy(raw: Any, mean: Any, normalize: str) -> Any:
    """Raw embeddings (crops, n, d) centred, of length 1, and their mean over crops: float64."""

    def scaled(rows: Any) -> Any:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True) if normalize == "l2" else rows

    rows = scaled(raw - mean)
    return scaled(rows.mean(axis=0)) if len(raw) > 1 else rows[0]


@settings(max_examples=10)
@given(
    known=st.lists(st.integers(0, 17), min_size=2, unique=True),
    normalize=st.sampled_from(["l2", "none"]),
    crops=st.sampled_from(["one", "five"]),
    mirror=st.booleans(),
    power=st.sampled_from([1.0, 0.5, 0.3]),
)
def test_embeddings_are_raised_to_the_power_and_seen_from_the_mean_of_the_training_images(
    known: list[int], normalize: Any, crops: Any, mirror: bool, power: float
) -> None:
    images, net = toy(per_class=3), network(dropout=0.5)
    centre = Centre(net.embedding_dim)
    after: Any = {"normalize": normalize, "crops": crops, "mirror": mirror, "power": power}
    embedder = Embedder(net, centre=centre, **after)
    recentre(embedder, images, np.array(known))
    assert net.training  # as it was

    seen = views(embedder, embedder.prepared(images.images))
    with evaluating(net):
        raw = roots(np.stack([np.array(net(mx.array(view))) for view in seen]), power)
    mean = raw[:, known].mean(axis=(0, 1))
    assert embedder.centre is not None
    assert np.allclose(np.array(embedder.centre.mean), mean, atol=1e-5)
    expected = of_numpy(raw, mean, normalize)
    assert np.allclose(embed(embedder, images), expected, atol=1e-3)
    assert not np.allclose(embed(evolve(embedder, centre=None), images), expected, atol=1e-3)


def test_during_training_nothing_is_subtracted_and_no_root_taken() -> None:
    net, images = network().train(), mx.array(np.random.default_rng(0).random((4, 16, 16, 1), "f4"))
    for crops in ("one", "five"):
        plain = Embedder(net, crops=crops)
        centred = evolve(plain, centre=Centre(net.embedding_dim), power=0.5)
        centred.centre.mean = mx.ones(net.embedding_dim)
        assert np.allclose(np.array(plain(images)), np.array(centred(images)), atol=100 * ULP)


@settings(max_examples=10)
@given(seed=seeds, crops=st.sampled_from(["one", "five"]))
def test_half_precision_rounds_the_numbers_of_the_backbone_and_leaves_its_weights(
    seed: int, crops: Any
) -> None:
    """Against one whose weights and images were rounded to eleven bits, and all else exact."""
    net, rounded, images = network(seed=seed), network(seed=seed), toy(per_class=3)
    before = state(net)
    half = embed(Embedder(net, crops=crops, precision="float16"), images)
    assert half.dtype == np.float32
    after = state(net)
    assert all(after[name].dtype == each.dtype for name, each in before.items())
    assert all(np.array_equal(after[name], each) for name, each in before.items())

    rounded.apply(lambda weight: weight.astype(mx.float16).astype(mx.float32))
    exact, near = (embed(Embedder(each, crops=crops), images) for each in (net, rounded))
    assert np.abs(half - near).max() < 0.01
    assert np.abs(half - exact).max() > 0


def test_training_stays_in_float32() -> None:
    net, images = network().train(), mx.array(np.random.default_rng(0).random((4, 16, 16, 1), "f4"))
    half, whole = (np.array(Embedder(net, precision=p)(images)) for p in ("float16", "float32"))
    assert np.array_equal(half, whole)


def test_a_power_keeps_signs_and_order_and_has_finite_gradients() -> None:
    numbers = [-4.0, -0.25, -1e-30, 0.0, 1e-30, 0.25, 4.0]
    found = powered(mx.array(numbers), 0.5)
    expected = [-2, -0.5, -1e-15, 0, 1e-15, 0.5, 2]
    np.testing.assert_allclose(np.array(found), expected, rtol=1e-5)
    slopes = np.array(mx.grad(lambda x: powered(x, 0.5).sum())(mx.array(numbers)))
    assert np.isfinite(slopes).all()
    assert slopes[3] == 0
    np.testing.assert_allclose(slopes[[0, 1, 5, 6]], [0.25, 1, 1, 0.25], rtol=1e-5)


def test_without_a_centre_there_is_none_to_take() -> None:
    embedder = Embedder(network())
    recentre(embedder, toy(per_class=3), np.arange(3))
    assert embedder.centre is None


def test_images_are_prepared_as_transforms_in_a_row_would() -> None:
    images = toy(per_class=1).images

    def noise(batch: Any, rng: np.random.Generator) -> Any:
        return batch + rng.random(batch.shape, np.float32)

    embedder = Embedder(
        network(), preprocess=(lambda batch, _: 2 * batch, lambda batch, _: batch - 1)
    )
    expected = images.astype(np.float64) / 255
    assert np.allclose(embedder.prepared(images), 2 * expected - 1, atol=1e-6)
    expected = expected + np.random.default_rng(3).random(images.shape, np.float32)
    found = embedder.prepared(images, [noise], np.random.default_rng(3))
    assert found.dtype == np.float32
    assert np.allclose(found, 2 * expected - 1, atol=1e-6)


# ------------------------------------------------------------------------------- collapse


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=20)
def test_rounding_tells_nothing_apart(seed: int, scale: float):
    """One image in batches of other sizes: its embeddings differ by rounding."""
    rng = np.random.default_rng(seed)
    rows = np.tile(scale * rng.normal(size=8), (20, 1))
    rows = (rows * (1 + 1e-7 * rng.normal(size=rows.shape))).astype(np.float32)
    rows[3] = np.nan  # not asked about
    same = settled(rows)
    assert np.isnan(same[3]).all()
    distances = np.linalg.norm(same[[0, 1, 2, 4]] - same[[5, 6, 7, 8]], axis=1)
    assert roc_auc(distances, np.array([True, True, False, False])) == 0.5
    np.testing.assert_allclose(same, rows, rtol=1e-5)
    (line,) = collapsed(spread(rows))
    assert "collapsed" in line


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=20)
def test_spread_is_that_of_the_definition_and_what_lies_apart_stays(seed: int, scale: float):
    rows = (scale * np.random.default_rng(seed).normal(1, 1, (30, 8))).astype(np.float32)
    points = rows.astype(np.float64)
    expected = np.sqrt(points.var(axis=0).sum() / (points**2).sum(axis=1).mean())
    assert spread(rows) == pytest.approx(expected, rel=1e-9)
    assert settled(rows) is rows
    assert not collapsed(spread(rows))


def test_no_length_and_no_rows_are_collapsed_too():
    assert spread(np.zeros((3, 2), np.float32)) == 0
    assert spread(np.full((3, 2), np.nan, np.float32)) == 0
    assert not settled(np.zeros((3, 2), np.float32)).any()
    assert not collapsed(None)


# ------------------------------------------------------------------------------ whitening


@settings(max_examples=15)
@given(seed=st.integers(0, 999), d=st.integers(2, 9), ridge=st.sampled_from([0.5, 3.0]))
def test_what_differs_within_classes_is_whitened_and_the_rest_kept(
    seed: int, d: int, ridge: float
) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 4, 40)
    rows = (rng.normal(size=(40, d)) * 3.0 ** np.arange(d)).astype(np.float32)
    directions = int(rng.integers(1, d + 1))
    apart = rows.astype(np.float64)
    for of in np.unique(units):
        apart[units == of] -= apart[units == of].mean(axis=0)
    sizes, axes = np.linalg.eigh(apart.T @ apart / 40)
    sizes, axes = sizes[::-1][:directions], axes[:, ::-1][:, :directions]
    flat = ridge * sizes.mean()
    expected = np.eye(d) + axes @ np.diag(np.sqrt(flat / (sizes + flat)) - 1) @ axes.T
    centre = Centre(d, whitens=True)
    centre.within = mx.array(within_classes(rows, units, directions, ridge))
    assert np.allclose(np.array(centre(mx.eye(d))), expected, atol=2e-3)
    more = within_classes(rows, units, d + 50, ridge)  # more than there are: the others are zeros
    assert not more[:, d:].any()
    assert np.isfinite(more).all()


def test_a_whitening_is_of_each_class_of_each_source_and_the_same_in_every_engine() -> None:
    data = evolve(toy(per_class=6), source=np.tile(["anna", "ben"], 18))
    net, known = network(), np.arange(0, 24)
    embedder = Embedder(net.eval(), centre=Centre(net.embedding_dim, whitens=True))
    recentre(embedder, data, known)
    raw = embed(evolve(embedder, centre=None, normalize="none"), data)[known]
    units = 2 * data.labels[known] + known % 2
    due = within_classes(raw, units, embedder.centre.within.shape[1])
    found = np.array(embedder.centre.within)
    assert np.allclose(found @ found.T, due @ due.T, atol=1e-4)
    alone = within_classes(raw, data.labels[known], len(due))
    assert not np.allclose(found @ found.T, alone @ alone.T, atol=1e-3)
    mlx, onnx = (embed(embedder, data, engine=engine) for engine in ("mlx", "onnx"))
    assert np.allclose(mlx, onnx, atol=1e-4)

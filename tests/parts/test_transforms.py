"""The built-in transforms; what every transform keeps is in test_laws.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.core.errors import ConfigError
from fewshot.parts.transforms import (
    BlurOptions,
    CloudsOptions,
    ColourOptions,
    CropOptions,
    EraseOptions,
    FlipOptions,
    NormaliseOptions,
    TintOptions,
    WarpOptions,
    clouds,
    colour_jitter,
    gaussian_blur,
    horizontal_flip,
    normalise,
    random_erasing,
    random_resized_crop,
    random_tint,
)
from fewshot.testing import batches
from fewshot.testing.strategies import seeds
from fewshot.testing.transforms import TOLERANCE, transformed

Images = NDArray[np.float32]


def close(a: Images, b: Images, tolerance: float = TOLERANCE) -> bool:
    return np.allclose(a, b, rtol=0, atol=tolerance)


# ----------------------------------------------------------------------------------- flip


@given(images=batches(), seed=seeds)
def test_a_certain_flip_mirrors_left_and_right_and_undoes_itself(images: Images, seed: int) -> None:
    flip = horizontal_flip(FlipOptions(1.0))
    once = transformed(flip, images, seed)
    assert np.array_equal(once, np.array([np.fliplr(image) for image in images]))
    assert np.array_equal(transformed(flip, once, seed + 1), images)


@given(images=batches(), seed=seeds)
def test_a_flip_of_probability_0_does_nothing(images: Images, seed: int) -> None:
    assert np.array_equal(transformed(horizontal_flip(FlipOptions(0.0)), images, seed), images)


@given(probability=st.sampled_from([0.2, 0.5, 0.8]), seed=seeds)
def test_images_are_flipped_as_often_as_asked(probability: float, seed: int) -> None:
    images = np.zeros((2000, 1, 2, 1), np.float32)
    images[:, :, 0] = 1
    found = transformed(horizontal_flip(FlipOptions(probability)), images, seed)
    share = found[:, 0, 1, 0].mean()
    assert abs(share - probability) < 6 * (probability * (1 - probability) / 2000) ** 0.5


# ----------------------------------------------------------------------------------- crop


@given(images=batches(), seed=seeds)
def test_a_crop_of_everything_is_the_identity(images: Images, seed: int) -> None:
    assert close(transformed(random_resized_crop(CropOptions(1.0, 1.0, 1.0)), images, seed), images)


@given(scale=st.floats(0.1, 1), stretch=st.floats(1, 2), grey=st.floats(0, 1, width=32), seed=seeds)
def test_a_crop_of_one_colour_is_that_colour(
    scale: float, stretch: float, grey: float, seed: int
) -> None:
    images = np.full((3, 5, 7, 1), grey, np.float32)
    assert close(
        transformed(random_resized_crop(CropOptions(scale, 1.0, stretch)), images, seed), images
    )


@given(share=st.floats(0.25, 1), seed=seeds, vertical=st.booleans())
def test_a_crop_of_a_ramp_is_the_ramp_drawn_out_by_the_side_cut(
    share: float, seed: int, vertical: bool
) -> None:
    n = 16
    ramp = np.broadcast_to(np.linspace(0, 1, n, dtype=np.float32)[:, None], (n, n))
    image = (ramp if vertical else ramp.T)[None, :, :, None]
    found = transformed(random_resized_crop(CropOptions(share, share, 1.0)), image, seed)[
        0, :, :, 0
    ]
    lines = found if vertical else found.T
    assert close(lines, np.broadcast_to(lines[:, :1], lines.shape))  # nothing across the ramp
    steps = np.diff(lines[:, 0])
    # bilinear sampling keeps a straight line straight, but for half a pixel repeated at its ends
    assert np.allclose(steps[1:-1], share**0.5 / (n - 1), rtol=0, atol=4 * TOLERANCE)
    assert (steps >= -TOLERANCE).all()


@given(seed=seeds, low=st.floats(0.2, 1), stretch=st.floats(1, 1.5))
def test_a_crop_covers_no_more_and_no_less_than_its_scale(
    seed: int, low: float, stretch: float
) -> None:
    # The steps of a ramp in the middle of a crop are the cut side's share of the image.
    n = 32
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    image = np.zeros((8, n, n, 2), np.float32)
    image[..., 0], image[..., 1] = ramp[:, None], ramp[None, :]
    found = transformed(random_resized_crop(CropOptions(low, 1.0, stretch)), image, seed)
    middle = slice(n // 2 - 1, n // 2 + 1)
    height = np.diff(found[:, middle, n // 2, 0], axis=1)[:, 0] * (n - 1)
    width = np.diff(found[:, n // 2, middle, 1], axis=1)[:, 0] * (n - 1)
    slack = n * TOLERANCE * 4
    assert (height * width <= 1 + slack).all()
    assert (height <= 1 + slack).all()
    assert (width <= 1 + slack).all()
    inside = (height < 1 - slack) & (width < 1 - slack)  # neither side was cut to the image
    assert (height * width >= low - slack)[inside].all()
    assert (np.maximum(height / width, width / height) <= stretch * (1 + slack))[inside].all()


def test_a_crop_whose_scales_are_swapped_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_scale 0\.9 > max_scale 0\.5"):
        random_resized_crop(CropOptions(0.9, 0.5))


# --------------------------------------------------------------------------------- colour


@given(images=batches(), seed=seeds)
def test_no_colour_jitter_is_the_identity(images: Images, seed: int) -> None:
    assert close(transformed(colour_jitter(ColourOptions(0, 0, 0)), images, seed), images)


@given(grey=batches((1,)), seed=seeds)
def test_saturation_leaves_grey_alone(grey: Images, seed: int) -> None:
    images = np.repeat(grey, 3, axis=-1)
    assert close(transformed(colour_jitter(ColourOptions(0, 0, 1)), images, seed), images)


@given(images=batches((3,)), seed=seeds)
def test_colour_jitter_keeps_a_grey_image_grey(images: Images, seed: int) -> None:
    images = np.repeat(images[..., :1], 3, axis=-1)
    found = transformed(colour_jitter(), images, seed)
    assert close(found, np.repeat(found[..., :1], 3, axis=-1))


@given(images=batches(), width=st.floats(0, 1), seed=seeds)
def test_brightness_scales_an_image_by_one_factor_in_its_range(
    images: Images, width: float, seed: int
) -> None:
    found = transformed(colour_jitter(ColourOptions(width, 0, 0)), images / 2, seed).astype(
        np.float64
    )
    for before, after in zip(images.astype(np.float64) / 2, found, strict=True):
        if before.max() > 1e-3:
            factor = after.sum() / before.sum()
            assert 1 - width - TOLERANCE <= factor <= 1 + width + TOLERANCE
            assert close(after, before * factor)


@given(images=batches((1, 2, 4)), width=st.floats(0, 0.5), seed=seeds)
def test_contrast_keeps_the_mean_and_scales_what_differs_from_it(
    images: Images, width: float, seed: int
) -> None:
    images = 0.25 + images / 2  # far from the borders at 0 and 1
    found = transformed(colour_jitter(ColourOptions(0, width, 0)), images, seed).astype(np.float64)
    for before, after in zip(images.astype(np.float64), found, strict=True):
        off = before - before.mean()
        assert after.mean() == pytest.approx(before.mean(), abs=TOLERANCE)
        if (off**2).sum() > 1e-3:
            factor = ((after - after.mean()) * off).sum() / (off**2).sum()
            slack = 100 * TOLERANCE
            assert 1 - width - slack <= factor <= 1 + width + slack
            assert close(after, before.mean() + factor * off, slack)


# ----------------------------------------------------------------------------------- blur


@given(grey=st.floats(0, 1, width=32), sigma=st.floats(0.1, 3), seed=seeds)
def test_blur_keeps_one_colour(grey: float, sigma: float, seed: int) -> None:
    images = np.full((2, 5, 6, 1), grey, np.float32)
    assert close(transformed(gaussian_blur(BlurOptions(sigma, 1.0)), images, seed), images)


@given(images=batches(), sigma=st.floats(0.1, 2), seed=seeds)
def test_blur_keeps_the_sum_where_the_border_is_even(
    images: Images, sigma: float, seed: int
) -> None:
    margin = int(np.ceil(2.5 * sigma))
    padded = np.pad(images, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    found = transformed(gaussian_blur(BlurOptions(sigma, 1.0)), padded, seed)
    sums = [x.sum(axis=(1, 2), dtype=np.float64) for x in (found, padded)]
    assert np.allclose(*sums, rtol=1e-5, atol=1e-5)


@given(images=batches(), seed=seeds)
def test_a_blur_of_probability_0_does_nothing(images: Images, seed: int) -> None:
    assert close(transformed(gaussian_blur(BlurOptions(2.0, 0.0)), images, seed), images)


@given(sigma=st.floats(0.3, 3), seed=seeds)
def test_a_blurred_point_is_a_gaussian_no_wider_than_sigma(sigma: float, seed: int) -> None:
    n = 2 * int(np.ceil(2.5 * 3)) + 1
    point = np.zeros((1, n, n, 1), np.float32)
    point[0, n // 2, n // 2] = 1
    spot = transformed(gaussian_blur(BlurOptions(sigma, 1.0)), point, seed)[0, :, :, 0]
    assert close(spot, spot[::-1])
    assert close(spot, spot[:, ::-1])
    assert close(spot, spot.T)
    profile = spot.sum(axis=0, dtype=np.float64)
    assert close(spot, np.outer(profile, profile))
    offsets = np.arange(n) - n // 2
    assert (profile * offsets**2).sum() <= sigma**2 + 100 * TOLERANCE
    # the logarithm of a Gaussian is a parabola: one second difference everywhere
    logs = np.log(profile[profile > 1e-4])
    if len(logs) >= 5:
        bends = np.diff(logs, 2)
        assert np.allclose(bends, bends.mean(), rtol=1e-2)
        assert (-1 / bends.mean()) ** 0.5 <= sigma * 1.01


# ----------------------------------------------------------------------------------- tint


@given(images=batches(), seed=seeds)
def test_no_tint_is_the_identity(images: Images, seed: int) -> None:
    assert close(transformed(random_tint(TintOptions(0, 0, 0)), images, seed), images)


@given(images=batches(), curve=st.floats(0, 1), gain=st.floats(0, 1), seed=seeds)
def test_a_tint_without_hue_is_a_curve_and_a_gain_of_each_channel(
    images: Images, curve: float, gain: float, seed: int
) -> None:
    # Three greys tell curve and gain; they foretell what becomes of the image.
    known = np.array([0.1, 0.2, 0.3])
    probe = images.copy()[:, :1, :1].repeat(4, axis=1)
    probe[:, :3] = known[:, None, None]
    probe[:, 3:] = images[:, :1, :1]
    found = transformed(random_tint(TintOptions(curve, gain, 0)), probe, seed).astype(np.float64)
    lifted = found[:, :2, 0] / known[:2, None]  # g(1 + a(1 - x)), unless clipped at 1
    slope = (lifted[:, 0] - lifted[:, 1]) / 0.1
    g = lifted[:, 0] - 0.9 * slope
    slack = 1e-4
    assert (np.abs(g - 1) <= gain + slack).all()
    assert (np.abs(slope) <= curve * np.abs(g) + slack).all()
    x = probe[:, 2:, 0].astype(np.float64)
    expected = np.clip(x * g[:, None] + slope[:, None] * x * (1 - x), 0, 1)
    assert close(found[:, 2:, 0], expected, slack)


@given(images=batches((3,)), seed=seeds)
def test_a_turn_of_hue_keeps_brightness_and_saturation(images: Images, seed: int) -> None:
    images = 0.4 + images / 5  # no turn reaches 0 or 1
    found = transformed(random_tint(TintOptions(0, 0, 0.5)), images, seed).astype(np.float64)
    mean = images.astype(np.float64).mean(axis=-1, keepdims=True)
    assert close(found.mean(axis=-1, keepdims=True), mean)
    assert close(((found - mean) ** 2).sum(-1), ((images - mean) ** 2).sum(-1))


# ------------------------------------------------------------------------ erase and clouds


@given(seed=seeds, area=st.floats(0.01, 0.5), stretch=st.floats(1, 3))
def test_what_is_erased_is_a_rectangle_of_one_colour(
    seed: int, area: float, stretch: float
) -> None:
    images = np.full((6, 24, 24, 3), -1, np.float32)
    found = transformed(random_erasing(EraseOptions(area, area, stretch, 1.0)), images, seed)
    for image in found:
        erased = image[..., 0] >= 0
        rows, columns = erased.any(axis=1), erased.any(axis=0)
        assert np.array_equal(erased, np.outer(rows, columns))
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
        assert (np.diff(np.flatnonzero(columns)) == 1).all()
        assert len(np.unique(image[erased], axis=0)) <= 1
        longer = 24 * (area * stretch) ** 0.5
        assert max(rows.sum(), columns.sum()) <= longer + 1
        assert erased.sum() <= 24**2 * area + 2 * longer + 1  # one more row and column


@given(images=batches(), seed=seeds)
def test_nothing_is_erased_nor_clouded_with_probability_0(images: Images, seed: int) -> None:
    assert np.array_equal(
        transformed(random_erasing(EraseOptions(probability=0)), images, seed), images
    )
    assert close(transformed(clouds(CloudsOptions(probability=0)), images, seed), images)


def test_a_smallest_area_over_the_largest_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_area 0\.3 > max_area 0\.2"):
        random_erasing(EraseOptions(min_area=0.3))


@given(seed=seeds, strength=st.floats(0, 1), cells=st.integers(2, 6))
def test_clouds_are_blended_in_smoothly_and_no_more_than_their_strength(
    seed: int, strength: float, cells: int
) -> None:
    options = CloudsOptions(cells, strength, 1.0)
    n = 31
    dark, bright = (
        transformed(clouds(options), np.full((4, n, n, 3), value, np.float32), seed)
        for value in (0, 1)
    )
    opacity = 1 - (bright - dark)
    assert close(opacity, opacity[..., :1].repeat(3, axis=-1))
    assert opacity.min() >= -TOLERANCE
    assert opacity.max() <= strength + TOLERANCE
    step = strength * (cells - 1) / (n - 1)  # from one cell to the next, linearly
    assert np.abs(np.diff(opacity, axis=1)).max() <= step + TOLERANCE
    assert np.abs(np.diff(opacity, axis=2)).max() <= step + TOLERANCE


# ------------------------------------------------------------------------------ normalise


@given(images=batches((3,)), seed=seeds, data=st.data())
def test_normalise_is_undone_by_its_numbers(images: Images, seed: int, data: Any) -> None:
    n = data.draw(st.sampled_from([1, 3]))
    mean = tuple(data.draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n)))
    std = tuple(data.draw(st.lists(st.floats(0.1, 2), min_size=n, max_size=n)))
    found = transformed(normalise(NormaliseOptions(mean, std)), images, seed).astype(np.float64)
    assert close(found * np.array(std) + np.array(mean), images, 10 * TOLERANCE)


@given(images=batches())
def test_normalise_treats_an_image_alone_as_in_a_batch(images: Images) -> None:
    transform = normalise()
    alone = np.concatenate([transformed(transform, image[None]) for image in images])
    assert np.array_equal(alone, transformed(transform, images))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("part", ["mean", "std"])
def test_normalise_refuses_numbers_that_fit_no_channels(channels: int, part: str) -> None:
    images = np.zeros((1, 2, 2, channels), np.float32)
    transform = normalise(NormaliseOptions(**{part: (0.5, 0.5)}))
    with pytest.raises(ConfigError, match=f"2 numbers in {part}, images have {channels} channels"):
        transformed(transform, images)


# -------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (CropOptions, {"min_scale": 0.0}),
        (CropOptions, {"max_scale": 1.5}),
        (CropOptions, {"stretch": 0.9}),
        (FlipOptions, {"probability": 1.5}),
        (FlipOptions, {"probability": -0.5}),
        (ColourOptions, {"brightness": -0.1}),
        (ColourOptions, {"contrast": 1.1}),
        (ColourOptions, {"saturation": 2.0}),
        (BlurOptions, {"sigma": 0.0}),
        (BlurOptions, {"probability": 2.0}),
        (WarpOptions, {"rotation": -1.0}),
        (WarpOptions, {"min_scale": 0.0}),
        (WarpOptions, {"perspective": 0.5}),
        (TintOptions, {"curve": 1.1}),
        (EraseOptions, {"stretch": 0.5}),
        (CloudsOptions, {"cells": 1}),
        (NormaliseOptions, {"mean": ()}),
        (NormaliseOptions, {"std": ()}),
        (NormaliseOptions, {"std": (0.5, 0.0)}),
    ],
)
def test_options_out_of_range_are_refused(options: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        options(**change)

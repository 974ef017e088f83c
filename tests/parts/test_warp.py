"""What is true of the random homography, by where its pixels come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from fewshot.core.errors import ConfigError
from fewshot.parts.transforms import WarpOptions, random_warp
from fewshot.testing import batches
from fewshot.testing.strategies import seeds
from fewshot.testing.transforms import TOLERANCE

Images = NDArray[np.float32]


def apply(options: WarpOptions, images: Images, seed: int) -> Images:
    return random_warp(options)(images, np.random.default_rng(seed))


def sources(options: WarpOptions, seed: int, n: int, b: int = 4) -> NDArray[np.float64]:
    """Where each pixel of b warped images of n x n comes from: (b, 2, n, n), in pixels."""
    places = np.repeat(np.indices((n, n), np.float32)[None] / (n - 1), b, axis=0)
    found = apply(options, places.transpose(0, 2, 3, 1), seed)
    return found.transpose(0, 3, 1, 2).astype(np.float64) * (n - 1)


def still(**ranges: float) -> WarpOptions:
    """A warp that does nothing but what is asked for."""
    nothing = {"rotation": 0, "shear": 0, "shift": 0, "perspective": 0}
    return WarpOptions(**{**nothing, "min_scale": 1, "max_scale": 1, **ranges})


def slopes(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jacobians (b, 2, 2) in the middle of (b, 2, n, n)."""
    m = at.shape[-1] // 2
    down = at[..., m, m] - at[..., m - 1, m]
    return np.stack([down, at[..., m, m] - at[..., m, m - 1]], axis=-1)


@given(images=batches(), seed=seeds)
def test_a_warp_of_nothing_is_the_identity(images: Images, seed: int) -> None:
    assert np.allclose(apply(still(), images, seed), images, rtol=0, atol=TOLERANCE)


@given(seed=seeds, n=st.integers(4, 20))
def test_a_warp_is_bilinear_sampling_where_its_pixels_come_from(seed: int, n: int) -> None:
    images = np.random.default_rng(seed).random((4, n, n, 1), np.float32)
    found = apply(WarpOptions(), images, seed)[..., 0]
    expected = [
        map_coordinates(image[..., 0].astype(np.float64), at, order=1, mode="nearest")
        for image, at in zip(images, sources(WarpOptions(), seed, n), strict=True)
    ]
    assert np.allclose(found, expected, rtol=0, atol=4 * n * TOLERANCE)


@given(seed=seeds, angle=st.floats(0, 180), scale=st.floats(0.8, 2))
def test_a_rotation_turns_by_no_more_than_its_angle_and_scales(
    seed: int, angle: float, scale: float
) -> None:
    turns = slopes(sources(still(rotation=angle, min_scale=scale, max_scale=scale), seed, 16))
    assert np.allclose(turns @ turns.swapaxes(1, 2), np.eye(2) / scale**2, atol=1e-4)
    assert (np.linalg.det(turns) > 0).all()  # no mirror image
    found = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert (np.abs(found) <= angle + 0.1).all()


@given(seed=seeds, shear=st.floats(0, 0.5), shift=st.floats(0, 0.2))
def test_shear_and_shift_stay_in_their_ranges(seed: int, shear: float, shift: float) -> None:
    n = 17
    at = sources(still(shear=shear, shift=shift), seed, n)
    assert np.allclose(slopes(at)[:, 0], [1, 0], atol=1e-4)
    assert np.allclose(slopes(at)[:, 1, 1], 1, atol=1e-4)
    assert (np.abs(slopes(at)[:, 1, 0]) <= shear + 1e-4).all()
    assert (np.abs(at[..., n // 2, n // 2] - n // 2) <= shift * n + 1e-4).all()


@given(seed=seeds, perspective=st.floats(0, 0.4))
def test_perspective_keeps_straight_lines_straight_and_the_middle_in_place(
    seed: int, perspective: float
) -> None:
    n = 17
    at = sources(still(perspective=perspective, min_scale=2, max_scale=2), seed, n)
    assert np.allclose(at[..., n // 2, n // 2], n // 2, atol=1e-4)
    ends = at[..., 4, :], at[..., n // 2, :], at[..., 12, :]  # far from the border
    first, second = ends[1] - ends[0], ends[2] - ends[0]
    inside = slice(4, 13)
    cross = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    assert np.allclose(cross[:, inside], 0, atol=1e-3)


@given(seed=seeds, stretch=st.floats(1, 3))
def test_a_stretch_makes_things_wider_and_lower_or_the_other_way_about(
    seed: int, stretch: float
) -> None:
    found = slopes(sources(still(stretch=stretch), seed, 16))
    assert np.allclose(found * (1 - np.eye(2)), 0, atol=1e-4)  # no shear, no turn
    assert np.allclose(np.linalg.det(found), 1, atol=1e-3)  # no other size
    ratio = found[:, 0, 0] / found[:, 1, 1]
    assert (np.abs(np.log(ratio)) <= np.log(stretch) + 1e-3).all()
    assert stretch < 1.5 or len(np.unique(ratio)) == len(ratio)


@given(seed=seeds, bend=st.floats(0.01, 0.1), cells=st.integers(1, 4))
def test_parts_bend_by_no_more_than_asked_for_and_smoothly(
    seed: int, bend: float, cells: int
) -> None:
    n = 25
    moved = sources(still(bend=bend, cells=cells), seed, n) - np.indices((n, n))
    assert (np.abs(moved) <= bend * n + 1e-3).all()
    inside = moved[:, :, 5:-5, 5:-5]  # nothing is beyond the border
    assert np.ptp(inside, axis=(2, 3)).min() > 0
    # A cubic spline of knots of at most 1 and `cells` cells has second differences of at most 4.
    most = 4 * bend * n * (cells / (n - 1)) ** 2 + 1e-3
    assert (np.abs(np.diff(inside, 2, axis=2)) <= most).all()
    assert (np.abs(np.diff(inside, 2, axis=3)) <= most).all()


def test_a_warp_whose_scales_are_swapped_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_scale 1\.5 > max_scale 1\.2"):
        random_warp(WarpOptions(min_scale=1.5))

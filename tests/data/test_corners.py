"""Corners of images are images of the same size, and lie where they are said to."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fewshot.data.corners import CORNERS, SIDE, Corners, corner, corners
from fewshot.data.datasets import from_arrays

sides = st.integers(4, 24)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(sides, sides, st.sampled_from([1, 3, 4]))
def test_corners_of_a_mirrored_image_are_the_mirrored_corners(h: int, w: int, c: int) -> None:
    image = noise(h, w, c)
    left, right = (corner(image, i) for i in (0, 1))
    assert left.shape == image.shape
    np.testing.assert_allclose(corner(image[:, ::-1], 1), left[:, ::-1], atol=2)
    np.testing.assert_allclose(corner(image[::-1], 3), corner(image, 1)[::-1], atol=2)
    np.testing.assert_allclose(corner(image[:, ::-1], 0), right[:, ::-1], atol=2)


@given(sides, st.integers(0, 3))
def test_a_corner_sees_nothing_of_the_opposite_edge(side: int, which: int) -> None:
    """One beyond it by more than the kernel reaches."""
    image = noise(side, side, 1)
    other = image.copy()
    beyond = int(SIDE * side) + 3
    rows = slice(beyond, None) if which < 2 else slice(None, max(0, side - beyond))
    other[rows] = 255 - other[rows]
    np.testing.assert_array_equal(corner(other, which), corner(image, which))


@given(st.integers(0, 255), sides)
def test_a_plain_image_has_plain_corners(value: int, side: int) -> None:
    image = np.full((side, side, 3), value, np.uint8)
    for which in range(CORNERS):
        np.testing.assert_array_equal(corner(image, which), image)


def test_as_a_dataset_they_are_the_corners_of_the_images_named() -> None:
    data = from_arrays(noise(6, 9, 8, 3), [0, 0, 1, 1, 2, 2])
    found = Corners(data, np.array([4, 1]))
    assert found.labels.tolist() == [2] * CORNERS + [0] * CORNERS
    every = np.stack([found[i] for i in range(2 * CORNERS)])
    np.testing.assert_array_equal(every, corners(data.images[[4, 1]]))
    assert corners(data.images[:0]).shape == (0, 9, 8, 3)

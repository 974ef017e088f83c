"""The hand-drawing data set: every class draws, repeats exactly and shows its hand."""

import string

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot_asl.drawing import LARGEST, SMALLEST, draw
from fewshot_asl.poses import NAMES, POSES, Pose

SIZE = 48
SEEDS = st.integers(0, 2**32 - 1)
HANDS = sorted(POSES)
FINGERS = ("index", "middle", "ring", "little")
STRAIGHT = {
    "B": FINGERS,
    "D": ("index",),
    "F": ("middle", "ring", "little"),
    "G": ("index",),
    "H": ("index", "middle"),
    "I": ("little",),
    "L": ("index",),
    "Q": ("index",),
    "R": ("index", "middle"),
    "U": ("index", "middle"),
    "V": ("index", "middle"),
    "W": ("index", "middle", "ring"),
    "Y": ("little",),
}
FISTS = ("A", "S", "T")


def picture(name: str, seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    return draw(name, np.random.default_rng(seed), size)


def hand_mask(name: str, seed: int) -> NDArray[np.bool_]:
    """Pixels where the picture differs from the same scene without a hand."""
    change = picture(name, seed).astype(int) - picture("nothing", seed).astype(int)
    return np.asarray(change.any(2))


def test_names_are_the_29_classes_in_sorted_order() -> None:
    assert list(NAMES) == sorted([*string.ascii_uppercase, "del", "nothing", "space"])


def test_every_class_has_a_pose_or_is_nothing() -> None:
    assert set(NAMES) - set(POSES) == {"nothing"}
    assert set(POSES) <= set(NAMES)


def test_no_two_classes_share_a_pose() -> None:
    assert len(set(POSES.values())) == len(POSES)


def test_poses_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        POSES["A"].yaw = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(STRAIGHT))
def test_letters_raise_the_fingers_they_should(name: str) -> None:
    bends = [f.mcp + f.pip + f.dip for f in POSES[name].fingers]
    raised = {finger for finger, bend in zip(FINGERS, bends, strict=True) if bend < 30}
    assert raised == set(STRAIGHT[name])


@pytest.mark.parametrize("name", FISTS)
def test_fists_bend_every_finger(name: str) -> None:
    assert all(f.mcp + f.pip + f.dip > 200 for f in POSES[name].fingers)


def test_index_and_middle_cross_in_r_part_in_v_and_meet_in_u() -> None:
    def gap(pose: Pose) -> float:
        return pose.fingers[0].spread - pose.fingers[1].spread

    assert gap(POSES["R"]) < -15 < gap(POSES["U"]) < 5 < 15 < gap(POSES["V"])


@pytest.mark.parametrize("name", HANDS)
def test_thumb_bones_keep_their_lengths(name: str) -> None:
    thumb = POSES[name].thumb
    bones = np.diff(np.array([thumb.mcp, thumb.ip, thumb.tip]), axis=0)
    assert np.linalg.norm(bones, axis=1) == pytest.approx([0.32, 0.28], abs=0.06)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), SEEDS, st.integers(SMALLEST, LARGEST))
def test_any_class_and_size_gives_an_rgb_picture(name: str, seed: int, size: int) -> None:
    drawn = picture(name, seed, size)
    assert drawn.shape == (size, size, 3)
    assert drawn.dtype == np.uint8
    assert drawn.std() > 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), SEEDS)
def test_equal_generators_give_equal_pictures(name: str, seed: int) -> None:
    assert np.array_equal(picture(name, seed), picture(name, seed))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), SEEDS)
def test_other_generators_give_other_pictures(name: str, seed: int) -> None:
    assert not np.array_equal(picture(name, seed), picture(name, seed + 1))


def test_pictures_do_not_depend_on_the_order_of_drawing() -> None:
    forwards = [picture(name, 5).tobytes() for name in NAMES]
    backwards = [picture(name, 5).tobytes() for name in reversed(NAMES)]
    assert forwards == backwards[::-1]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(HANDS), SEEDS)
def test_the_hand_is_large_and_the_scene_stays_around_it(name: str, seed: int) -> None:
    mask = hand_mask(name, seed)
    assert 0.06 < mask.mean() < 0.8
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) > 0.55 * SIZE


@pytest.mark.parametrize("name", HANDS)
def test_the_hand_stands_out_from_its_scene(name: str) -> None:
    contrasts = []
    for seed in range(8):
        mask = hand_mask(name, seed)
        change = picture(name, seed).astype(int) - picture("nothing", seed).astype(int)
        contrasts.append(np.abs(change[mask]).mean())
    assert np.median(contrasts) > 20


def test_letters_differ_under_one_generator() -> None:
    drawn = {picture(name, 3).tobytes() for name in NAMES}
    assert len(drawn) == len(NAMES)


def test_skin_covers_light_and_dark_tones() -> None:
    tones = [picture("A", seed)[hand_mask("A", seed)].mean() for seed in range(60)]
    assert min(tones) < 70
    assert max(tones) > 150


@pytest.mark.parametrize("name", ["a", "AA", "", "delete"])
def test_unknown_names_are_refused_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError, match="unknown class") as raised:
        picture(name, 0)
    assert repr(name) in str(raised.value)
    assert all(valid in str(raised.value) for valid in NAMES)


@pytest.mark.parametrize("size", [0, SMALLEST - 1, LARGEST + 1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size} is outside"):
        picture("A", 0, size)

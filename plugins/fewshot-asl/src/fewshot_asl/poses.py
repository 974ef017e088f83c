"""Hand poses of the American Sign Language alphabet, as joint angles.

Every pose is a right hand in its own frame: the wrist at the origin, ``y`` towards the fingers,
``x`` towards the thumb and ``z`` out of the palm; the palm is about one unit long. The view
angles then turn that hand for a viewer who looks along ``-z``, so a pose without any turn shows
its palm, fingers up and thumb to the right: what a viewer of a right-handed signer sees.
"""

from __future__ import annotations

import string
from typing import TypeAlias

import attrs

Point: TypeAlias = tuple[float, float, float]


@attrs.frozen
class Finger:
    """Bends of one finger in degrees: 0 is straight, about 90 a right angle into the palm.

    ``spread`` leans the whole finger sideways, positive towards the thumb.
    """

    mcp: float
    pip: float
    dip: float
    spread: float = 0.0


@attrs.frozen
class Thumb:
    """Places of the thumb's two upper joints and its tip, and where its nail faces."""

    mcp: Point
    ip: Point
    tip: Point
    nail: Point = (0.0, 0.0, 1.0)


@attrs.frozen
class Pose:
    """One hand: index to little finger, the thumb, and how the hand is turned to the viewer.

    The turns are in degrees and apply in the order ``yaw`` (about ``y``, positive turns the palm
    to the viewer's right), ``roll`` (in the picture, positive is counter-clockwise).
    """

    fingers: tuple[Finger, Finger, Finger, Finger]
    thumb: Thumb
    yaw: float = 0.0
    roll: float = 0.0


_FIST = Finger(85, 105, 75)
_UP = Finger(4, 4, 3)
_DRAPED = Finger(95, 68, 12)  # folded over the thumb, as in M and N
_RING = (Finger(56, 68, 40), Finger(56, 66, 40, 5), Finger(56, 60, 36, 10))  # bent to the thumb

_BESIDE = Thumb((0.47, 0.52, 0.14), (0.60, 0.80, 0.24), (0.58, 1.08, 0.30), nail=(1, 0, 0.5))
_ACROSS_FIST = Thumb((0.45, 0.48, 0.30), (0.32, 0.66, 0.55), (0.04, 0.72, 0.58))
_ACROSS_TWO = Thumb((0.42, 0.46, 0.30), (0.22, 0.64, 0.52), (-0.05, 0.74, 0.56))
_ACROSS_PALM = Thumb((0.40, 0.46, 0.22), (0.13, 0.58, 0.30), (-0.12, 0.64, 0.30))
_OUT = Thumb((0.50, 0.48, 0.08), (0.80, 0.60, 0.10), (1.06, 0.66, 0.12), nail=(0, 0, -1))
_TO_RING = Thumb((0.36, 0.38, 0.36), (0.27, 0.51, 0.65), (0.13, 0.80, 0.72), nail=(0, -0.5, 1))

POSES: dict[str, Pose] = {
    "A": Pose((_FIST, _FIST, _FIST, _FIST), _BESIDE),
    "B": Pose((_UP, _UP, _UP, _UP), _ACROSS_PALM),
    "C": Pose(
        (Finger(38, 44, 36), Finger(38, 44, 36), Finger(38, 44, 36), Finger(38, 44, 36)),
        Thumb((0.34, 0.26, 0.42), (0.28, 0.28, 0.75), (0.20, 0.51, 0.88), nail=(0, -0.5, 1)),
        yaw=65,
    ),
    "D": Pose((_UP, *_RING), _TO_RING, yaw=50),
    "E": Pose(
        (Finger(38, 100, 62), Finger(38, 100, 62), Finger(38, 100, 62), Finger(38, 100, 62)),
        Thumb((0.46, 0.46, 0.26), (0.20, 0.60, 0.42), (-0.11, 0.64, 0.42)),
    ),
    "F": Pose(
        (Finger(48, 66, 46, 14), Finger(6, 4, 3, 0), Finger(3, 3, 3, -12), Finger(0, 3, 3, -24)),
        Thumb((0.48, 0.40, 0.28), (0.60, 0.54, 0.54), (0.54, 0.76, 0.66)),
        yaw=40,
    ),
    "G": Pose(
        (_UP, _FIST, _FIST, _FIST),
        Thumb((0.52, 0.52, 0.06), (0.62, 0.84, 0.06), (0.60, 1.12, 0.06), nail=(1, 0, -0.5)),
        yaw=180,
        roll=-90,
    ),
    "H": Pose((_UP, _UP, _FIST, _FIST), _ACROSS_TWO, yaw=180, roll=-90),
    "I": Pose((_FIST, _FIST, _FIST, _UP), _ACROSS_FIST),
    "J": Pose((_FIST, _FIST, _FIST, _UP), _ACROSS_FIST, yaw=-50, roll=60),
    "K": Pose(
        (Finger(0, 3, 3, 6), Finger(25, 3, 3, -14), _FIST, _FIST),
        Thumb((0.44, 0.50, 0.26), (0.30, 0.80, 0.36), (0.19, 1.08, 0.34)),
    ),
    "L": Pose((_UP, _FIST, _FIST, _FIST), _OUT),
    "M": Pose(
        (_DRAPED, _DRAPED, _DRAPED, _FIST),
        Thumb((0.38, 0.42, 0.20), (0.06, 0.46, 0.26), (-0.24, 0.48, 0.40)),
    ),
    "N": Pose(
        (_DRAPED, _DRAPED, _FIST, _FIST),
        Thumb((0.44, 0.43, 0.20), (0.19, 0.51, 0.28), (-0.05, 0.54, 0.42)),
    ),
    "O": Pose((Finger(56, 66, 40, -5), *_RING), _TO_RING, yaw=65),
    "P": Pose(
        (Finger(0, 3, 3, 4), Finger(76, 5, 3, 0), _FIST, _FIST),
        Thumb((0.44, 0.46, 0.26), (0.36, 0.74, 0.40), (0.22, 1.0, 0.44)),
        yaw=-90,
        roll=110,
    ),
    "Q": Pose(
        (_UP, _FIST, _FIST, _FIST),
        Thumb((0.52, 0.52, 0.06), (0.62, 0.84, 0.06), (0.60, 1.12, 0.06), nail=(1, 0, -0.5)),
        yaw=180,
        roll=180,
    ),
    "R": Pose((Finger(6, 3, 3, -9), Finger(-3, 3, 3, 18), _FIST, _FIST), _ACROSS_TWO),
    "S": Pose((_FIST, _FIST, _FIST, _FIST), _ACROSS_FIST),
    "T": Pose(
        (Finger(85, 105, 75, 16), Finger(85, 105, 75, -4), Finger(85, 105, 75, -4), _FIST),
        Thumb((0.44, 0.56, 0.26), (0.35, 0.86, 0.40), (0.25, 1.13, 0.57)),
    ),
    "U": Pose((Finger(4, 4, 3, -2), Finger(4, 4, 3, 3), _FIST, _FIST), _ACROSS_TWO),
    "V": Pose((Finger(2, 3, 3, 14), Finger(2, 3, 3, -14), _FIST, _FIST), _ACROSS_TWO),
    "W": Pose(
        (Finger(2, 3, 3, 14), Finger(2, 3, 3, 0), Finger(2, 3, 3, -14), _FIST),
        Thumb((0.40, 0.46, 0.30), (0.14, 0.58, 0.46), (-0.16, 0.68, 0.52)),
    ),
    "X": Pose((Finger(0, 80, 58), _FIST, _FIST, _FIST), _ACROSS_FIST, yaw=-60),
    "Y": Pose((_FIST, _FIST, _FIST, Finger(0, 3, 3, -25)), _OUT),
    "Z": Pose((_UP, _FIST, _FIST, _FIST), _ACROSS_TWO, roll=-35),
    "del": Pose(
        (
            Finger(15, 65, 45, 14),
            Finger(15, 65, 45, 3),
            Finger(15, 65, 45, -8),
            Finger(15, 65, 45, -18),
        ),
        _OUT,
        roll=-90,
    ),
    "space": Pose((_UP, _UP, _UP, _UP), _OUT, yaw=180, roll=-90),
}
"""The pose of every class that shows a hand."""

NAMES: tuple[str, ...] = (*string.ascii_uppercase, "del", "nothing", "space")
"""All 29 classes in sorted order; ``nothing`` is the one without a pose."""

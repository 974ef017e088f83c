"""Draws pictures of hands that sign a letter, from poses and a random generator alone.

A hand is a set of round cones (the hull of two balls) placed by forward kinematics. Seen along
``-z`` the front of such a cone has a closed form, so a picture is one vectorised pass over the
pixels near each cone, a depth buffer, and shading at twice the wanted resolution.
"""

from __future__ import annotations

import functools
import math
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fewshot_asl.poses import NAMES, POSES, Pose

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]
Picture: TypeAlias = NDArray[np.uint8]

SMALLEST, LARGEST = 32, 320

_SKIN, _NAIL, _SLEEVE = range(3)

_KNUCKLES = np.array(
    [[0.31, 0.95, 0.0], [0.105, 1.0, 0.02], [-0.10, 0.96, 0.0], [-0.30, 0.86, -0.03]]
)
_BONES = np.array([[0.42, 0.26, 0.19], [0.46, 0.30, 0.20], [0.42, 0.28, 0.20], [0.33, 0.20, 0.18]])
_FINGER_RADII = np.array([[0.12, 0.11, 0.10, 0.085]] * 3 + [[0.105, 0.095, 0.085, 0.075]])
_HEELS = np.array([[0.16, 0.12, 0.0], [0.06, 0.10, 0.0], [-0.06, 0.10, 0.0], [-0.16, 0.12, 0.0]])
_HEEL_RADII, _KNUCKLE_RADII = np.full(4, 0.19), np.full(4, 0.135)
_THUMB_ROOT = np.array([0.17, 0.22, 0.06])
_THUMB_RADII = np.array([0.17, 0.135, 0.12, 0.09])
_NAIL_RADII = np.array([0.055, 0.055, 0.055, 0.045, 0.06])
_WRIST, _WRIST_RADIUS = np.array([[0.0, 0.0, 0.0]]), np.array([0.22])
_ELBOW, _ELBOW_RADIUS = np.array([[0.0, -3.0, 0.0]]), np.array([0.34])
_HAND_CONES = _BONES.size + len(_HEELS) + len(_THUMB_RADII) - 1

# Standard deviations in degrees: small enough that no letter turns into another.
_BEND_JITTER, _SPREAD_JITTER, _VIEW_JITTER = 3.0, 1.2, 6.0

_SKIN_TONES = np.array(
    [
        [255, 222, 200],
        [240, 195, 160],
        [222, 168, 122],
        [193, 132, 88],
        [146, 92, 58],
        [100, 64, 44],
        [68, 46, 36],
    ]
)


@attrs.frozen
class Cones:
    """Round cones: each is the hull of a ball at ``start`` and one at ``end``.

    ``start`` and ``end`` are (n, 3); the radii and the ``material`` codes are (n,).
    """

    start: Floats
    end: Floats
    start_radius: Floats
    end_radius: Floats
    material: Ints


@attrs.frozen
class Surface:
    """What a viewer sees at each of m covered pixels of a square grid.

    ``pixel`` (m,) is the flat index, ``normal`` (m, 3) points to the viewer, ``material`` (m,)
    holds codes, and ``hidden`` (m,) in 0..1 says how far the pixel lies behind its neighbours.
    """

    pixel: Ints
    normal: Floats
    material: Ints
    hidden: Floats


def draw(name: str, rng: Generator, size: int) -> Picture:
    """Picture of the class ``name``: (size, size, 3) RGB in 0..255, ``size`` in 32..320.

    All variation comes from ``rng``. The surroundings are drawn first, so "nothing" with an equal
    generator gives the same picture without the hand.
    """
    if name not in NAMES:
        raise ValueError(f"unknown class {name!r}; the classes are: {', '.join(NAMES)}")
    if not SMALLEST <= size <= LARGEST:
        raise ValueError(f"size {size} is outside {SMALLEST}..{LARGEST}")
    picture = _background(rng, size)
    noise = rng.standard_normal((size, size, 3), np.float32) * np.float32(rng.uniform(1, 7))
    if name in POSES:
        picture = _add_hand(picture, POSES[name], rng)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _add_hand(picture: Floats, pose: Pose, rng: Generator) -> Floats:
    size = len(picture)
    grid = 2 * size
    surface = _surface(_framed(_hand(pose, rng), grid, rng), grid)

    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.0)
    light = np.array(
        [
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ],
        np.float32,
    )
    ambient = rng.uniform(0.45, 0.7)
    lit = np.clip(surface.normal @ light, -0.3, 1) + 0.3
    # Facing surfaces are lighter whatever the light, which keeps every finger readable.
    facing = 0.55 + 0.45 * np.sqrt(surface.normal[:, 2])
    shade = (ambient + (1.05 - ambient) * lit) * facing * (1 - 0.72 * surface.hidden)

    colours = _colours(rng) * (rng.uniform(0.75, 1.05) * rng.uniform(0.93, 1.07, 3))
    painted = np.zeros((grid * grid, 4), np.float32)
    painted[surface.pixel, :3] = colours.astype(np.float32)[surface.material] * shade[:, None]
    painted[surface.pixel, 3] = 1
    painted = painted.reshape(size, 2, size, 2, 4)
    painted = painted[:, 0] + painted[:, 1]
    small = (painted[:, :, 0] + painted[:, :, 1]) / 4
    return np.asarray(picture * (1 - small[..., 3:]) + small[..., :3])


def _colours(rng: Generator) -> Floats:
    """Colours of skin, nails and sleeve: (3, 3)."""
    place = rng.uniform(0, len(_SKIN_TONES) - 1)
    steps = np.arange(len(_SKIN_TONES))
    skin = np.array([np.interp(place, steps, channel) for channel in _SKIN_TONES.T])
    skin = skin * rng.uniform(0.94, 1.06, 3)
    nail = skin + 0.35 * (np.array([255, 215, 205]) - skin)
    return np.stack([skin, nail, rng.uniform(15, 235, 3)])


def _hand(pose: Pose, rng: Generator) -> Cones:
    """The cones of a slightly varied pose, turned to the viewer, in palm lengths.

    The first ``_HAND_CONES`` are fingers, palm and thumb; nails, forearm and sleeve follow.
    """
    joints, backs = _fingers(pose, rng)
    thumb = np.array([_THUMB_ROOT, pose.thumb.mcp, pose.thumb.ip, pose.thumb.tip])
    thumb[1:] += rng.normal(0, 0.012, (3, 3))
    nail_start, nail_end = _nails(joints, backs, thumb, np.array(pose.thumb.nail))
    cuff = np.array([[0, -rng.uniform(0.25, 0.8), 0]])

    # Each part: starts, ends, radii at the starts, radii at the ends.
    parts: list[tuple[Floats, Floats, Floats, Floats]] = [
        (joints[:, :-1], joints[:, 1:], _FINGER_RADII[:, :-1], _FINGER_RADII[:, 1:]),
        (_HEELS, _KNUCKLES, _HEEL_RADII, _KNUCKLE_RADII),
        (thumb[:-1], thumb[1:], _THUMB_RADII[:-1], _THUMB_RADII[1:]),
        (nail_start, nail_end, _NAIL_RADII, _NAIL_RADII * 0.8),
        (_WRIST, _ELBOW, _WRIST_RADIUS, _ELBOW_RADIUS),
    ]
    materials = [_SKIN, _SKIN, _SKIN, _NAIL, _SKIN]
    if rng.random() < 0.5:
        parts.append((cuff, _ELBOW, _WRIST_RADIUS + 0.1, _ELBOW_RADIUS + 0.1))
        materials.append(_SLEEVE)
    start, end = (np.concatenate([part[i].reshape(-1, 3) for part in parts]) for i in (0, 1))
    radii = [np.concatenate([part[i].ravel() for part in parts]) for i in (2, 3)]
    material = np.repeat(materials, [part[2].size for part in parts])

    thickness = rng.uniform(0.9, 1.1)
    tilt = rng.normal(0, _VIEW_JITTER, 3)
    turn = _turn(pose.yaw + tilt[0], tilt[1], pose.roll + tilt[2]).T
    return Cones(start @ turn, end @ turn, radii[0] * thickness, radii[1] * thickness, material)


def _fingers(pose: Pose, rng: Generator) -> tuple[Floats, Floats]:
    """Joints (4, 4, 3) of the fingers, knuckle to tip, and where the nails face (4, 3)."""
    bends = np.array([[f.mcp, f.pip, f.dip] for f in pose.fingers])
    bends = np.radians(bends + rng.normal(0, _BEND_JITTER, (4, 3))).cumsum(1)
    lean = np.array([f.spread for f in pose.fingers]) + rng.normal(0, _SPREAD_JITTER, 4)
    lean = np.radians(lean)[:, None]
    direction = np.stack(
        [
            np.broadcast_to(np.sin(lean), bends.shape),
            np.cos(lean) * np.cos(bends),
            np.cos(lean) * np.sin(bends),
        ],
        axis=2,
    )
    bones = direction * _BONES[..., None] * rng.uniform(0.95, 1.05)
    joints = np.concatenate([_KNUCKLES[:, None], bones], axis=1).cumsum(1)
    last = bends[:, 2]
    return joints, np.stack([np.zeros(4), np.sin(last), -np.cos(last)], axis=1)


def _nails(
    joints: Floats, backs: Floats, thumb: Floats, thumb_back: Floats
) -> tuple[Floats, Floats]:
    """Both ends of the five nails, (5, 3) each: low ridges on the backs of the last bones."""
    root = np.concatenate([joints[:, 2], thumb[2:3]])
    bone = np.concatenate([joints[:, 3], thumb[3:4]]) - root
    across = thumb_back - bone[4] * (thumb_back @ bone[4]) / (bone[4] @ bone[4])
    out = 0.055 * np.concatenate([backs, across[None] / np.linalg.norm(across)])
    return root + 0.65 * bone + out, root + 1.05 * bone + 0.8 * out


def _turn(yaw: float, pitch: float, roll: float) -> Floats:
    """Rotation matrix (3, 3) for angles in degrees: about y, then x, then z."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


def _framed(cones: Cones, grid: int, rng: Generator) -> Cones:
    """The cones in pixels of a ``grid``, y downwards, the hand at a random place and scale."""
    ends = np.concatenate([cones.start[:_HAND_CONES, :2], cones.end[:_HAND_CONES, :2]])
    radii = np.concatenate([cones.start_radius[:_HAND_CONES], cones.end_radius[:_HAND_CONES]])
    low = (ends - radii[:, None]).min(0)
    high = (ends + radii[:, None]).max(0)
    extent = float((high - low).max())
    # Small shapes such as fists are brought nearer, but stay smaller than open hands.
    share = rng.uniform(0.68, 0.84) * (extent / 1.9) ** 0.3
    scale = min(share, 0.88) * grid / extent
    slack = (grid - scale * (high - low)) / 2
    centre = grid / 2 + rng.uniform(-0.5, 0.5, 2) * slack
    offset = centre - scale * (low + high) / 2
    flip = np.array([1.0, -1.0, 1.0])

    def place(points: Floats) -> Floats:
        moved = points * scale
        moved[:, :2] += offset
        return np.asarray(moved * flip + np.array([0.0, grid, 0.0]), np.float32)

    return attrs.evolve(
        cones,
        start=place(cones.start),
        end=place(cones.end),
        start_radius=(cones.start_radius * scale).astype(np.float32),
        end_radius=(cones.end_radius * scale).astype(np.float32),
    )


def _surface(cones: Cones, grid: int) -> Surface:
    """What is in front at every pixel of a ``grid`` by ``grid`` view of cones in pixel units."""
    cone, column, row = _candidates(cones, grid)
    x = column.astype(np.float32) + np.float32(0.5) - cones.start[cone, 0]
    y = row.astype(np.float32) + np.float32(0.5) - cones.start[cone, 1]

    # The front at a pixel is the largest of z(t) + sqrt(q(t)) over the balls t in 0..1, where
    # q = a t^2 + b t + c is what the ball's radius leaves there; its peak solves a quadratic.
    across, down, slope = (cones.end - cones.start).T
    growth = cones.end_radius - cones.start_radius
    flat = np.minimum(growth**2 - across**2 - down**2, np.float32(-1e-3))
    lean = slope / np.sqrt(slope**2 - flat)
    a = flat[cone]
    b = 2 * ((cones.start_radius * growth)[cone] + x * across[cone] + y * down[cone])
    c = (cones.start_radius**2)[cone] - x * x - y * y
    peak = lean[cone] * np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    t = np.clip((peak + b) / (-2 * a), 0, 1)
    q = (a * t + b) * t + c

    hit = np.flatnonzero(q > 0)
    z = cones.start[cone[hit], 2] + t[hit] * slope[cone[hit]] + np.sqrt(q[hit])
    nearest, front = _nearest(row[hit] * grid + column[hit], z, grid * grid)
    seen = hit[nearest]
    cone, t = cone[seen], t[seen]
    normal = np.stack(
        [x[seen] - t * across[cone], t * down[cone] - y[seen], np.sqrt(q[seen])], axis=1
    )
    normal /= (cones.start_radius[cone] + t * growth[cone])[:, None]
    pixel = row[seen] * grid + column[seen]
    hidden = _hidden(front, cones.start_radius[0], pixel)
    return Surface(pixel, normal, cones.material[cone], hidden)


def _candidates(cones: Cones, grid: int) -> tuple[Ints, Ints, Ints]:
    """Cone, column and row of every pixel in the bounding box of every cone: flat and aligned."""
    start, end = cones.start[:, :2], cones.end[:, :2]
    start_radius, end_radius = cones.start_radius[:, None], cones.end_radius[:, None]
    low = np.minimum(start - start_radius, end - end_radius)
    high = np.maximum(start + start_radius, end + end_radius)
    first = np.clip(np.floor(low), 0, grid).astype(np.int32)
    span = np.clip(np.ceil(high), 0, grid).astype(np.int32) - first
    count = span[:, 0] * span[:, 1]
    cone = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(cone), dtype=np.int32)
    within -= np.repeat((count.cumsum() - count).astype(np.int32), count)
    down, across = np.divmod(within, span[cone, 0])
    return cone, first[cone, 0] + across, first[cone, 1] + down


def _nearest(pixel: Ints, z: Floats, pixels: int) -> tuple[Ints, Floats]:
    """Index of the entry with the largest z for each covered pixel, and the z of every pixel.

    Pixels without an entry get minus infinity. Of equal entries the last counts.
    """
    front = np.full(pixels, -np.inf, np.float32)
    np.maximum.at(front, pixel, z)
    ahead = np.flatnonzero(z == front[pixel])
    entry = np.full(pixels, -1)
    np.maximum.at(entry, pixel[ahead], ahead)
    return entry[entry >= 0], front


def _hidden(front: Floats, unit: float, pixel: Ints) -> Floats:
    """How far each pixel lies behind the pixels around it: 0..1, in finger radii ``unit``."""
    grid = math.isqrt(len(front))
    nearest = front.reshape(grid, grid).copy()
    for _ in range(max(1, round(grid / 64))):
        for axis in (nearest, nearest.T):
            before = axis.copy()
            np.maximum(axis[1:], before[:-1], out=axis[1:])
            np.maximum(axis[:-1], before[1:], out=axis[:-1])
    behind = nearest.ravel()[pixel] - front[pixel]
    return np.asarray(np.clip(behind / unit - 0.3, 0, 1), np.float32)


def _background(rng: Generator, size: int) -> Floats:
    """A cluttered scene: (size, size, 3), roughly 0..255."""
    across, down = _axes(size)
    first = _scene_colour(rng)
    second = first + np.float32(0.5) * (_scene_colour(rng) - first)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.clip(0.5 + math.cos(angle) * across + math.sin(angle) * down, 0, 1)[..., None]
    scene = first + ramp * (second - first)
    for _ in range(rng.integers(1, 5)):
        mask = _shape(rng, across, down) * np.float32(rng.uniform(0.3, 0.8))
        scene += mask[..., None] * (_scene_colour(rng) - scene)
    cells = int(rng.integers(3, 9))
    blend = _blend(size, cells)
    blobs = rng.normal(0, rng.uniform(2, 14), (cells, cells, 3)).astype(np.float32)
    scene += blend @ (blend @ blobs.reshape(cells, -1)).reshape(size, cells, 3)
    return np.asarray(scene * np.float32(rng.uniform(0.75, 1.15)), np.float32)


def _scene_colour(rng: Generator) -> Floats:
    """A colour of the surroundings: any, rather grey, or near skin."""
    kind = rng.random()
    if kind < 0.2:
        colour = rng.uniform(20, 235, 3)
    elif kind < 0.8:
        colour = rng.uniform(60, 210) + rng.normal(0, 12, 3)
    else:
        colour = rng.choice(_SKIN_TONES) + rng.normal(0, 20, 3)
    return np.asarray(colour, np.float32)


def _shape(rng: Generator, across: Floats, down: Floats) -> Floats:
    """Coverage (size, size) in 0..1 of a random half plane, bar, stripe pattern, box or disc."""
    kind = rng.choice(5, p=(0.3, 0.2, 0.1, 0.2, 0.2))
    size = across.shape[1]
    angle, x, y = rng.uniform(0, math.pi), rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
    along = (across - x) * math.cos(angle) + (down - y) * math.sin(angle)
    if kind == 0:
        inside = along
    elif kind == 1:
        inside = rng.uniform(0.02, 0.12) - np.abs(along)
    elif kind == 2:
        period = rng.uniform(0.12, 0.4)
        inside = np.sin(along * (2 * math.pi / period)) * (period / 6)
    elif kind == 3:
        inside = np.minimum(
            rng.uniform(0.08, 0.35) - np.abs(across - x), rng.uniform(0.08, 0.35) - np.abs(down - y)
        )
    else:
        inside = rng.uniform(0.06, 0.3) - np.hypot(across - x, down - y)
    return np.asarray(np.clip(inside * size + 0.5, 0, 1), np.float32)


@functools.cache
def _axes(size: int) -> tuple[Floats, Floats]:
    """Places of the pixels, -0.5..0.5: a row (1, size) and a column (size, 1)."""
    places = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return places[None, :], places[:, None]


@functools.cache
def _blend(size: int, cells: int) -> Floats:
    """Weights (size, cells) that spread values at ``cells`` even places linearly over pixels."""
    places = np.linspace(0, cells - 1, size)[:, None] - np.arange(cells)
    return np.asarray(np.maximum(1 - np.abs(places), 0), np.float32)

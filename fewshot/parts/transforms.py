"""Image transforms on whole batches: (b, h, w, c) float32 in [0, 1] and a generator. NumPy only.

Every image draws its own numbers, all of them from the generator, so a batch depends on its key
alone. Random transforms belong in the list `augment`, fixed ones in `preprocess`.
"""

import numpy as np
from attrs import frozen, validators
from numpy.typing import NDArray

from ..core.components import Component
from ..core.errors import ConfigError
from ..core.interfaces import Transform
from ..core.options import above, at_least, at_most, below, option, positive, share, within

Images = NDArray[np.float32]
Floats = NDArray[np.float64]

_fraction = within(above(0.0), validators.le(1.0))
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@frozen
class CropOptions:
    """Options of the random resized crop."""

    min_scale: float = option(0.6, "smallest share of the area", _fraction)
    max_scale: float = option(1.0, "largest share of the area", _fraction)
    stretch: float = option(1.2, "largest ratio of the sides, against the image's own", at_least(1))


def random_resized_crop(options: CropOptions = CropOptions()) -> Transform:
    """A random part of the image, scaled back to its size (bilinear)."""
    if options.min_scale > options.max_scale:
        raise ConfigError(f"crop: min_scale {options.min_scale} > max_scale {options.max_scale}")

    def apply(images: Images, rng: np.random.Generator) -> Images:
        b, h, w, _ = images.shape
        scale = rng.uniform(options.min_scale, options.max_scale, b)
        ratio = np.exp(rng.uniform(-1, 1, b) * np.log(options.stretch))
        ratio = np.clip(ratio, scale, 1 / scale)  # no side longer than the image's
        height, width = np.sqrt(scale / ratio), np.sqrt(scale * ratio)
        top, left = rng.random(b) * (1 - height), rng.random(b) * (1 - width)
        return _along_axes(images, _window(top, height, h), _window(left, width, w))

    return apply


def _window(start: Floats, length: Floats, n: int) -> Images:
    """(b, n, n): n bilinear samples of [start, start + length), where n pixels span [0, 1]."""
    centres = (start[:, None] + (np.arange(n) + 0.5) / n * length[:, None]) * n - 0.5
    centres = np.clip(centres, 0, n - 1)
    return np.maximum(0, 1 - np.abs(centres[:, :, None] - np.arange(n))).astype(np.float32)


def _along_axes(images: Images, down: Images, across: Images) -> Images:
    """Every image's columns and rows multiplied by matrices of its own, (b, h, h) and (b, w, w).

    As matrix products: many times faster than gathering and weighing pixels.
    """
    b, h, w, c = images.shape
    out = across[:, None] @ (down @ images.reshape(b, h, w * c)).reshape(b, h, w, c)
    return np.clip(out, 0, 1, out=out)


def _between(a: Images, b: Images, part: Images) -> Images:
    return a + (b - a) * part


@frozen
class WarpOptions:
    """Options of the random homography; each number is drawn evenly from its range."""

    rotation: float = option(20.0, "largest angle, in degrees", within(at_least(0), at_most(180)))
    min_scale: float = option(0.7, "smallest size at which things are shown", positive)
    max_scale: float = option(1.2, "largest size at which things are shown", positive)
    shear: float = option(0.15, "largest slant: sideways per step down", share)
    shift: float = option(0.1, "largest shift along each axis, a share of the longer side", share)
    perspective: float = option(
        0.15,
        "how much farther than the middle the end of the longer side is, at the most",
        within(at_least(0), below(0.5)),
    )
    stretch: float = option(
        1.0, "largest ratio of width to height, and of height to width", at_least(1)
    )
    bend: float = option(
        0.0, "largest shift of a part by itself, a share of the longer side", share
    )
    cells: int = option(3, "parts along each side that bend by themselves", positive)


def random_warp(options: WarpOptions = WarpOptions()) -> Transform:
    """Rotation, scale, shear, shift and perspective about the middle, in one bilinear sampling.

    If asked for, a stretch as well, and bends that are smooth and differ from place to place
    (elastic distortion: Simard et al. 2003). Beyond the image its border is repeated.
    """
    if options.min_scale > options.max_scale:
        raise ConfigError(f"warp: min_scale {options.min_scale} > max_scale {options.max_scale}")

    def apply(images: Images, rng: np.random.Generator) -> Images:
        b, h, w, _ = images.shape
        side = max(h, w)
        angle = rng.uniform(-1, 1, b) * np.radians(options.rotation)
        scale = rng.uniform(options.min_scale, options.max_scale, b)
        shear = rng.uniform(-1, 1, b) * options.shear
        shift = rng.uniform(-1, 1, (2, b)) * options.shift * side
        tilt = rng.uniform(-1, 1, (2, b)) * options.perspective / (side / 2)
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        # Where each pixel comes from: homographies of (y, x, 1), in pixels from the middle.
        maps = np.array(
            [
                [cos - shear * sin, -sin, shift[0]],
                [sin + shear * cos, cos, shift[1]],
                [tilt[0], tilt[1], np.ones(b)],
            ]
        ).astype(np.float32)
        if options.stretch > 1:
            ratio = np.exp(rng.uniform(-0.5, 0.5, b) * np.log(options.stretch)).astype(np.float32)
            maps[:, 0] *= ratio
            maps[:, 1] /= ratio
        bends = _bends(options, rng, b, h, w) if options.bend else None
        middle = np.array([(h - 1) / 2, (w - 1) / 2], np.float32)
        pixels = np.indices((h, w), np.float32).reshape(2, -1) - middle[:, None]
        grid = np.concatenate([pixels, np.ones((1, h * w), np.float32)])
        out = np.empty_like(images)
        for i, image in enumerate(images):  # one image stays in the cache: twice as fast
            y, x, z = maps[:, :, i] @ grid
            y, x = y / z + middle[0], x / z + middle[1]
            if bends is not None:
                y, x = y + bends[i, 0], x + bends[i, 1]
            out[i] = _bilinear(image, y, x).reshape(image.shape)
        return np.clip(out, 0, 1, out=out)

    return apply


def _bends(options: WarpOptions, rng: np.random.Generator, b: int, h: int, w: int) -> Images:
    """(b, 2, h · w): smooth shifts in pixels, cubic B-splines of evenly drawn ones."""
    n = options.cells + 3
    knots = rng.uniform(-1, 1, (b, 2, n, n)) * options.bend * max(h, w)
    return (_spline(n, h) @ knots.astype(np.float32) @ _spline(n, w).T).reshape(b, 2, h * w)


def _spline(n: int, length: int) -> Images:
    """(length, n): the uniform cubic B-spline of n values from the second to the last but one."""
    apart = np.abs(np.linspace(1, n - 2, length)[:, None] - np.arange(n))
    near, far = 2 / 3 - apart**2 + apart**3 / 2, np.clip(2 - apart, 0, None) ** 3 / 6
    return np.where(apart < 1, near, far).astype(np.float32)


def _bilinear(image: Images, y: Images, x: Images) -> Images:
    """Values (n, c) of an image (h, w, c) at pixel positions (n,), its border repeated."""
    h, w, c = image.shape
    y, x = np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)
    top, left = (np.minimum(at.astype(np.intp), max(n - 2, 0)) for at, n in ((y, h), (x, w)))
    planes, corner = np.ascontiguousarray(image.reshape(-1, c).T), top * w + left
    below, right = w * (h > 1), int(w > 1)
    upper, lower = (
        _between(planes.take(corner + row, 1), planes.take(corner + row + right, 1), x - left)
        for row in (0, below)
    )
    return _between(upper, lower, y - top).T


@frozen
class FlipOptions:
    """Options of the horizontal flip."""

    probability: float = option(0.5, "chance of mirroring an image", share)


def horizontal_flip(options: FlipOptions = FlipOptions()) -> Transform:
    """Mirror left and right."""

    def apply(images: Images, rng: np.random.Generator) -> Images:
        flipped = rng.random(len(images)) < options.probability
        out = images.copy()
        out[flipped] = images[flipped, :, ::-1]
        return out

    return apply


@frozen
class ColourOptions:
    """Options of the colour jitter: each factor is drawn from [1 − x, 1 + x]."""

    brightness: float = option(0.3, "0 to 1", share)
    contrast: float = option(0.3, "0 to 1", share)
    saturation: float = option(0.3, "0 to 1; ignored for images that are not RGB", share)


def colour_jitter(options: ColourOptions = ColourOptions()) -> Transform:
    """Random brightness, then contrast about the mean grey, then saturation; clipped to [0, 1]."""

    def apply(images: Images, rng: np.random.Generator) -> Images:
        def factors(width: float) -> NDArray[np.float32]:
            return rng.uniform(1 - width, 1 + width, (len(images), 1, 1, 1)).astype(np.float32)

        bright, contrast, saturation = (
            factors(width) for width in (options.brightness, options.contrast, options.saturation)
        )
        out = np.clip(images * bright, 0, 1)
        mean = _grey(out).mean(axis=(1, 2), keepdims=True)
        out = np.clip(_between(mean, out, contrast), 0, 1)
        if images.shape[-1] == 3:
            out = np.clip(_between(_grey(out), out, saturation), 0, 1)
        return out

    return apply


def _grey(images: Images) -> Images:
    if images.shape[-1] == 3:
        return (images @ _LUMA)[..., None]
    return images.mean(axis=-1, keepdims=True)


@frozen
class BlurOptions:
    """Options of the Gaussian blur."""

    sigma: float = option(1.0, "largest standard deviation, in pixels", above(0))
    probability: float = option(0.5, "chance of blurring an image", share)


def gaussian_blur(options: BlurOptions = BlurOptions()) -> Transform:
    """Gaussian blur with σ drawn from (0, sigma]; the border is repeated."""
    radius = int(np.ceil(2.5 * options.sigma))
    taps = np.arange(-radius, radius + 1)

    def apply(images: Images, rng: np.random.Generator) -> Images:
        sigma = rng.uniform(0.05, 1.0, len(images)) * options.sigma
        kernel = np.exp(-0.5 * (taps / sigma[:, None]) ** 2)
        kernel[rng.random(len(images)) >= options.probability] = taps == 0
        kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
        _, h, w, _ = images.shape
        return _along_axes(images, *(_mixed(kernel, radius, n) for n in (h, w)))

    return apply


def _mixed(kernel: Images, radius: int, n: int) -> Images:
    """(b, n, n): a kernel (b, 2 · radius + 1) about every pixel, the edge pixels repeated."""
    taps = np.arange(-radius, radius + 1)[:, None]
    neighbours = np.clip(np.arange(n) + taps, 0, n - 1)
    at = (neighbours[..., None] == np.arange(n)).astype(np.float32)
    return np.tensordot(kernel, at, axes=1)


@frozen
class TintOptions:
    """Options of the tint; each number is drawn evenly from [−x, x], for every image."""

    curve: float = option(0.4, "bend of the tone curve: darker or lighter mid-tones", share)
    gain: float = option(0.12, "change of each channel's brightness by itself", share)
    hue: float = option(0.03, "turn of the hue, a share of the circle; RGB only", share)


def random_tint(options: TintOptions = TintOptions()) -> Transform:
    """Other light, cameras and skins: a turn of hue, a tone curve and a gain for each channel.

    The hue turns about the grey axis. The curve is x + αx(1 − x), which rises from 0 to 1 (Guo et
    al. 2020, equation 1).
    """

    def apply(images: Images, rng: np.random.Generator) -> Images:
        b, _, _, c = images.shape
        turn = np.multiply(rng.uniform(-1, 1, b), options.hue * 2 * np.pi)
        bend = (rng.uniform(-1, 1, (b, 1, 1, 1)) * options.curve).astype(np.float32)
        gain = (1 + rng.uniform(-1, 1, (b, 1, 1, c)) * options.gain).astype(np.float32)
        out = images
        if c == 3:
            turned = images.reshape(b, -1, 3) @ _about_grey(turn)
            out = np.clip(turned, 0, 1).reshape(images.shape)
        return np.clip((out + bend * out * (1 - out)) * gain, 0, 1)

    return apply


def _about_grey(angle: Floats) -> Images:
    """Rotations (b, 3, 3) of RGB rows about (1, 1, 1): Rodrigues' formula."""
    axis = np.full(3, 3**-0.5)
    cross = np.cross(np.eye(3), axis)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return (np.eye(3) * cos + sin * cross + (1 - cos) * np.outer(axis, axis)).astype(np.float32)


@frozen
class EraseOptions:
    """Options of random erasing."""

    min_area: float = option(0.02, "smallest share of the image", share)
    max_area: float = option(0.2, "largest share of the image", share)
    stretch: float = option(3.0, "largest ratio of the sides", at_least(1))
    probability: float = option(0.5, "chance of erasing", share)


def random_erasing(options: EraseOptions = EraseOptions()) -> Transform:
    """A rectangle of one random colour (Zhong et al. 2020); it may reach over the border."""
    if options.min_area > options.max_area:
        raise ConfigError(f"erase: min_area {options.min_area} > max_area {options.max_area}")

    def apply(images: Images, rng: np.random.Generator) -> Images:
        b, h, w, c = images.shape
        area = rng.uniform(options.min_area, options.max_area, b)
        area *= rng.random(b) < options.probability
        ratio = np.exp(rng.uniform(-1, 1, b) * np.log(options.stretch))
        colour = rng.random((b, 1, 1, c), np.float32)
        rows, columns = (
            np.abs(np.arange(n) + 0.5 - rng.random((b, 1)) * n) < (side * n / 2)[:, None]
            for n, side in ((h, np.sqrt(area * ratio)), (w, np.sqrt(area / ratio)))
        )
        inside = rows[:, :, None] & columns[:, None, :]
        return np.where(inside[..., None], colour, images)

    return apply


@frozen
class CloudsOptions:
    """Options of clouds of colour."""

    cells: int = option(4, "random colours along each side, blended into each other", at_least(2))
    strength: float = option(1.0, "largest opacity, reached anywhere", share)
    probability: float = option(0.5, "chance of clouds over an image", share)


def clouds(options: CloudsOptions = CloudsOptions()) -> Transform:
    """Smooth patches of random colours and opacity: other backgrounds, shadows and lights."""

    def apply(images: Images, rng: np.random.Generator) -> Images:
        b, h, w, c = images.shape
        n = options.cells
        strength = rng.uniform(0, options.strength, (b, 1, 1, 1))
        strength *= rng.random((b, 1, 1, 1)) < options.probability
        colours = rng.random((b, n, n, c), np.float32)
        opacity = np.clip(rng.uniform(-1, 1, (b, n, n, 1)), 0, 1) * strength
        down, across = (_stretched(n, length) for length in (h, w))
        veil = np.concatenate([colours, opacity.astype(np.float32)], axis=-1)
        veil = across @ (down @ veil.reshape(b, n, -1)).reshape(b, h, n, c + 1)
        return np.clip(_between(images, veil[..., :-1], veil[..., -1:]), 0, 1)

    return apply


def _stretched(n: int, length: int) -> Images:
    """(length, n): n values drawn out to `length`, linearly, the first and last at the ends."""
    at = np.linspace(0, n - 1, length)[:, None]
    return np.maximum(0, 1 - np.abs(at - np.arange(n))).astype(np.float32)


@frozen
class NormaliseOptions:
    """Options of normalise: one number for all channels or one per channel."""

    mean: tuple[float, ...] = option((0.5,), "subtracted", validators.min_len(1))
    std: tuple[float, ...] = option(
        (0.25,), "divided by", within(validators.min_len(1), validators.deep_iterable(above(0)))
    )


def normalise(options: NormaliseOptions = NormaliseOptions()) -> Transform:
    """(x − mean) / std, per channel; the one transform whose values leave [0, 1]."""
    mean = np.asarray(options.mean, np.float32)
    std = np.asarray(options.std, np.float32)

    def apply(images: Images, rng: np.random.Generator) -> Images:
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, images.shape[-1]):
                raise ConfigError(
                    f"normalise: {len(values)} numbers in {name}, images have "
                    f"{images.shape[-1]} channels"
                )
        return (images - mean) / std

    return apply


COMPONENTS = (
    Component("crop", random_resized_crop, CropOptions, "random resized crop"),
    Component(
        "warp",
        random_warp,
        WarpOptions,
        "random rotation, scale, shear, shift and perspective",
    ),
    Component("flip", horizontal_flip, FlipOptions, "horizontal flip"),
    Component(
        "colour",
        colour_jitter,
        ColourOptions,
        "random brightness, contrast and saturation",
    ),
    Component(
        "tint",
        random_tint,
        TintOptions,
        "random hue, tone curve and gain of each channel",
    ),
    Component("blur", gaussian_blur, BlurOptions, "Gaussian blur"),
    Component("erase", random_erasing, EraseOptions, "random erasing"),
    Component("clouds", clouds, CloudsOptions, "smooth patches of random colour"),
    Component(
        "normalise",
        normalise,
        NormaliseOptions,
        "(x − mean) / std, for `preprocess`",
    ),
)

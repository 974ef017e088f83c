"""Image transforms on whole batches: (b, h, w, c) float32 in [0, 1] and a generator. NumPy only.

Every image draws its own numbers, all of them from the generator, so a batch depends on its key
alone. Random transforms belong in the list `augment`, fixed ones in `preprocess`.
"""

import numpy as np
from attrs import frozen, validators
from numpy.typing import NDArray

from .errors import ConfigError
from .interfaces import Transform
from .records import above, at_least, option, share, within

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
class FlipOptions:
    """Options of the horizontal flip."""

    probability: float = option(0.5, "of mirroring an image", share)


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
    probability: float = option(0.5, "of blurring an image", share)


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

"""Whether MLX computes rightly on this machine, and how fast."""

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..compute.layers import BatchNorm, Sequential
from ..core.seeding import generator
from ..data.datasets import ArrayDataset
from ..parts.backbones import Conv4Options, conv4
from ..parts.embedder import Embedder
from ..parts.losses.pairs import contrastive
from ..parts.metrics import euclidean
from ..parts.samplers import BalancedOptions, all_pairs
from .speed import embedding_speed, median_time
from .training import TrainingOptions, fit

Floats = NDArray[np.float64]

# Of the largest number in the result. Float32 sums of some thousand products stay well below.
_TOLERANCE = 1e-4


@frozen
class Check:
    """One computation against float64 NumPy; `error` is relative to the largest number in it."""

    what: str
    error: float

    @property
    def passed(self) -> bool:
        """Whether it agrees."""
        return self.error < _TOLERANCE


def checks() -> Iterator[Check]:
    """A product, convolutions and batch norm, each with its gradients, against NumPy.

    The batch is large enough to be divided over the CPU's streams.
    """
    rng = generator(0, "doctor")
    a, b = rng.normal(size=(130, 70)), rng.normal(size=(70, 90))
    yield Check("matrix product", _error(_mlx(lambda p, q: p @ q, a, b), a @ b))
    yield from _of_convolution("convolution", rng, inputs=5, outputs=7)
    yield from _of_convolution("convolution of many channels", rng, inputs=16, outputs=17)

    normalise = Sequential(BatchNorm(5))
    x, pull = rng.normal(size=(24, 9, 8, 5)), rng.normal(size=(24, 9, 8, 5))
    axes = (0, 1, 2)
    centred, spread = x - x.mean(axis=axes), np.sqrt(x.var(axis=axes) + 1e-5)
    yield Check("batch norm", _error(_mlx(normalise, x), centred / spread))
    along = (pull * centred).mean(axis=axes) / spread**2
    expected = (pull - pull.mean(axis=axes) - centred * along) / spread
    yield Check("gradient of batch norm", _error(_gradients(normalise, pull, x)[0], expected))


def _of_convolution(
    name: str, rng: np.random.Generator, inputs: int, outputs: int
) -> Iterator[Check]:
    """A 3x3 convolution by its numbers of channels: `Sequential` computes many in another way."""
    x, weight = rng.normal(size=(24, 9, 8, inputs)), rng.normal(size=(outputs, 3, 3, inputs))
    pull = rng.normal(size=(24, 9, 8, outputs))
    layers: Any = Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))

    def convolved(images: mx.array, kernel: mx.array) -> mx.array:
        layers.layers[0].weight = kernel
        return layers(images)

    yield Check(name, _error(_mlx(convolved, x, weight), _convolution(x, weight)))
    of_images, of_weight = _gradients(convolved, pull, x, weight)
    backwards = _convolution(pull, weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))
    yield Check(f"{name}: gradient of the images", _error(of_images, backwards))
    expected = np.einsum("nhwcij,nhwo->oijc", _windows(x), pull)
    yield Check(f"{name}: gradient of the weights", _error(of_weight, expected))


def _mlx(function: Callable[..., mx.array], *arrays: Floats) -> Floats:
    out = function(*(mx.array(array, mx.float32) for array in arrays))
    return np.array(out, dtype=np.float64)


def _gradients(function: Callable[..., mx.array], pull: Floats, *arrays: Floats) -> list[Floats]:
    """Gradients of Σ function(arrays) · pull."""
    inputs = [mx.array(array, mx.float32) for array in arrays]
    _, found = mx.vjp(function, inputs, [mx.array(pull, mx.float32)])
    return [np.array(gradient, dtype=np.float64) for gradient in found]


def _windows(images: Floats) -> Floats:
    """(n, h, w, c) -> (n, h, w, c, 3, 3): the neighbourhood of every pixel, 0 beyond the border."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sliding_window_view(padded, (3, 3), axis=(1, 2))


def _convolution(images: Floats, weight: Floats) -> Floats:
    return np.einsum("nhwcij,oijc->nhwo", _windows(images), weight, optimize=True)


def _error(found: Floats, expected: Floats) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def speeds(
    seconds: float = 30, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """What this machine reaches, by name; takes about that many seconds.

    The network is `conv4` for 64x64 images, training pairs of batches of 64.
    """
    share, figures = seconds / 4, {}
    a = mx.random.normal((2048, 2048))
    rate = 2 * 2048**3 / 1e9 / median_time(lambda: mx.eval(a @ a), share)
    figures["matrix product on one core, GFLOP/s"] = f"{rate:.0f}"
    progress(1, 4)
    images = generator(0, "doctor").integers(0, 256, (640, 64, 64, 3), np.uint8)
    data = ArrayDataset(images, np.arange(640) % 16, [str(i) for i in range(16)])
    embedder = Embedder(conv4(Conv4Options(), (64, 64, 3)))
    sampler = all_pairs(BalancedOptions(classes=16, per_class=4), data.labels)
    first = fit(embedder, data, sampler, contrastive(), euclidean(), None, TrainingOptions(steps=2))
    steps = max(2, int(2 * share * first.images_per_second / 64))
    history = fit(
        embedder, data, sampler, contrastive(), euclidean(), None, TrainingOptions(steps=steps)
    )
    figures["training, images/s"] = f"{history.images_per_second:.0f}"
    progress(3, 4)
    speed = embedding_speed(embedder, (64, 64, 3), seconds=share / 2, engine="mlx")
    figures["embedding, images/s"] = f"{speed.batch_images_per_second:.0f}"
    figures["one image, ms"] = f"{speed.single_latency_ms:.1f}"
    progress(4, 4)
    return figures

"""What embeds images: MLX or, on a CPU, ONNX Runtime, which is faster there."""

from typing import Literal, get_args

import mlx.core as mx
import numpy as np
from attrs import define, evolve
from numpy.typing import NDArray

from ..compute.compiling import on_cpu
from ..compute.streams import all_cores
from ..core.errors import ConfigError, choose_from
from ..core.machine import cores
from ..core.seeding import generator
from ..data.batches import batch_size
from ..data.images import Shape
from ..parts.embedder import Embedder
from .onnx_graph import Run, onnx_model, session

Name = Literal["auto", "mlx", "onnx"]

TOLERANCE = 1e-4  # of the largest number in an embedding
_BATCH = 128

# Pixels that have to be asked about before "auto" makes a session, which takes about as long as it
# saves on a hundred images of 64x64 asked one by one, or on a few photos of 224x224.
_WORTH = 1 << 19


def in_mlx(embedder: Embedder) -> Run:
    """Prepared images (b, h, w, c) -> embeddings (b, d)."""

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with all_cores(len(batch)):
            return np.array(embedder(mx.array(batch)))

    return run


def in_onnx(embedder: Embedder, shape: Shape) -> Run:
    """The same by ONNX Runtime, from the same weights as they are now.

    Raises ImportError without the extra `onnx`, ConfigError for a layer without a counterpart.
    """
    return session(onnx_model(embedder, shape), cores())


def same(embedder: Embedder, image: NDArray[np.uint8], found: NDArray[np.float32]) -> bool:
    """Whether an embedding (d,) of an image (h, w, c) that was kept is what the network gives now,
    but for rounding.
    """
    exact = evolve(embedder, precision="float32")
    due = in_mlx(exact)(embedder.prepared(image[None]))[0]
    rounding = 0.01 if embedder.precision == "float32" else 0.05
    return due.shape == found.shape and bool(
        np.linalg.norm(found - due) <= rounding * max(1.0, float(np.linalg.norm(due)))
    )


@define(eq=False)
class Engine:
    """The engine of an embedder whose weights stay: of a classifier and all that come from it.

    `name`: as asked for. "auto": MLX, but on a CPU, once there were images enough to pay for making
    a session, ONNX Runtime if it is installed, can express every layer and agrees with MLX to 1e-4.
    `used`: the last one, None before the first image. `hint`: why "auto" fell back, in a line.
    """

    name: Name
    used: Literal["mlx", "onnx"] | None = None
    hint: str = ""
    _embedder: Embedder | None = None
    _run: Run | None = None
    _pixels: int = 0

    def embeddings(
        self, embedder: Embedder, shape: Shape, images: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Of images (b, h, w, c) of `shape`, a batch at a time. Raises what `of` does."""
        run, step = self.run(embedder, shape, len(images)), batch_size(shape, _BATCH)
        starts = range(0, len(images), step)
        done = [run(embedder.prepared(images[start : start + step])) for start in starts]
        return done[0] if len(done) == 1 else np.concatenate(done)

    def run(self, embedder: Embedder, shape: Shape, images: int) -> Run:
        """Its function of prepared images of `shape`, of which so many more are to come.

        Raises what `of` does.
        """
        self._pixels += images * shape[0] * shape[1]
        if self.name == "auto" and self._run is None and self._pixels < _WORTH:
            self.used = "mlx"
            return in_mlx(embedder)
        return self.of(embedder, shape)

    def of(self, embedder: Embedder, shape: Shape) -> Run:
        """`run`, made now. Raises ConfigError where "onnx" is not possible."""
        if self._run is None or self._embedder is not embedder:
            self._run, self._embedder = self._made(embedder, shape), embedder
        return self._run

    def _made(self, embedder: Embedder, shape: Shape) -> Run:
        usual = in_mlx(embedder)
        self.used, self.hint = "mlx", ""
        if getattr(embedder.backbone, "outside_mlx", False):  # it is an engine itself
            return usual
        if self.name == "mlx" or (self.name == "auto" and not on_cpu()):
            return usual
        try:
            made = in_onnx(embedder, shape)
            images = generator(0, "engine").integers(0, 256, (2, *shape), np.uint8)
            batch = embedder.prepared(images)
            expected, found = in_mlx(evolve(embedder, precision="float32"))(batch), made(batch)
            error, most = np.abs(found - expected).max(), np.abs(expected).max()
            if not error <= TOLERANCE * most:
                raise ConfigError(f"its embeddings are {error / most:.1e} away from the network's")
        except ImportError as problem:
            if self.name == "onnx":
                raise ConfigError(
                    "engine 'onnx' needs the extra `onnx`: pip install 'fewshot[onnx]'; or take "
                    "engine 'mlx'"
                ) from problem
            return usual
        except Exception as problem:  # whatever a stranger's layer or the runtime raises
            reason = str(problem).partition("\n")[0] or repr(problem)
            if self.name == "onnx":
                raise ConfigError(f"engine 'onnx' cannot answer here: {reason}") from problem
            self.hint = f"answered by MLX, as ONNX Runtime cannot: {reason}"
            return usual
        self.used = "onnx"
        return made


def as_engine(given: "Name | Engine") -> Engine:
    """An engine of that name; one that there is stays. Raises ConfigError for another name."""
    if isinstance(given, Engine):
        return given
    if given not in (names := get_args(Name)):
        raise ConfigError(f"no engine '{given}': {choose_from(given, names)}")
    return Engine(given)

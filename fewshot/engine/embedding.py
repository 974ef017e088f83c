"""From images to embeddings: the one path that training, evaluation and prediction share."""

import time
from collections.abc import Callable, Iterable, Mapping

import mlx.core as mx
import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from ..compute.modules import evaluating
from ..core.draws import EpisodeBlock, Ints
from ..core.errors import TrainingError
from ..core.interfaces import Dataset
from ..data.batches import ahead, batch_size, gather
from ..data.corners import CORNERS, Corners
from ..data.embedded import Kept, image_digest
from ..data.parallel import on_all_cores
from ..parts.embedder import Embedder, within_classes
from .inference import Engine, Name, as_engine, same

_LONG = 2.0  # seconds that people wait without being told
_LOOKING = 0.1  # the share of an embedding that looking up what is kept counts for
_WHITENED = 2000  # images that a whitening is taken from, at the most


def embed(
    embedder: Embedder,
    dataset: Dataset,
    indices: Ints | None = None,
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
    engine: Name | Engine = "auto",
    kept: Kept | None = None,
) -> NDArray[np.float32]:
    """Embeddings (n, d) of a dataset, in eval mode, at most `batch` views at a time.

    With `indices` only those rows are computed and all others are NaN, so that an index means the
    same image everywhere and a row that was not asked for cannot pass unnoticed. `engine`: "mlx",
    "onnx" or, as "auto", ONNX Runtime on a CPU, where there are images enough to pay for making its
    session and it gives what MLX gives. `kept`: what is there of this very network is not computed
    again, and what is not is added. `progress(done, total)` is told of images, with each batch
    and, where that takes long, while what is kept is looked up.

    Raises TrainingError where an embedding is not finite, ConfigError where the engine "onnx" is
    not possible.
    """
    n = len(dataset.labels)
    wanted = np.arange(n) if indices is None else np.unique(indices)
    if not len(wanted):
        return np.full((n, 0), np.nan, np.float32)
    shape = dataset[int(wanted[0])].shape
    batch = max(1, batch_size(shape, batch) // embedder.views)
    asked, began = len(wanted), time.monotonic()

    def told(share: float) -> None:
        if progress is not None:
            progress(round(share * asked), asked)

    def told_late(share: float) -> None:
        if time.monotonic() - began > _LONG:
            told(share)

    digests: dict[int, bytes] = {}
    out: NDArray[np.float32] | None = None
    with evaluating(embedder.backbone):
        if kept is not None:
            digests = _digests(dataset, wanted, lambda share: told_late(_LOOKING * share))
            out = _found(kept, embedder, dataset, digests)
            wanted = wanted if out is None else wanted[np.isnan(out[wanted]).all(axis=1)]
        blocks = [wanted[i : i + batch] for i in range(0, len(wanted), batch)]
        run = as_engine(engine).run(embedder, shape, len(wanted))
        images = ahead(lambda i: embedder.prepared(gather(dataset, blocks[i])), len(blocks))
        before = 0.0 if kept is None else _LOOKING
        for done, (block, pixels) in enumerate(zip(blocks, images, strict=True), start=1):
            rows = run(pixels)
            if not np.isfinite(rows).all():
                raise TrainingError(
                    "embeddings are no longer finite: lower training.learning_rate, or look for "
                    "a transform that divides by zero"
                )
            if out is None:
                out = np.full((n, rows.shape[1]), np.nan, np.float32)
            out[block] = rows
            if kept is not None:
                kept.add([digests[int(i)] for i in block], rows)
            told(before + (1 - before) * done / len(blocks))
        if not blocks:
            told_late(1.0)
    assert out is not None
    return out


def embed_task(
    embedder: Embedder,
    dataset: Dataset,
    items: Ints,
    tasks: Iterable[EpisodeBlock],
    progress: Callable[[int, int], None] | None = None,
    engine: Name | Engine = "auto",
    kept: Kept | None = None,
) -> tuple[NDArray[np.float32], Ints | None]:
    """Embeddings of images `items` as of `embed`, and what those that are support in `tasks` bring.

    Where the embedder's crops are of support: embeddings (n + 4 m, d), those of the corners of
    these m images below all others, and the rows of each image's (n, 4), -1 for an image that is
    no support. Else (n, d) and None.
    """
    if not embedder.support_crops:
        return embed(embedder, dataset, items, 64, progress, engine, kept), None
    images = np.unique(np.concatenate([task.support.ravel() for task in tasks]))
    n = len(dataset.labels)

    def embedded(
        data: Dataset, wanted: Ints | None, before: int, count: int
    ) -> NDArray[np.float32]:
        def told(done: int, of: int) -> None:
            if progress is not None:
                progress(before + count * done // of, len(items) + CORNERS * len(images))

        return embed(embedder, data, wanted, 64, told, engine, kept)

    rows = embedded(dataset, items, 0, len(items))
    more = embedded(Corners(dataset, images), None, len(items), CORNERS * len(images))
    crops = np.full((n, CORNERS), -1)
    crops[images] = n + np.arange(len(more)).reshape(-1, CORNERS)
    return np.concatenate([rows, more]), crops


def _digests(dataset: Dataset, wanted: Ints, told: Callable[[float], None]) -> dict[int, bytes]:
    """What each image is known by, made on all cores; `told` which share of them is."""
    digests: dict[int, bytes] = {}

    def digest(row: int) -> bytes:
        return image_digest(dataset[row])

    on_all_cores(
        digest, wanted.tolist(), digests.__setitem__, lambda done, total: told(done / total)
    )
    return digests


def _found(
    kept: Kept, embedder: Embedder, dataset: Dataset, digests: Mapping[int, bytes]
) -> NDArray[np.float32] | None:
    """Embeddings (n, d) of the images whose digests these are, NaN where none is kept; None: of
    none, or they are not what the network makes of the first of them, as its code has changed.
    """
    found = kept.find([*digests.values()])
    there = [i for i, digest in digests.items() if digest in found]
    if not there:
        return None
    first = found[digests[there[0]]]
    if not same(embedder, dataset[there[0]], first):
        kept.warn(f"{kept.path} is of another release of the network: embeddings are made again")
        return None
    out = np.full((len(dataset.labels), len(first)), np.nan, np.float32)
    out[there] = np.stack([found[digests[i]] for i in there])
    return out


_ROUNDING = 1e-5  # a spread that float32 makes of one image in batches of other sizes


def spread(embeddings: NDArray[np.float32]) -> float:
    """How far embeddings (n, d) lie apart for their length: 0 where all images have one.

    The root of their mean squared distance from their mean over that of their mean squared length;
    rows of NaN are not asked about. Vectors of length 1 in all directions have 1.
    """
    rows = embeddings[~np.isnan(embeddings).any(axis=1)].astype(np.float64)
    length = float(np.sqrt((rows**2).sum(axis=1).mean())) if rows.size else 0.0
    apart = float(np.sqrt(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).mean())) if length else 0.0
    return apart / length if length else 0.0


def settled(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings as they are; where they differ by rounding alone, all are their mean.

    Figures of rounding would say that images are told apart: a ROC AUC of 1 instead of one half.
    """
    if spread(embeddings) > _ROUNDING:
        return embeddings
    mean = np.nanmean(embeddings.astype(np.float64), axis=0).astype(np.float32)
    return np.where(np.isnan(embeddings), embeddings, mean)


def recentre(
    embedder: Embedder,
    dataset: Dataset,
    indices: Ints,
    progress: Callable[[int, int], None] | None = None,
    engine: Name | Engine = "auto",
) -> None:
    """Take an embedder's centre, where it has one, anew: the mean over images `indices`.

    That is of their embeddings (over all views that it takes) as the backbone gives them,
    raised to the embedder's power, neither centred nor of length 1. One that whitens is taken from
    2,000 of the images at the most, evenly spread, its units the classes of each source.
    """
    centre = embedder.centre
    if centre is None:
        return
    if "within" in centre:
        indices = indices[np.unique(np.linspace(0, len(indices) - 1, _WHITENED).astype(int))]
    raw = evolve(embedder, normalize="none", centre=None)
    rows = embed(raw, dataset, indices, progress=progress, engine=engine)[indices]
    if centre.of is not None:
        rows[:, ~centre.of] = 0
    centre.mean = mx.array(rows.mean(axis=0, dtype=np.float64).astype(np.float32))
    if "within" in centre:
        source = getattr(dataset, "source", None)
        of = 0 if source is None else np.unique(source, return_inverse=True)[1][indices]
        units = dataset.labels[indices] + len(dataset.classes) * of
        centre.within = mx.array(within_classes(rows, units, centre.within.shape[1]))


def raw_pixels(dataset: Dataset, indices: Ints, size: int = 16) -> NDArray[np.float32]:
    """The floor: images averaged down to size x size, as vectors (n, size · size · c).

    Rows not in `indices` are NaN. An image's sides are cut to the next multiple of `size`; smaller
    images are taken as they are.
    """
    out: NDArray[np.float32] | None = None
    wanted = np.unique(indices)
    for block in np.array_split(wanted, max(1, len(wanted) // 512)):
        images = gather(dataset, block).astype(np.float32) / np.float32(255)
        b, h, w, c = images.shape
        down, across = max(1, h // size), max(1, w // size)
        rows, columns = min(size, h), min(size, w)
        images = images[:, : rows * down, : columns * across]
        images = images.reshape(b, rows, down, columns, across, c).mean(axis=(2, 4))
        if out is None:
            out = np.full((len(dataset.labels), rows * columns * c), np.nan, np.float32)
        out[block] = images.reshape(b, -1)
    assert out is not None
    return out

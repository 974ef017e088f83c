"""From images to class names: an embedder, a head and a support that stays."""

from collections.abc import Mapping, Sequence

import mlx.core as mx
import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray

from .datasets import ArrayDataset
from .draws import Ints
from .embedding import Embedder, embed
from .errors import DataError
from .folding import folded
from .interfaces import Head, Metric
from .layers import all_cores
from .loader import prepared
from .records import as_names
from .seeding import generator

_BATCH = 128


@frozen(eq=False)
class Classifier:
    """A few-shot classifier with a fixed support; make one with `Classifier.of`.

    `support` (s, d) with `labels` (s,) into `classes`: embeddings, already condensed where the head
    can, so that an answer costs the same however many images a class was given.
    """

    embedder: Embedder
    head: Head
    metric: Metric
    classes: tuple[str, ...] = field(converter=as_names)
    support: mx.array
    labels: mx.array

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        head: Head,
        metric: Metric,
        images: Mapping[str, NDArray[np.uint8]],
    ) -> "Classifier":
        """A classifier of the named classes from images (k, h, w, c) uint8 of each, any k >= 1.

        The embedder is copied: training it on changes nothing. Raises DataError for no class, a
        class without images, or images that are not uint8 or not of one size.
        """
        if not images:
            raise DataError("a classifier needs at least one class")
        empty = [name for name, of_class in images.items() if len(of_class) == 0]
        if empty:
            raise DataError(f"class '{empty[0]}' has no image")
        if len({np.shape(of_class)[1:] for of_class in images.values()}) > 1:
            raise DataError("images of different classes must have one size (h, w, c)")
        labels = np.repeat(np.arange(len(images)), [len(of_class) for of_class in images.values()])
        dataset = ArrayDataset(np.concatenate(list(images.values())), labels, list(images))
        support = embed(embedder, dataset)
        return cls.of_embeddings(embedder, head, metric, list(images), support, labels)

    @classmethod
    def of_embeddings(
        cls,
        embedder: Embedder,
        head: Head,
        metric: Metric,
        classes: Sequence[str],
        support: NDArray[np.float32],
        labels: Ints,
    ) -> "Classifier":
        """The same from embedded images (s, d), with labels (s,) into `classes`."""
        kept, of_kept = mx.array(support), mx.array(labels)
        if head.condense is not None:
            kept, of_kept = head.condense(kept, of_kept, len(classes))
        mx.eval(kept, of_kept)
        embedder = evolve(embedder, backbone=folded(embedder.backbone))
        return cls(embedder, head, metric, classes, kept, of_kept)

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores (b, n_way) of images (b, h, w, c) uint8; higher is better."""
        if images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(f"images must be (b, h, w, c) uint8, not {images.shape} {images.dtype}")
        rng = generator(0, "preprocess")
        answers = [np.empty((0, len(self.classes)), np.float32)]
        for start in range(0, len(images), _BATCH):
            batch = prepared(images[start : start + _BATCH], self.embedder.preprocess, rng)
            with all_cores(len(batch)):
                answers.append(np.array(self._scores(self.embedder(mx.array(batch)))))
        return np.concatenate(answers)

    def _scores(self, query: mx.array) -> mx.array:
        n_way = len(self.classes)
        return self.head.scores(self.support, self.labels, query, self.metric, n_way)

    def predict(self, images: NDArray[np.uint8]) -> list[str]:
        """The class of every image (b, h, w, c) uint8; the first of equal scores wins."""
        return [self.classes[i] for i in self.scores(images).argmax(axis=-1)]

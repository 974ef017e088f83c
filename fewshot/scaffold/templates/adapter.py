"""The adapter PLUGIN_NAME: embeddings are seen from the middle of the support."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen
from fewshot import (
    Adapter,
    Component,
    Embedder,
    Ints,
    Metric,
    at_least,
    at_most,
    copied,
    embed,
    from_arrays,
    hookimpl,
    option,
    within,
)
from numpy.typing import NDArray


@frozen
class Options:
    """Options of the adapter."""

    way: float = option(
        1.0, "how far to go to the middle, 0 to 1", within(at_least(0), at_most(1))
    )


class Moved(nn.Module):
    """A backbone, its embeddings minus an origin (d,): (b, h, w, c) -> (b, d)."""

    def __init__(self, backbone: nn.Module, origin: mx.array) -> None:
        super().__init__()
        self.backbone = backbone
        self.origin = origin
        self.embedding_dim = origin.shape[0]

    def __call__(self, images: mx.array) -> mx.array:
        return self.backbone(images) - self.origin


def adapter(options: Options) -> Adapter[Embedder]:
    """Subtract the mean of the class means, as Wang et al. 2019, "SimpleShot", do."""

    def adapt(
        embedder: Embedder,
        images: NDArray[np.uint8],
        labels: Ints,
        metric: Metric,
        seed: int,
    ) -> Embedder:
        backbone = copied(embedder.backbone).eval()
        plain = evolve(embedder, backbone=backbone, normalize="none")
        support = embed(plain, from_arrays(images, labels))
        means = [support[labels == label].mean(axis=0) for label in np.unique(labels)]
        origin = mx.array(options.way * np.mean(means, axis=0, dtype=np.float32))
        return evolve(embedder, backbone=Moved(backbone, origin).eval())

    return adapt


@hookimpl
def fewshot_adapters() -> list[Component]:
    return [Component("PLUGIN_NAME", adapter, Options, "from the middle of the support")]

"""The backbone wrapped: that network without its last layer, with weights from a file."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from attrs import frozen

from fewshot import Component, ConfigError, hookimpl, load_weights, option

from .network import Network


@frozen
class Options:
    """Options of the backbone."""

    weights: str = option("", "a .safetensors file of the whole network to start from, or none")


class Embedding(nn.Module):
    """(b, h, w, 3) -> (b, 32): the mean of the features over all places."""

    embedding_dim = 32

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.features = network.features

    def __call__(self, images: mx.array) -> mx.array:
        return self.features(images).mean(axis=(1, 2))


def wrapped(options: Options, input_shape: tuple[int, int, int]) -> Embedding:
    """The embedding; ConfigError for images that are not RGB."""
    if input_shape[2] != 3:
        raise ConfigError(f"wrapped wants RGB images, these have {input_shape[2]} channels")
    return Embedding(Network())


def initialise(backbone: Embedding, options: Options) -> None:
    """The weights that the file has; OutputError where it has others."""
    if options.weights:
        network = Network()
        load_weights(network, Path(options.weights))
        backbone.features.update(network.features.parameters())


@hookimpl
def fewshot_backbones() -> list[Component]:
    summary = "a network of one's own, with its weights"
    return [Component("wrapped", wrapped, Options, summary, initialise=initialise)]

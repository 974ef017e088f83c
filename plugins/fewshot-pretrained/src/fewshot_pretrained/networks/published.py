"""Published weights: where they are, how they are fetched and checked, and put into a network.

A network here has the published names for its parameters, so that weights load by name.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from attrs import asdict, frozen
from mlx.utils import tree_flatten

from fewshot import Component, ConfigError, DataError, OutputError, at_least, data_folder, option

Shape = tuple[int, int, int]
Arrays = dict[str, mx.array]

FILE, NOTE = "model.safetensors", "source.json"

DRAWN = "none"


@frozen
class Published:
    """Weights that someone has published, and what they were trained on.

    `repository`: on the Hugging Face hub, its file `model.safetensors`. `size`: of the images, in
    pixels a side; `mean` and `std` of each channel, of values in [0, 1]; `crop`: the share of the
    shorter side that the published evaluation keeps; `interpolation`: how it scales. `sha256`: of
    the file, where it is known; else what the hub gives first is noted, and told from any other.
    `others`: tensors of the file that the network here has no use for, by how their names begin.
    """

    repository: str
    licence: str
    trained_on: str
    size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: float = 1.0
    interpolation: str = "bicubic"
    others: tuple[str, ...] = ()
    sha256: str | None = None

    def implied(self) -> dict[str, Any]:
        """The configuration that goes with the weights."""
        normalise = {"name": "normalise", "mean": list(self.mean), "std": list(self.std)}
        return {"dataset": {"size": self.size}, "preprocess": [normalise]}


@frozen
class PublishedOptions:
    """Options of every network with published weights."""

    weights: str = option(
        "",
        "a .safetensors file under the published names; else what `fewshot fetch` brought; "
        f"'{DRAWN}': drawn, for training from scratch",
    )
    frozen: bool = option(True, "the weights stay as they are: nothing of the network is trained")
    train_from: int = option(
        0,
        "where not frozen: the first block that is trained, counted from 1, with all after it; "
        "0: the whole network",
        at_least(0),
    )


def component(
    name: str,
    factory: Callable[[Any, Shape], nn.Module],
    options: type[PublishedOptions],
    published: Published,
    summary: str,
) -> Component:
    """A backbone with published weights, which are fetched and loaded by the published names."""
    return Component(
        name,
        factory,
        options,
        f"{summary}, {published.trained_on} ({published.licence})",
        partial(fetch, published),
        partial(initialise, name, published),
        published.implied(),
    )


# ------------------------------------------------------------------------------ networks


def colour(images: mx.array) -> mx.array:
    """(b, h, w, 1 or 3) -> (b, h, w, 3): grey as equal red, green and blue."""
    return mx.broadcast_to(images, (*images.shape[:3], 3))


def require_shape(name: str, shape: Shape, least: int, multiple: int = 1) -> None:
    """Raise ConfigError for images that a network with published weights cannot take."""
    height, width, channels = shape
    if channels not in (1, 3):
        raise ConfigError(f"{name} takes grey or RGB images, these have {channels} channels")
    if min(height, width) < least:
        raise ConfigError(f"{name} takes images from {least}x{least}, not {height}x{width}")
    if height % multiple or width % multiple:
        near = [max(1, round(side / multiple)) * multiple for side in (height, width)]
        raise ConfigError(
            f"{name} cuts images into patches of {multiple}x{multiple}: {height}x{width} is no "
            f"multiple, {near[0]}x{near[1]} is"
        )


def freeze(
    network: nn.Module, blocks: Sequence[Sequence[nn.Module]], options: PublishedOptions
) -> None:
    """Freeze what the options say. `blocks`: of the network in order, the last with its tail.

    Raises ConfigError where there are fewer blocks.
    """
    if options.train_from > len(blocks):
        raise ConfigError(
            f"train_from {options.train_from}: the network has blocks 1 to {len(blocks)}"
        )
    if options.frozen or options.train_from:
        network.freeze()
    if not options.frozen and options.train_from:
        for block in blocks[options.train_from - 1 :]:
            for module in block:
                module.unfreeze()


# ------------------------------------------------------------------------------- weights


def initialise(name: str, published: Published, network: nn.Module, options: Any) -> None:
    """Give a network its published weights. Raises DataError where they are missing or unfit."""
    if options.weights == DRAWN:
        return
    path = Path(options.weights or data_folder(name) / FILE)
    if not path.is_file():
        raise DataError(
            f"{path}: no weights of {name} there: `fewshot fetch backbone/{name}` brings "
            f"{published.repository} ({published.licence}), --set backbone.weights=PATH names a "
            f"file, --set backbone.weights={DRAWN} starts from scratch"
        )
    if not options.weights:
        require_noted(path)
    load(network, read(path), published.others, f"{path}: the weights of {name}")


def read(path: Path) -> Arrays:
    """A safetensors file, by name, in float32. Raises DataError where it is none."""
    try:
        tensors: Any = mx.load(str(path), format="safetensors")
        tensors = {name: tensor.astype(mx.float32) for name, tensor in tensors.items()}
        mx.eval(tensors)  # loading is lazy
    except (RuntimeError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path}: not a safetensors file: {line}") from error
    return tensors


def load(
    network: Any, tensors: Mapping[str, mx.array], others: Sequence[str], called: str
) -> None:
    """Put tensors under PyTorch's names and layouts into a network of the same names.

    A weight of a convolution (o, i, h, w) becomes (o, h, w, i); what else a network wants to be
    changed, its `fitted(name, tensor)` does. Raises DataError, so calling them, where a tensor
    is missing, is of another shape, or belongs to nothing.
    """
    given = {
        name: tensor.transpose(0, 2, 3, 1) if tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
        if not name.startswith(tuple(others)) and not name.endswith("num_batches_tracked")
    }
    if hasattr(network, "fitted"):
        given = {name: network.fitted(name, tensor) for name, tensor in given.items()}
    leaves: Any = tree_flatten(network.parameters())
    due = dict(leaves)
    for what, names in (("lack", due.keys() - given.keys()), ("also have", given.keys() - due.keys())):
        if names:
            first = min(names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{called} {what} {first}{more}")
    for name, tensor in given.items():
        if tensor.shape != due[name].shape:
            raise DataError(
                f"{called}: {name} is {tensor.shape}, {due[name].shape} is due (channels last)"
            )
    network.load_weights(list(given.items()))
    mx.eval(network.parameters())

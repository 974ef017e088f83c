"""Networks with published weights: what they are told, what of them is trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import mlx.nn as nn
from attrs import frozen

from fewshot import ConfigError, at_least, option

Shape = tuple[int, int, int]

FILE = "model.safetensors"

DRAWN = "none"

Interpolation = Literal["bilinear", "bicubic"]


def implied(
    size: int, interpolation: Interpolation, normalise: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The configuration that goes with weights: how their images were scaled and normalised."""
    return {
        "dataset": {"size": size, "interpolation": interpolation},
        "preprocess": [{"name": "normalise", **normalise}],
    }


@frozen
class PublishedOptions:
    """Options of every network with published weights."""

    weights: str = option(
        "",
        "a .safetensors or .pth file under the published names; else what `fewshot fetch` brought; "
        f"'{DRAWN}': drawn, for training from scratch",
    )
    frozen: bool = option(True, "the weights stay as they are: nothing of the network is trained")
    train_from: int = option(
        0,
        "where not frozen: the first block that is trained, counted from 1, with all after it; "
        "0: the whole network",
        at_least(0),
    )


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

    The network tells them from then on, as `block_names()`.
    Raises ConfigError where there are fewer blocks.
    """
    names = {id(part): name for name, part in network.named_modules()}
    told = [[names[id(part)] for part in block] for block in blocks]
    network.block_names = lambda: told
    if options.train_from > len(blocks):
        raise ConfigError(
            f"train_from {options.train_from}: the network has blocks 1 to {len(blocks)}"
        )
    if options.frozen or options.train_from:
        network.freeze()
    if not options.frozen and options.train_from:
        for block in blocks[options.train_from - 1 :]:
            for part in block:
                for module in part.modules():  # a whole part would unfreeze running statistics
                    module.unfreeze(recurse=False)

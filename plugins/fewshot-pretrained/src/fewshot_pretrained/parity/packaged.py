"""Packaged weights here against PyTorch: a part of `python -m fewshot_pretrained.parity`.

torch reads the published file by itself and fills the reference model in the file's own order, so
nothing of this package is on both sides.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ..networks import inverted
from ..networks.packaged import Packaged

TOLERANCE = 1e-5  # of the largest number in an embedding
SHAPES = ((2, 224, 224, 3), (1, 225, 193, 3))  # odd sides are padded otherwise


def _lite(size: int) -> Any:
    import timm

    return timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False)


def _mobilenet_v2() -> Any:
    import torch
    import torchvision

    model = torchvision.models.mobilenet_v2(weights=None)
    model.classifier = torch.nn.Identity()
    return model


REFERENCES: dict[str, tuple[Packaged, Callable[[], Any]]] = {
    "efficientnet-lite0": (inverted.LITE0, partial(_lite, 0)),
    "efficientnet-lite2": (inverted.LITE2, partial(_lite, 2)),
    "mobilenet-v2": (inverted.V2, _mobilenet_v2),
}


def error(name: str, path: Path, shape: tuple[int, int, int, int]) -> float:
    """The largest difference between both embeddings of noise, relative to the largest number."""
    component = {each.name: each for each in inverted.COMPONENTS}[name]
    options = component.options(weights=str(path), output="mean")
    network = component.factory(options, shape[1:])
    assert component.initialise is not None
    component.initialise(network, options)
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = np.array(network.eval()(mx.array(images)))
    expected = _expected(REFERENCES[name][1](), path, images)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _expected(model: Any, path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    given = torch.load(path, weights_only=True)
    state = dict(zip(model.state_dict(), given.values(), strict=True))
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        batch = torch.from_numpy(images).permute(0, 3, 1, 2)
        maps = model.forward_features(batch) if hasattr(model, "forward_features") else None
        rows = model(batch) if maps is None else maps.mean(dim=(2, 3))
    return np.asarray(rows.numpy())


def compare(name: str, path: Path | None) -> float | None:
    """The largest error over all shapes; None where the weights are not there."""
    path = path or REFERENCES[name][0].path()
    return None if path is None else max(error(name, path, shape) for shape in SHAPES)

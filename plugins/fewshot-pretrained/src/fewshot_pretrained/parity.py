"""Whether packaged weights give here what they give in PyTorch.

`python -m fewshot_pretrained.parity` needs the extra `parity`. There torch reads the published file
by itself and fills the reference model in the file's own order, so nothing of this package is on
both sides.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot import prepare

prepare()

import mlx.core as mx  # noqa: E402

from .networks import inverted  # noqa: E402
from .networks.packaged import Packaged  # noqa: E402

TOLERANCE = 1e-5  # of the largest number in an embedding
SHAPES = ((2, 224, 224, 3), (1, 225, 193, 3))  # odd sides are padded otherwise


def _lite0() -> Any:
    import timm

    return timm.create_model("tf_efficientnet_lite0", pretrained=False)


def _mobilenet_v2() -> Any:
    import torch
    import torchvision

    model = torchvision.models.mobilenet_v2(weights=None)
    model.classifier = torch.nn.Identity()
    return model


REFERENCES: dict[str, tuple[Packaged, Callable[[], Any]]] = {
    "efficientnet-lite0": (inverted.LITE0, _lite0),
    "mobilenet-v2": (inverted.V2, _mobilenet_v2),
}


def error(name: str, path: Path, shape: tuple[int, int, int, int]) -> float:
    """The largest difference between both embeddings of noise, relative to the largest number."""
    component = {each.name: each for each in inverted.COMPONENTS}[name]
    options = component.options(weights=str(path))
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


def main(arguments: list[str]) -> int:
    """Compare all networks whose weights are there; `NAME=PATH` says where; 1: some differ."""
    given = dict(argument.split("=", 1) for argument in arguments)
    failed = 0
    for name, (packaged, _) in REFERENCES.items():
        path = Path(given[name]) if name in given else packaged.path()
        if path is None:
            print(f"{name}: no weights here: {packaged.install}")
            continue
        errors = [error(name, path, shape) for shape in SHAPES]
        failed |= not max(errors) <= TOLERANCE
        print(f"{name}: largest error {max(errors):.1e} of {TOLERANCE:.0e}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

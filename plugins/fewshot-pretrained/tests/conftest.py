"""MLX made fast before anything imports it, and every family at a size that a test can afford."""

# ruff: noqa: E402

from fewshot import prepare

prepare()

from functools import partial
from typing import Any

import mlx.nn as nn
import pytest
from attrs import evolve

from fewshot_pretrained.networks import vit
from fewshot_pretrained.networks.convnext import ConvNeXt
from fewshot_pretrained.networks.mobilenet import MobileNetV3, Row
from fewshot_pretrained.networks.published import PublishedOptions
from fewshot_pretrained.networks.resnet import ResNet

PLAN = vit.Plan(patch=8, width=8, heads=2, depth=2)

_ROWS = (
    Row(8, 3, 1, (1,), False, nn.ReLU()),
    Row(16, 5, 2, (3, 2.5), True, nn.Hardswish()),
)

# Name: how it is made of options and a shape, and the options class.
NETWORKS: dict[str, tuple[Any, Any]] = {
    "resnet": (partial(ResNet, (1, 1), (4, 8), (3, 3), stem=4), PublishedOptions),
    "bottleneck": (partial(ResNet, (1, 1), (8, 16), (1, 3, 1), stem=4), PublishedOptions),
    "mobilenet": (partial(MobileNetV3, _ROWS, 8, 12), PublishedOptions),
    "convnext": (partial(ConvNeXt, (1, 2), (4, 8)), PublishedOptions),
    "vit": (partial(vit.ViT, PLAN), vit.ViTOptions),
    "dinov2": (
        partial(vit.ViT, evolve(PLAN, scaled=True, prefix=3, placed=0)),
        vit.ViTOptions,
    ),
    "clip": (partial(vit.ViT, evolve(PLAN, norm_first=True, projected=6)), vit.ViTOptions),
    "siglip": (partial(vit.ViT, evolve(PLAN, prefix=0, placed=0, pooled=True)), vit.ViTOptions),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """The name of a family, how one of it is made of options and a shape, the options class."""
    return request.param, *NETWORKS[request.param]


@pytest.fixture(params=["vit", "dinov2", "clip", "siglip"])
def transformer(request):
    """How a transformer is made of options and a shape, the options class."""
    return NETWORKS[request.param]


@pytest.fixture(scope="session")
def resnet():
    """How a residual network is made of options and a shape."""
    return NETWORKS["resnet"][0]

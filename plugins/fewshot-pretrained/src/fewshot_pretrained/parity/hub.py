"""The hub's networks against timm's of the same drawn weights, and images as they go in."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import frozen

from fewshot import Component

from .drawn import draw

if TYPE_CHECKING:
    from ..networks.hub import Published

# timm's name and arguments, where they are not those of the repository. OpenAI's CLIP was trained
# with its own approximation of GELU, SigLIP with that by tanh.
_REFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip-base-32": ("vit_base_patch32_clip_quickgelu_224.openai", {}),
    "clip-base-16": ("vit_base_patch16_clip_quickgelu_224.openai", {}),
    "siglip-base-16": ("vit_base_patch16_siglip_224.webli", {"act_layer": "gelu_tanh"}),
}

# What the published evaluation has and timm's record of it has not: no margin is cut off.
UNCUT = {"clip-base-32", "clip-base-16", "siglip-base-16"}


@frozen
class Compared:
    """A network at one size: the largest difference, as a share of the largest number."""

    name: str
    height: int
    width: int
    output: str
    apart: float


def compare(component: Component, seed: int = 0) -> Iterator[Compared]:
    """Embeddings of a component with published weights against timm's, from the same file."""
    import mlx.core as mx
    import timm
    import torch
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    published = weights_of(component)
    name, arguments = reference_of(component)
    reference = timm.create_model(name, **arguments)
    draw(reference, seed)
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, "model.safetensors")
        save_file({name: t.contiguous() for name, t in reference.state_dict().items()}, path)
        transformer = isinstance(reference, VisionTransformer)
        patch = reference.patch_embed.patch_size[0] if transformer else 32
        for height, width in ((published.size, published.size), (5 * patch, 6 * patch)):
            model = reference
            if transformer:
                model = timm.create_model(name, img_size=(height, width), **arguments)
                model.load_state_dict(checkpoint_filter_fn(reference.state_dict(), model))
            images = np.random.default_rng(seed).normal(size=(2, height, width, 3))
            images = images.astype(np.float32)
            due = _embeddings(model.eval(), torch.from_numpy(images.transpose(0, 3, 1, 2)))
            for output, expected in due.items():
                choice = {"output": output} if transformer else {}
                options = component.options(weights=str(path), **choice)
                network = component.factory(options, (height, width, 3))
                assert component.initialise is not None
                component.initialise(network, options)
                network.eval()
                found = np.array(network(mx.array(images)))
                apart = float(np.abs(found - expected).max() / np.abs(expected).max())
                yield Compared(component.name, height, width, output, apart)


def components() -> list[Component]:
    """Those with weights on the hub."""
    from ..networks.hub import published_of
    from ..plugin import fewshot_backbones

    return [part for part in fewshot_backbones() if published_of(part)]


def weights_of(component: Component) -> "Published":
    """The record of its weights."""
    from ..networks.hub import published_of

    published = published_of(component)
    assert published is not None
    return published


def reference_of(component: Component) -> tuple[str, dict[str, Any]]:
    """Of timm: the name of the network, and arguments to make it with."""
    name = weights_of(component).repository.removeprefix("timm/")
    return _REFERENCES.get(component.name, (name, {}))


def _embeddings(model: Any, images: Any) -> dict[str, Any]:
    """What the network gives for images (b, 3, h, w), by the name of the output; (b, d) each."""
    features = model.forward_features(images)
    projected = "clip" in model.pretrained_cfg["architecture"]
    own = model.forward_head(features, pre_logits=not projected).numpy()
    if features.ndim != 3:
        return {"class": own}
    patches = features[:, model.num_prefix_tokens :].mean(dim=1).numpy()
    return {"class": own, "mean": patches, "both": np.concatenate([own, patches], axis=1)}


def grey_levels(component: Component, seed: int = 0) -> int:
    """How far an image lies from timm's, as it goes in, at most: 0 to 255."""
    import timm
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    from ..networks.hub import as_published

    published = weights_of(component)
    name, _ = reference_of(component)
    with_weights = resolve_model_data_config(
        None, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
    )
    size = (3, published.size, published.size)
    crop = {"crop_pct": 1.0} if component.name in UNCUT else {}
    theirs = create_transform(**{**with_weights, "input_size": size, **crop})
    rng = np.random.default_rng(seed)
    worst = 0
    for height, width in ((301, 487), (640, 333), (190, 190)):
        pixels = rng.integers(0, 256, (height // 3, width // 3, 3), np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        due = theirs(image).numpy().transpose(1, 2, 0)  # normalised: back to what it was of
        due = 255 * (due * np.array(published.std) + np.array(published.mean))
        found = as_published(image, published).astype(float)
        worst = max(worst, round(np.abs(found - due).max()))
    return worst

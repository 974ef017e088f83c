"""Vision transformers: ViT, DINOv2, and the image towers of CLIP and SigLIP."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import evolve, frozen, validators
from numpy.typing import NDArray

from fewshot import Component, PerImage, Sequential, option

from .attention import attended, quick_gelu
from .hub import Published, colour, component
from .published import PublishedOptions, Shape, freeze, require_shape
from .text import TOKENIZER, WEIGHTS, TextPlan, read_names

_HALF = (0.5, 0.5, 0.5)


@frozen
class ViTOptions(PublishedOptions):
    """Options of a vision transformer."""

    output: Literal["class", "mean", "both"] = option(
        "class",
        "class: what the network gives for an image, its class token (CLIP: projected; SigLIP: its "
        "attention pool); mean: of the patches; both: one after the other",
    )


@frozen
class CaptionedOptions(ViTOptions):
    """Options of a vision transformer that was trained with captions."""

    text: str = option(
        "",
        f"a folder with the text tower, {WEIGHTS} and {TOKENIZER}; else what `fewshot fetch` "
        "brought",
    )
    template: str = option(
        "a photo of a {}.",
        "what is read for the class of the name {}",
        validators.matches_re(r"[^{}]*\{\}[^{}]*"),
    )


@frozen
class Plan:
    """What tells one vision transformer from another.

    `prefix`: tokens before the patches, a class token and registers. `placed`: of them, how many
    have positions. `scaled`: layer scale (DINOv2). `norm_first`: layer norm before the blocks, no
    bias of the patches (CLIP). `projected`: numbers that the class token is projected to, 0: it is
    not (CLIP). `pooled`: attention over the patches in place of a class token (SigLIP).
    """

    patch: int
    width: int
    heads: int
    depth: int = 12
    prefix: int = 1
    placed: int = 1
    scaled: bool = False
    norm_first: bool = False
    projected: int = 0
    pooled: bool = False
    gelu: Callable[[mx.array], mx.array] = nn.gelu
    eps: float = 1e-6


# ------------------------------------------------------------------------------ network


def _mlp(width: int) -> dict[str, nn.Module]:
    return {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}


class Block(nn.Module):
    """Attention and two linear layers, each after layer norm and added to its input."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        width = plan.width
        self._heads, self._gelu = plan.heads, plan.gelu
        self.norm1 = nn.LayerNorm(width, plan.eps)
        self.attn = {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        self.norm2 = nn.LayerNorm(width, plan.eps)
        self.mlp = _mlp(width)
        if plan.scaled:
            self.ls1, self.ls2 = ({"gamma": mx.full((width,), 0.1)} for _ in range(2))

    def __call__(self, x: mx.array) -> mx.array:
        """(b, n, width) -> the same shape."""
        q, k, v = mx.split(self.attn["qkv"](self.norm1(x)), 3, axis=-1)
        y = self.attn["proj"](attended(q, k, v, self._heads))
        x = x + (self.ls1["gamma"] * y if "ls1" in self else y)
        y = self.mlp["fc2"](self._gelu(self.mlp["fc1"](self.norm2(x))))
        return x + (self.ls2["gamma"] * y if "ls2" in self else y)


class AttentionPool(nn.Module):
    """One learned query over all patches, then two linear layers (Zhai et al. 2022, 3.4)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        width = plan.width
        self._heads, self._gelu = plan.heads, plan.gelu
        self.latent = mx.random.normal((1, 1, width), scale=width**-0.5)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, plan.eps)
        self.mlp = _mlp(width)

    def __call__(self, x: mx.array) -> mx.array:
        """(b, n, width) -> (b, width)."""
        q = mx.broadcast_to(self.q(self.latent), (len(x), 1, x.shape[-1]))
        k, v = mx.split(self.kv(x), 2, axis=-1)
        y = self.proj(attended(q, k, v, self._heads))
        return (y + self.mlp["fc2"](self._gelu(self.mlp["fc1"](self.norm(y)))))[:, 0]


class ViT(nn.Module):
    """Dosovitskiy et al. 2021, "An image is worth 16x16 words": (b, h, w, 3) -> (b, embedding_dim).

    Registers: Darcet et al. 2024, "Vision transformers need registers".
    """

    def __init__(self, plan: Plan, options: ViTOptions, shape: Shape) -> None:
        super().__init__()
        require_shape("this transformer", shape, plan.patch, plan.patch)
        self._grid = (shape[0] // plan.patch, shape[1] // plan.patch)
        self._plan, self._output = plan, options.output
        width = plan.width
        self.patch_embed = {
            "proj": nn.Conv2d(3, width, plan.patch, plan.patch, bias=not plan.norm_first)
        }
        if plan.prefix:
            self.cls_token = mx.random.normal((1, 1, width), scale=0.02)
        if plan.prefix > 1:
            self.reg_token = mx.random.normal((1, plan.prefix - 1, width), scale=0.02)
        places = plan.placed + math.prod(self._grid)
        self.pos_embed = mx.random.normal((1, places, width), scale=0.02)
        if plan.norm_first:
            self.norm_pre = nn.LayerNorm(width, plan.eps)
        self.blocks = [Block(plan) for _ in range(plan.depth)]
        self.norm = nn.LayerNorm(width, plan.eps)
        tail: list[nn.Module] = [self.norm]
        if plan.projected:
            self.head = nn.Linear(width, plan.projected)
            tail.append(self.head)
        if plan.pooled:
            self.attn_pool = AttentionPool(plan)
            tail.append(self.attn_pool)
        own = plan.projected or width
        self.embedding_dim = {"class": own, "mean": width, "both": own + width}[options.output]
        blocks = [[block] for block in self.blocks]
        freeze(self, [*blocks[:-1], [*blocks[-1], *tail]], options)

    def __call__(self, images: mx.array) -> mx.array:
        """Embed a batch."""
        plan = self._plan
        x = self.patch_embed["proj"](colour(images)).flatten(1, 2)
        prefix = [
            mx.broadcast_to(self[name], (len(x), *self[name].shape[1:]))
            for name in ("cls_token", "reg_token")
            if name in self
        ]
        if plan.placed:
            x = mx.concatenate([*prefix, x], axis=1) + self.pos_embed
        else:
            x = mx.concatenate([*prefix, x + self.pos_embed], axis=1)
        if plan.norm_first:
            x = self.norm_pre(x)
        x = Sequential(*map(PerImage, self.blocks), self.norm)(x)
        parts = []
        if self._output != "mean":
            own = self.attn_pool(x) if plan.pooled else x[:, 0]
            parts.append(self.head(own) if plan.projected else own)
        if self._output != "class":
            parts.append(x[:, plan.prefix :].mean(axis=1))
        return mx.concatenate(parts, axis=-1)

    def fitted(self, name: str, tensor: mx.array) -> mx.array:
        """A published tensor as it goes in: positions resampled from their square grid to ours."""
        places = self._plan.placed
        if name != "pos_embed" or tensor.ndim != 3:
            return tensor
        side = math.isqrt(max(0, tensor.shape[1] - places))
        if side**2 + places != tensor.shape[1] or (side, side) == self._grid:
            return tensor
        grid = tensor[0, places:].reshape(side, side, -1)
        rows, columns = (mx.array(bicubic(side, due)) for due in self._grid)
        grid = mx.einsum("ij,jkd,lk->ild", rows, grid, columns).flatten(0, 1)
        return mx.concatenate([tensor[0, :places], grid])[None]


def bicubic(before: int, after: int) -> NDArray[np.float32]:
    """(after, before): `before` numbers resampled to `after`, bicubic with antialiasing.

    Keys 1981 with a = −1/2, widened where the numbers become fewer, cut off and scaled to 1 at the
    ends: PyTorch's `interpolate(mode="bicubic", antialias=True)`, Pillow's BICUBIC.
    """
    scale = before / after
    widened = max(1.0, scale)
    centres = (np.arange(after)[:, None] + 0.5) * scale
    x = np.abs((np.arange(before) + 0.5 - centres) / widened)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


# --------------------------------------------------------------------------- components


SMALL, BASE = Plan(16, 384, 6), Plan(16, 768, 12)


def _dinov2(plan: Plan) -> Plan:
    return evolve(plan, patch=14, scaled=True)


def _registers(plan: Plan) -> Plan:
    return evolve(_dinov2(plan), prefix=5, placed=0)


_CLIP = evolve(BASE, norm_first=True, projected=512, gelu=quick_gelu, eps=1e-5)

_SIGLIP = evolve(BASE, prefix=0, placed=0, pooled=True, gelu=nn.gelu_approx)

_AUGREG = partial(
    Published, licence="Apache-2.0", trained_on="ImageNet-21k",
    mean=_HALF, std=_HALF, crop=0.9, others=("head.",),
)  # fmt: skip
_DINOV2 = partial(Published, licence="Apache-2.0", trained_on="LVD-142M")
_OPENAI = partial(
    Published, licence="Apache-2.0", trained_on="400 million captioned images",
    mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711),
)  # fmt: skip
_WEBLI = partial(
    Published, licence="Apache-2.0", trained_on="WebLI, captioned images", mean=_HALF, std=_HALF
)

CLIP_TEXT = TextPlan(
    vocabulary=49408, width=512, heads=8, context=77, dim=512, end=49407, causal=True,
    gelu=quick_gelu, eps=1e-5,
)  # fmt: skip
SIGLIP_TEXT = TextPlan(
    vocabulary=32000, width=768, heads=12, context=64, dim=768, end=1, causal=False,
    gelu=nn.gelu_approx, eps=1e-6, prefix="text.",
)  # fmt: skip


def captioned(
    plan: Plan,
    of_text: TextPlan,
    name: str,
    published: Published,
    options: CaptionedOptions,
    shape: Shape,
) -> ViT:
    """A vision transformer that embeds names too, unless its output is not what these lie near.

    `published`: of the text tower of the backbone `name`.
    """
    network = ViT(plan, options, shape)
    if options.output == "class":
        network.text = partial(read_names, of_text, name, published, options.text, options.template)
    return network


def _captioned(
    name: str,
    plan: Plan,
    of_text: TextPlan,
    published: Published,
    of: str,
    sha256: str | None,
    summary: str,
) -> Component:
    """`of`: the repository that has the whole model under OpenCLIP's names, a text tower in it."""
    text = evolve(
        published,
        repository=of,
        sha256=sha256,
        files=(WEIGHTS, TOKENIZER),
        others=("visual.", "logit_scale", "logit_bias"),
    )
    factory = partial(captioned, plan, of_text, name, text)
    return component(name, factory, CaptionedOptions, evolve(published, text=text), summary)


COMPONENTS = tuple(
    component(name, partial(ViT, plan), ViTOptions, published, summary)
    for name, plan, published, summary in (
        ("vit-small-16", SMALL, _AUGREG("timm/vit_small_patch16_224.augreg_in21k"), "ViT-S/16"),
        ("vit-base-16", BASE, _AUGREG("timm/vit_base_patch16_224.augreg_in21k"), "ViT-B/16"),
        (
            "dinov2-small-14",
            _dinov2(SMALL),
            _DINOV2(
                "timm/vit_small_patch14_dinov2.lvd142m",
                sha256="04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
            ),
            "DINOv2 ViT-S/14",
        ),
        (
            "dinov2-base-14",
            _dinov2(BASE),
            _DINOV2(
                "timm/vit_base_patch14_dinov2.lvd142m",
                sha256="55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
            ),
            "DINOv2 ViT-B/14",
        ),
        (
            "dinov2-small-14-registers",
            _registers(SMALL),
            _DINOV2("timm/vit_small_patch14_reg4_dinov2.lvd142m"),
            "DINOv2 ViT-S/14 with registers",
        ),
        (
            "dinov2-base-14-registers",
            _registers(BASE),
            _DINOV2("timm/vit_base_patch14_reg4_dinov2.lvd142m"),
            "DINOv2 ViT-B/14 with registers",
        ),
    )
)

COMPONENTS += tuple(
    _captioned(name, plan, text, published(repository), of or repository, sha256, summary)
    for name, plan, text, published, repository, of, sha256, summary in (
        (
            "clip-base-32",
            evolve(_CLIP, patch=32),
            CLIP_TEXT,
            _OPENAI,
            "timm/vit_base_patch32_clip_224.openai",
            "",
            "e6d1bd7789aa45192b3bf90570a789b478bae1b74ebcce7eddd908e83a2b7c31",
            "CLIP's ViT-B/32, for images and names",
        ),
        (
            "clip-base-16",
            _CLIP,
            CLIP_TEXT,
            _OPENAI,
            "timm/vit_base_patch16_clip_224.openai",
            "",
            "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
            "CLIP's ViT-B/16, for images and names",
        ),
        (
            "siglip-base-16",
            _SIGLIP,
            SIGLIP_TEXT,
            _WEBLI,
            "timm/vit_base_patch16_siglip_224.webli",
            "timm/ViT-B-16-SigLIP",
            None,
            "SigLIP's ViT-B/16, for images and names",
        ),
    )
)

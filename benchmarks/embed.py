"""Embedding images in batches of 128, eval mode, from uint8 arrays."""

import time
from functools import partial
from typing import Any

from attrs import evolve

from . import network
from .images import close_up, smooth_images
from .peers import need
from .settings import Settings
from .sides import (
    Result,
    alternate,
    beside,
    fastest,
    in_two_formats,
    require_close,
    require_same,
    seconds,
    sides,
)
from .step import rate
from .worker import Turn

BATCH, BATCHES = 128, 4  # one iteration embeds 512 images


def ours(batches: int) -> tuple[dict[str, Any], Turn]:
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    images, labels = smooth_images(4, BATCH * batches // 4)
    data = fs.from_arrays(images, labels)
    first = fs.embed(embedder, data, batch=BATCH)
    facts = {"shape": list(first.shape), "embeddings": close_up(first[:4])}

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(n):
            fs.embed(embedder, data, batch=BATCH)
        return {"each": (time.perf_counter() - began) / n}

    return facts, turn


def in_onnx(batches: int) -> tuple[dict[str, Any], Turn]:
    """As a classifier embeds by ONNX Runtime."""
    embedder, _ = network.in_fewshot()
    from fewshot.compute.folding import folded
    from fewshot.engine.inference import Engine

    images, _ = smooth_images(4, BATCH * batches // 4)
    fast = evolve(embedder, backbone=folded(embedder.backbone))
    embed = partial(Engine("onnx").embeddings, fast, images.shape[1:])
    first = embed(images)
    facts = {"shape": list(first.shape), "embeddings": close_up(first[:4])}

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(n):
            embed(images)
        return {"each": (time.perf_counter() - began) / n}

    return facts, turn


def in_torch(
    batches: int, channels_last: bool, compiled: bool = False
) -> tuple[dict[str, Any], Turn]:
    torch = need("torch")

    model, facts = network.in_torch_to_embed(channels_last, compiled)
    images, _ = smooth_images(4, BATCH * batches // 4)

    def embed() -> Any:
        rows = []
        with torch.no_grad():
            for i in range(0, len(images), BATCH):
                batch = network.torch_batch(images[i : i + BATCH], channels_last)
                rows.append(torch.nn.functional.normalize(model(batch)))
        return torch.cat(rows).numpy()

    first = embed()
    facts |= {"shape": list(first.shape), "embeddings": close_up(first[:4])}

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(n):
            embed()
        return {"each": (time.perf_counter() - began) / n}

    return facts, turn


def measure(settings: Settings) -> Result:
    """Against PyTorch under no_grad, in the faster of its two memory formats."""
    batches = BATCHES if settings.turn else 1
    given = {"batches": batches}
    with sides(
        ("embed:ours", given),
        ("embed:in_torch", {**given, "channels_last": False}),
        ("embed:in_torch", {**given, "channels_last": True}),
        ("embed:in_torch", {**given, "channels_last": False, "compiled": True}),
        ("embed:in_onnx", given),
    ) as parts:
        checked = require_same(parts, "shape") + require_close(parts, "embeddings", 1e-4)
        replies = alternate(parts, settings)
    what = f"embedding 64x64 images in batches of {BATCH}"
    shown = partial(rate, images=BATCH * batches)
    result = in_two_formats(what, parts, replies[:3], shown, checked)
    peers = {"torch.compile": replies[3]} if parts[3].facts["compiled"] else {}
    told = {"PyTorch": replies[1 + fastest(replies[1:3])], **peers}
    return evolve(
        result,
        note=f"ONNX Runtime {shown(replies[4])}: over {beside(told, replies[4], shown)}",
        figures={
            **result.figures,
            **{k: seconds(v) for k, v in peers.items()},
            "ONNX Runtime": seconds(replies[4]),
        },
    )

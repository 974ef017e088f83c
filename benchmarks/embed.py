"""Embedding images in batches of 128, eval mode, from uint8 arrays."""

import time
from functools import partial
from typing import Any

from . import network
from .images import close_up, smooth_images
from .peers import need
from .settings import Settings
from .sides import Result, alternate, in_two_formats, require_close, require_same, sides
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


def in_torch(batches: int, channels_last: bool) -> tuple[dict[str, Any], Turn]:
    torch = need("torch")

    model = network.in_torch(channels_last)
    model.eval()
    images, _ = smooth_images(4, BATCH * batches // 4)

    def embed() -> Any:
        rows = []
        with torch.no_grad():
            for i in range(0, len(images), BATCH):
                batch = network.torch_batch(images[i : i + BATCH], channels_last)
                rows.append(torch.nn.functional.normalize(model(batch)))
        return torch.cat(rows).numpy()

    first = embed()
    facts = {
        **network.torch_facts(),
        "shape": list(first.shape),
        "embeddings": close_up(first[:4]),
    }

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
    ) as parts:
        checked = require_same(parts, "shape") + require_close(parts, "embeddings", 1e-4)
        replies = alternate(parts, settings)
    what = f"embedding 64x64 images in batches of {BATCH}"
    return in_two_formats(what, parts, replies, partial(rate, images=BATCH * batches), checked)

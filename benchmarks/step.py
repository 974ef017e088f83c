"""A Siamese training step from arrays in memory: against PyTorch, and against plain MLX."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from . import network
from .images import close_up, random_pairs, smooth_images
from .peers import need
from .settings import Settings
from .sides import (
    Result,
    alternate,
    in_two_formats,
    ratio,
    require_close,
    require_falling,
    require_same,
    seconds,
    side,
    sides,
)
from .worker import Turn

CLASSES, PER_CLASS, MARGIN, RATE = 20, 60, 1.0, 1e-3
LEAST = 10  # steps in a turn: ours is a whole `fit`, with its start

# ------------------------------------------------------------------------------------- ours


def ours(pairs: int) -> tuple[dict[str, Any], Turn]:
    """Through `fewshot.fit` itself: every turn is a call of it, from start to end."""
    import fewshot as fs

    embedder, runtime = network.in_fewshot()
    images, labels = smooth_images(CLASSES, PER_CLASS)
    data = fs.from_arrays(images, labels)
    sampler = fs.pairs(fs.PairsOptions(pairs=pairs), data.labels)
    facts = {
        "least": LEAST,
        "parameters": network.mlx_parameters(embedder.backbone),
        "embeddings": close_up(fs.embed(embedder, data, np.arange(4))[:4]),
        "images a step": 2 * pairs,
        "blas": runtime.blas,
    }

    return facts, by_fit(embedder, data, sampler)


def by_fit(embedder: Any, data: Any, sampler: Any, augment: Sequence[Any] = ()) -> Turn:
    """Turns that are one `fewshot.fit` of n steps each."""
    import mlx.optimizers as optimizers

    import fewshot as fs

    loss = fs.contrastive(fs.ContrastiveOptions(margin=MARGIN))
    seeds = itertools.count()

    def train(n: int) -> list[float]:
        options = fs.TrainingOptions(steps=n, validate_every=n)
        history = fs.fit(
            embedder, data, sampler, loss, fs.euclidean(),
            options=options, augment=augment, seed=next(seeds),
            optimizer=optimizers.Adam(RATE, bias_correction=True),
        )  # fmt: skip
        return [history.records[-1]["loss"]]

    return training(train)


def training(train: Callable[[int], Iterable[float]]) -> Turn:
    """Turns of `train(n)`, which takes n steps and gives their losses."""
    losses: list[float] = []

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        losses.append(float(np.mean(list(train(n)))))
        took = time.perf_counter() - began
        return {"each": took / n, "loss": losses[-1], "first loss": losses[0]}

    return turn


# ------------------------------------------------------------------------------------ peers


def torch_step(model: Any, optimizer: Any, batch: Any, same: Any) -> float:
    """One step on p pairs, the left images (p, …) before the right ones; its loss."""
    torch = need("torch")
    functional = torch.nn.functional

    pairs = len(same)
    optimizer.zero_grad()
    embeddings = functional.normalize(model(batch))
    distances = functional.pairwise_distance(embeddings[:pairs], embeddings[pairs:])
    shortfall = (MARGIN - distances).clamp(min=0)
    loss = torch.where(same, distances.square(), shortfall.square()).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def in_torch(pairs: int, channels_last: bool) -> tuple[dict[str, Any], Turn]:
    torch = need("torch")
    model = network.in_torch(channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    images, labels = smooth_images(CLASSES, PER_CLASS)
    rng = np.random.default_rng(0)
    model.eval()
    with torch.no_grad():
        known = torch.nn.functional.normalize(model(network.torch_batch(images[:4], channels_last)))
    model.train()
    facts = {
        **network.torch_facts(),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embeddings": close_up(known.numpy()),
        "images a step": 2 * pairs,
    }

    def step() -> float:
        left, right, same = random_pairs(rng, labels, pairs)
        batch = network.torch_batch(images[np.concatenate([left, right])], channels_last)
        return torch_step(model, optimizer, batch, torch.from_numpy(same))

    return facts, training(lambda n: (step() for _ in range(n)))


def in_mlx(pairs: int) -> tuple[dict[str, Any], Turn]:
    """MLX as installed: no fewshot, hence no other BLAS, and `mlx.nn.BatchNorm`."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optimizers

    model = network.in_mlx()
    optimizer = optimizers.Adam(RATE, bias_correction=True)
    images, labels = smooth_images(CLASSES, PER_CLASS)
    rng = np.random.default_rng(0)

    def embed(x: Any) -> Any:
        y = model(x)
        return y * mx.rsqrt(mx.maximum((y * y).sum(axis=-1, keepdims=True), 1e-24))

    def objective(x: Any, same: Any) -> Any:
        embeddings = embed(x)
        difference = embeddings[:pairs] - embeddings[pairs:]
        distances = mx.sqrt((difference * difference).sum(axis=-1) + 1e-12)
        shortfall = mx.maximum(MARGIN - distances, 0)
        return mx.where(same, distances.square(), shortfall.square()).mean()

    gradient = nn.value_and_grad(model, objective)
    model.eval()
    known = np.array(embed(network.mlx_batch(images[:4])))
    model.train()
    facts = {
        "peer": f"MLX {mx.__version__} as installed",
        "parameters": network.mlx_parameters(model),
        "embeddings": close_up(known),
        "images a step": 2 * pairs,
    }

    def step() -> float:
        left, right, same = random_pairs(rng, labels, pairs)
        batch = network.mlx_batch(images[np.concatenate([left, right])])
        loss, gradients = gradient(batch, mx.array(same))
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state, loss)
        return loss.item()

    return facts, training(lambda n: (step() for _ in range(n)))


# --------------------------------------------------------------------------------- the rows


def measure(settings: Settings) -> Result:
    """Against PyTorch, in the faster of its two memory formats."""
    given = {"pairs": settings.pairs}
    with sides(
        ("step:ours", given),
        ("step:in_torch", {**given, "channels_last": False}),
        ("step:in_torch", {**given, "channels_last": True}),
    ) as parts:
        checked = require_same(parts, "parameters", "images a step")
        checked += require_close(parts, "embeddings", 1e-4)
        replies = alternate(parts, settings)
        if settings.turn:
            checked += require_falling(replies)
    what = f"training step, {settings.pairs} pairs of 64x64 from memory"
    return in_two_formats(what, parts, replies, partial(rate, images=2 * settings.pairs), checked)


def measure_stock(settings: Settings) -> Result:
    """Against MLX as installed."""
    given = {"pairs": settings.pairs}
    with (
        side("step:ours", **given) as left,
        side("step:in_mlx", env={"FEWSHOT_RUNTIME": "stock"}, **given) as right,
    ):
        checked = require_same([left, right], "parameters", "images a step")
        checked += require_close([left, right], "embeddings", 1e-4)
        mine, theirs = alternate([left, right], settings)
        if settings.turn:
            checked += require_falling([mine, theirs])
        peer = right.facts["peer"]
    images = 2 * settings.pairs
    return Result(
        what=f"training step, {settings.pairs} pairs of 64x64 from memory",
        ours=rate(mine, images),
        peer=rate(theirs, images),
        against=peer,
        ratio=ratio("speed", seconds(theirs), seconds(mine)),
        checked=checked,
        figures={"ours": seconds(mine), "peer": seconds(theirs)},
    )


def rate(replies: list[dict[str, Any]], images: int) -> str:
    return f"{images / median(seconds(replies)):.0f} images/s"

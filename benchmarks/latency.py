"""One image in, its label out: the median of single calls, and how it grows with K."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from . import network
from .images import smooth_images
from .peers import need
from .settings import Settings
from .sides import (
    Result,
    alternate,
    beside,
    in_two_formats,
    ratio,
    require_same,
    seconds,
    sides,
)
from .worker import Turn

CLASSES, K_SHOT, PROBES = 29, 10, 29
LEAST = 20
NAMES = [f"class{c:02d}" for c in range(CLASSES)]

Predict = Callable[[NDArray[np.uint8]], object]


def _one_by_one(predict: Predict, images: NDArray[np.uint8]) -> Turn:
    """Turns that give the median of n single calls."""

    def turn(n: int) -> dict[str, Any]:
        times = []
        for i in range(n):
            image = images[i % len(images)][None]
            began = time.perf_counter()
            predict(image)
            times.append(time.perf_counter() - began)
        return {"each": median(times)}

    return turn


def _task() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """Support images, their labels, and probes."""
    images, labels = smooth_images(CLASSES, K_SHOT + 1)
    probe = np.arange(len(labels)) % (K_SHOT + 1) == K_SHOT
    return images[~probe], labels[~probe], images[probe]


def ours(engine: str) -> tuple[dict[str, Any], Turn]:
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    support, labels, probes = _task()
    of_class = {name: support[labels == c] for c, name in enumerate(NAMES)}
    head, metric = fs.nearest_prototype(), fs.euclidean()
    classifier = evolve(fs.Classifier.of(embedder, of_class, head, metric), engine=engine)
    predict = classifier.predict
    answers = [predict(probe)[0].best for probe in probes]
    facts = {"answers": answers, "least": LEAST, "engine": classifier.engine.used}
    return facts, _one_by_one(predict, probes)


def in_torch(channels_last: bool, compiled: bool = False) -> tuple[dict[str, Any], Turn]:
    """Prototypes computed beforehand, one image under inference_mode."""
    torch = need("torch")

    model, facts = network.in_torch_to_embed(channels_last, compiled)
    support, labels, probes = _task()

    def embed(images: NDArray[np.uint8]) -> Any:
        return torch.nn.functional.normalize(model(network.torch_batch(images, channels_last)))

    with torch.inference_mode():
        embedded = embed(support)
        prototypes = torch.stack([embedded[labels == c].mean(0) for c in range(CLASSES)])

    def predict(images: NDArray[np.uint8]) -> list[str]:
        with torch.inference_mode():
            nearest = torch.cdist(embed(images), prototypes).argmin(dim=1)
        return [NAMES[i] for i in nearest.tolist()]

    answers = [predict(probe[None])[0] for probe in probes]
    facts |= {"answers": answers, "least": LEAST}
    return facts, _one_by_one(predict, probes)


def measure(settings: Settings) -> Result:
    with sides(
        ("latency:ours", {"engine": "onnx"}),
        ("latency:in_torch", {"channels_last": False}),
        ("latency:in_torch", {"channels_last": True}),
        ("latency:in_torch", {"channels_last": False, "compiled": True}),
        ("latency:ours", {"engine": "mlx"}),
    ) as parts:
        require_same(parts, "answers")
        replies = alternate(parts, settings)
    what = (
        f"one image to its label, {CLASSES} classes, K = {K_SHOT}, nearest prototype, "
        f"engine {parts[0].facts['engine']}"
    )
    checked = (f"the same answers to {PROBES} images",)
    result = in_two_formats(what, parts, replies[:3], _milliseconds, checked)
    compiled = {"torch.compile": replies[3]} if parts[3].facts["compiled"] else {}
    others = {**compiled, "engine mlx": replies[4]}
    return evolve(
        result,
        note=beside(others, replies[0], _milliseconds),
        figures={**result.figures, **{name: seconds(own) for name, own in others.items()}},
    )


def _milliseconds(replies: list[dict[str, Any]]) -> str:
    return f"{1000 * median(seconds(replies)):.2f} ms"


# -------------------------------------------------------------------------- growth with K


def with_k(k_shot: int, head: str) -> tuple[dict[str, Any], Turn]:
    """The same with random embeddings as support."""
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    rng = np.random.default_rng(0)
    support = rng.standard_normal((CLASSES * k_shot, network.EMBEDDING)).astype(np.float32)
    support /= np.linalg.norm(support, axis=1, keepdims=True)
    labels = np.repeat(np.arange(CLASSES), k_shot)
    chosen = fs.nearest_prototype() if head == "nearest prototype" else fs.nearest_support()
    images, own, probes = _task()
    one_each = {name: images[own == c][:1] for c, name in enumerate(NAMES)}
    classifier = fs.Classifier.of(embedder, one_each, chosen, fs.euclidean())
    rows = np.broadcast_to(images[:1], (len(labels), *images.shape[1:]))
    names = [str(i) for i in range(len(labels))]
    classifier = evolve(classifier, support=fs.Support(rows, support, labels, names, names))
    return {"least": LEAST}, _one_by_one(partial(classifier.predict, nearest=0), probes)


def measure_growth(settings: Settings) -> Result:
    """Ours to ours: K = 1000 over K = 10."""
    few, many = 10, 1000
    heads = ("nearest prototype", "nearest support")
    wanted = [("latency:with_k", {"k_shot": k, "head": h}) for h in heads for k in (few, many)]
    with sides(*wanted) as parts:
        replies = alternate(parts, settings)
    other = ratio("time", seconds(replies[3]), seconds(replies[2]))
    return Result(
        what=f"one image to its label at K = {many} over K = {few}, {heads[0]}",
        ours=_milliseconds(replies[1]),
        peer=_milliseconds(replies[0]),
        against=f"the same at K = {few}",
        ratio=ratio("time", seconds(replies[1]), seconds(replies[0])),
        note=f"{heads[1]}: {_milliseconds(replies[3])} over {_milliseconds(replies[2])}, "
        f"{other.median:.2f} ({other.low:.2f}–{other.high:.2f})",
        figures={
            f"{head}, K = {k}": seconds(own)
            for (head, k), own in zip(
                [(h, k) for h in heads for k in (few, many)], replies, strict=True
            )
        },
    )

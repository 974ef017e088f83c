"""Evaluation: 5-way 5-shot episodes on given embeddings, sampling included."""

import itertools
import time
from statistics import mean, median
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from . import network
from .images import smooth_images
from .peers import need
from .settings import Settings
from .sides import Result, UnlikeError, alternate, fastest, ratio, require_same, seconds, sides
from .worker import Turn

CLASSES, PER_CLASS, DIMENSIONS = 20, 600, 128
N_WAY, K_SHOT, N_QUERY = 5, 5, 15
LEAST = 100
WORKERS = (0, 2)  # of the DataLoader


def clusters(
    classes: int = CLASSES, per_class: int = PER_CLASS, dimensions: int = DIMENSIONS
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Random embeddings about random centres, class after class; overlapping."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    centres = 0.2 * rng.standard_normal((classes, dimensions))
    embeddings = centres[labels] + rng.standard_normal((len(labels), dimensions))
    return embeddings.astype(np.float32), labels


def ours(
    head: str = "nearest-prototype", dimensions: int = DIMENSIONS
) -> tuple[dict[str, Any], Turn]:
    import fewshot as fs

    fs.prepare()
    from fewshot.catalogue.registry import make

    embeddings, labels = clusters(dimensions=dimensions)
    classes = [str(c) for c in range(CLASSES)]
    sampler = fs.episodes(fs.EpisodesOptions(n_way=N_WAY, k_shot=K_SHOT, n_query=N_QUERY), labels)
    entry = fs.build_registry()[0].get("head", head)
    answering = make(entry, entry.component.options(), embedding_dim=dimensions)
    metric = fs.euclidean()
    seeds = itertools.count()
    example = sampler.draw(0, 0)
    facts = {
        "support": len(example.support),
        "queries": len(example.query),
        "dimensions": embeddings.shape[1],
        "least": LEAST,
    }

    def turn(n: int) -> dict[str, Any]:
        began = time.perf_counter()
        result = fs.evaluate(embeddings, sampler.blocks(next(seeds), n), answering, metric, classes)
        took = time.perf_counter() - began
        return {"each": took / n, "accuracy": result.accuracy}

    return facts, turn


def in_easyfsl(
    workers: int, method: str = "PrototypicalNetworks", dimensions: int = DIMENSIONS
) -> tuple[dict[str, Any], Turn]:
    """Its way for embeddings that are there already: FeaturesDataset and no backbone."""
    torch = need("torch")
    need("easyfsl.utils")
    methods = need("easyfsl.methods")
    from easyfsl.datasets import FeaturesDataset

    embeddings, labels = clusters(dimensions=dimensions)
    features = torch.from_numpy(embeddings)
    if method == "RelationNetworks":  # of maps, here of one place
        features = features[..., None, None]
    data = FeaturesDataset(labels.tolist(), features, [*map(str, range(20))])
    least = LEAST if method == "PrototypicalNetworks" else LEAST // 10
    learned = _learned(method, dimensions)
    return _by_evaluate(getattr(methods, method)(**learned), data, workers, least)


def _learned(method: str, dimensions: int) -> dict[str, Any]:
    """What easyfsl's class of a learned head is made with, of the shapes of ours."""
    torch = need("torch")
    if method == "FEAT":
        attention = need("easyfsl.modules").MultiHeadAttention(1, *[dimensions] * 3)
        return {"attention_module": attention}
    if method == "RelationNetworks":
        layers = torch.nn
        hidden = layers.Linear(2 * dimensions, 128)
        module = layers.Sequential(layers.Flatten(), hidden, layers.ReLU(), layers.Linear(128, 1))
        return {"feature_dimension": dimensions, "relation_module": module}
    return {}


def in_easyfsl_on_images() -> tuple[dict[str, Any], Turn]:
    """The way of its notebook my_first_few_shot_classifier: images and a backbone.

    A DataLoader with its TaskSampler draws images, and the backbone embeds those of every episode
    anew. The images are in memory as tensors, so nothing is decoded.
    """
    need("torch")
    need("easyfsl.utils")
    from easyfsl.methods import PrototypicalNetworks

    images, labels = smooth_images(CLASSES, K_SHOT + N_QUERY)
    data = _WithLabels(network.torch_batch(images, False), labels.tolist())
    return _by_evaluate(PrototypicalNetworks(network.in_torch(False)), data, 0, 1)


@frozen
class _WithLabels:
    """What TaskSampler wants of a dataset."""

    images: Any
    labels: list[int]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)

    def get_labels(self) -> list[int]:
        return self.labels


def _by_evaluate(model: Any, data: Any, workers: int, least: int) -> tuple[dict[str, Any], Turn]:
    """Turns of easyfsl's `evaluate` over a DataLoader with its TaskSampler."""
    torch = need("torch")
    version = need("importlib.metadata").version
    from easyfsl.samplers import TaskSampler
    from easyfsl.utils import evaluate

    # easyfsl 1.5 hands PyTorch's Sampler an argument that newer ones no longer take.
    torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None
    sampler = TaskSampler(data, n_way=N_WAY, n_shot=K_SHOT, n_query=N_QUERY, n_tasks=1)
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn, num_workers=workers
    )
    (support, _, query, _, _), *_ = loader
    facts = {
        "peer": f"easyfsl {version('easyfsl')}, PyTorch {torch.__version__}",
        "support": len(support),
        "queries": len(query),
        "dimensions": support.shape[1],
        "least": least,
    }

    def turn(n: int) -> dict[str, Any]:
        sampler.n_tasks = n
        began = time.perf_counter()
        accuracy = evaluate(model, loader, device="cpu", use_tqdm=False)
        return {"each": (time.perf_counter() - began) / n, "accuracy": accuracy}

    return facts, turn


# Heads that easyfsl has as well, and which of its classes they are.
HEADS = {
    "bd-cspn": "BDCSPN",
    "laplacian-shot": "LaplacianShot",
    "pt-map": "PTMAP",
    "tim": "TIM",
    "transductive-finetune": "TransductiveFinetuning",
    "feat": "FEAT",
    "relation": "RelationNetworks",
}
LEARNED = ("feat", "relation")
WIDE = 640


def measure_head(settings: Settings, head: str) -> Result:
    """One head against easyfsl's of the same method; their options differ, and so do accuracies."""
    wanted = {"head": head, "dimensions": WIDE}
    theirs = {"workers": 0, "method": HEADS[head], "dimensions": WIDE}
    with sides(("episodes:ours", wanted), ("episodes:in_easyfsl", theirs)) as parts:
        checked = require_same(parts, "support", "queries", "dimensions")
        mine, peer = alternate(parts, settings)
        facts = parts[1].facts
    accuracies = [mean(reply["accuracy"] for reply in replies) for replies in (mine, peer)]
    own, other = seconds(mine), seconds(peer)
    return Result(
        what=f"the head {head} on {N_WAY}-way {K_SHOT}-shot {N_QUERY}-query episodes, {WIDE} "
        "numbers",
        ours=_a_second(own),
        peer=_a_second(other),
        against=f"{facts['peer']}, {HEADS[head]}",
        ratio=ratio("speed", other, own),
        note="random weights, of the same shapes"
        if head in LEARNED
        else f"accuracies {accuracies[0]:.3f} and {accuracies[1]:.3f}, each with its own defaults",
        checked=checked,
        figures={"ours": own, "easyfsl": other},
    )


def measure(settings: Settings) -> Result:
    """Against easyfsl, at the better number of its DataLoader's workers."""
    wanted = [("episodes:in_easyfsl", {"workers": workers}) for workers in WORKERS]
    with sides(("episodes:ours", {}), *wanted, ("episodes:in_easyfsl_on_images", {})) as parts:
        checked = require_same(parts[:-1], "support", "queries", "dimensions")
        mine, *peers, on_images = alternate(parts, settings)
        facts = parts[1].facts
    best = fastest(peers)
    theirs = peers[best]
    accuracies = [mean(reply["accuracy"] for reply in replies) for replies in (mine, theirs)]
    if settings.turn:
        if abs(accuracies[0] - accuracies[1]) > 0.03:
            raise UnlikeError(f"accuracies {accuracies} of the two sides")
        checked += (f"accuracies {accuracies[0]:.3f} and {accuracies[1]:.3f}",)
    own, other = seconds(mine), seconds(theirs)
    return Result(
        what=f"{N_WAY}-way {K_SHOT}-shot {N_QUERY}-query episodes on {DIMENSIONS}-d embeddings",
        ours=_a_second(own),
        peer=_a_second(other),
        against=f"{facts['peer']}, {WORKERS[best]} workers",
        ratio=ratio("speed", other, own),
        note="easyfsl as its notebook my_first_few_shot_classifier has it, 64x64 images and the "
        f"network of `embed` as the backbone: {_a_second(seconds(on_images))}, because it embeds "
        "the images of every episode anew; not in the ratio",
        checked=checked,
        figures={
            "ours": own,
            **{f"{w} workers": seconds(p) for w, p in zip(WORKERS, peers, strict=True)},
            "on images": seconds(on_images),
        },
    )


def _a_second(times: list[float]) -> str:
    rate = 1 / median(times)
    return f"{rate:,.0f} episodes/s" if rate >= 10 else f"{rate:.1f} episodes/s"

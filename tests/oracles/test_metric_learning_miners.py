"""Miners against pytorch-metric-learning; what differs: docs/explanation/oracles.md.

pip install -e '.[test,oracle]' && python -m pytest tests/oracles
"""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from metric_learning import (
    Array,
    HalfSquares,
    close,
    every,
    labels_of_others,
    table,
    torch,
)
from pytorch_metric_learning import miners

from fewshot.core.interfaces import Metric, Miner
from fewshot.parts.metrics import cosine, euclidean, unit
from fewshot.parts.miners import (
    BatchEasyHardOptions,
    MultiSimilarityPairsOptions,
    angular_triplets,
    batch_easy_hard,
    batch_hard,
    distance_weighted,
    hard_pairs,
    multi_similarity_pairs,
    semi_hard,
    uniform_pairs,
)
from fewshot.testing.batches import whole

pytestmark = pytest.mark.filterwarnings("default")


def mined(miner: Miner, x: Array, labels: Array, metric: Metric) -> tuple[Array, Array]:
    """Distances (b, b) in float32, and the mask by places in the batch."""
    assert miner.mask is not None
    u = unit(mx.array(x))
    found = miner.mask(table(u, metric), mx.array(labels), labels_of_others(labels))
    return np.array(metric.table(u, u)), whole(np.array(found))


def asked(miner: Any, x: Array, labels: Array) -> tuple[Array, ...]:
    u = torch.nn.functional.normalize(torch.tensor(x))
    return tuple(part.numpy() for part in miner(u, torch.tensor(labels)))


def placed(b: int, *places: Array) -> Array:
    found = np.zeros((b,) * len(places), bool)
    found[places] = True
    return found


def of_pairs(mask: Array, labels: Array) -> tuple[Array, Array]:
    same = labels[:, None] == labels
    return mask & same, mask & ~same


def tied(seed: int) -> bool:
    """Whether distances are equal but for rounding: of duplicates, and all from a zero vector."""
    return seed % 6 in (1, 2)


def several(x: Array) -> bool:
    return len(x) > 1


EASY_HARD = [(p, n) for p in ("easy", "hard") for n in ("easy", "semi-hard", "hard")]


@pytest.mark.parametrize(("positives", "negatives"), EASY_HARD)
def test_batch_easy_hard(positives: Any, negatives: Any) -> None:
    """Of several as far one is taken there, all here."""
    ours = batch_easy_hard(BatchEasyHardOptions(positives, negatives))
    theirs = miners.BatchEasyHardMiner(positives, negatives.replace("-", ""))
    for seed, (x, labels) in enumerate(every()):
        if not several(x) or (negatives == "semi-hard" and tied(seed)):
            continue
        distances, mask = mined(ours, x, labels, euclidean())
        anchor, near, other, far = asked(theirs, x, labels)
        b = len(labels)
        for found, due in zip(
            of_pairs(mask, labels), (placed(b, anchor, near), placed(b, other, far)), strict=True
        ):
            if tied(seed):
                assert np.array_equal(found.any(axis=1), due.any(axis=1))
                each = np.where(found, distances, 0).max(axis=1)
                assert close(each, np.where(due, distances, 0).max(axis=1))
            else:
                assert np.array_equal(found, due)


def test_batch_hard() -> None:
    """Images without a positive or a negative have half a triplet here, which nothing uses."""
    for seed, (x, labels) in enumerate(every()):
        if tied(seed) or not several(x):
            continue
        _, mask = mined(batch_hard(), x, labels, euclidean())
        near, far = of_pairs(mask, labels)
        due = placed(len(labels), *asked(miners.BatchHardMiner(), x, labels))
        assert np.array_equal(near[:, :, None] & far[:, None, :], due)


@pytest.mark.parametrize("name", ["semi-hard", "angular"])
def test_miners_of_triplets(name: str) -> None:
    ours, theirs, metric = {
        "semi-hard": (semi_hard(), miners.TripletMarginMiner(0.3, "semihard"), euclidean()),
        "angular": (angular_triplets(), miners.AngularMiner(), cosine()),
    }[name]
    for seed, (x, labels) in enumerate(every()):
        if several(x) and not tied(seed):
            _, mask = mined(ours, x, labels, metric)
            assert np.array_equal(mask, placed(len(labels), *asked(theirs, x, labels)))


@pytest.mark.parametrize("name", ["multi-similarity", "hard-pairs"])
def test_miners_of_pairs(name: str) -> None:
    options = MultiSimilarityPairsOptions(margin=0.1)
    ours, theirs, metric = {
        "multi-similarity": (
            multi_similarity_pairs(options),
            miners.MultiSimilarityMiner(0.1, distance=HalfSquares()),
            cosine(),
        ),
        "hard-pairs": (hard_pairs(), miners.PairMarginMiner(), euclidean()),
    }[name]
    for x, labels in every():
        if not several(x):
            continue
        _, mask = mined(ours, x, labels, metric)
        near, far = of_pairs(mask, labels)
        anchor, positive, other, negative = asked(theirs, x, labels)
        assert np.array_equal(near, placed(len(labels), anchor, positive))
        assert np.array_equal(far, placed(len(labels), other, negative))


def test_distance_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights are our chances: a negative for every positive, there for K of an image."""
    weights: list[Array] = []

    def caught(labels: Any, ref_labels: Any, weights: Any, into: Any = weights) -> Any:
        into.append(weights.nan_to_num(0).numpy())
        return (torch.zeros(0, dtype=torch.long),) * 3

    from pytorch_metric_learning.miners import distance_weighted_miner as module

    monkeypatch.setattr(module.lmu, "get_random_triplet_indices", caught)
    drawn = due = spread = 0.0
    for x, labels in every():
        if not several(x) or len(set(labels)) == 1 or x.shape[1] < 3:
            continue
        asked(miners.DistanceWeightedMiner(), x, labels)
        w = weights.pop()
        _, mask = mined(distance_weighted(embedding_dim=x.shape[1]), x, labels, cosine())
        anchor, _, far = np.nonzero(mask)
        assert (w[anchor, far] > 0).all()
        same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
        assert np.array_equal(mask.any(axis=2), same & (w.sum(axis=1) > 0)[:, None])
        for a, p in np.argwhere(mask.any(axis=2)):
            drawn += w[a, mask[a, p]].mean()
            due += (w[a] ** 2).sum()
            spread += (w[a] ** 3).sum() - (w[a] ** 2).sum() ** 2
    assert abs(drawn - due) < 4 * np.sqrt(spread)


def test_uniform() -> None:
    """A bin of few is taken whole here; there a bin has so many draws, with replacement."""
    theirs = miners.UniformHistogramMiner(20, 200, 200)
    for x, labels in every():
        if not several(x):
            continue
        distances, mask = mined(uniform_pairs(), x, labels, euclidean())
        if (distances[~np.eye(len(x), dtype=bool)].size) > 32:
            continue
        found = of_pairs(mask, labels)
        anchor, near, other, far = asked(theirs, x, labels)
        b = len(labels)
        assert not (placed(b, anchor, near) & ~found[0]).any()
        assert not (placed(b, other, far) & ~found[1]).any()
        assert mask.sum() == b * (b - 1)

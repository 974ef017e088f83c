"""The heads against easyfsl's, on 200 random batches each.

`pip install -e '.[oracle]' && python -m pytest tests/oracles` runs them; without easyfsl they are
skipped. Where its formula is another, the test says how, and brings it to ours.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from fewshot import Head, Metric
from fewshot.parts.heads.learned import feat
from fewshot.parts.heads.nearest import MatchingOptions, matching
from fewshot.parts.heads.prototypes import nearest_prototype
from fewshot.parts.heads.transductive import (
    BdCspnOptions,
    LaplacianShotOptions,
    PtMapOptions,
    TimOptions,
    TransductiveFinetuneOptions,
    bd_cspn,
    laplacian_shot,
    pt_map,
    tim,
    transductive_finetune,
)
from fewshot.parts.metrics import cosine, euclidean

pytest.importorskip("easyfsl")
import torch
from easyfsl import methods
from easyfsl.modules import MultiHeadAttention

BATCHES = 200
Task = tuple[Any, Any, Any, int]


def batch(seed: int, duplicates: bool = True, zeros: bool = True, unit: bool = False) -> Task:
    """5-way, 1 to 5 shots, 15 queries, 16 numbers; with duplicates and a vector of zeros."""
    rng = np.random.default_rng(seed)
    k_shot = int(rng.integers(1, 6))
    labels = rng.permutation(np.repeat(np.arange(5), k_shot))
    centres = rng.normal(size=(5, 16))
    support = centres[labels] + rng.normal(size=(len(labels), 16))
    query = centres[np.arange(15) % 5] + rng.normal(size=(15, 16))
    if duplicates:
        query[1], query[2] = query[0], support[0]
    if zeros:
        query[3] = 0
    if unit:
        support, query = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            for x in (support, query)
        )
    return support.astype("f4"), labels, query.astype("f4"), 5


def theirs(method: Any, task: Task, dtype: Any = torch.float32) -> Any:
    support, labels, query, _ = task
    method.process_support_set(torch.tensor(support, dtype=dtype), torch.tensor(labels))
    return method(torch.tensor(query, dtype=dtype)).detach().numpy()


def ours(head: Head, metric: Metric, task: Task) -> Any:
    support, labels, query, n_way = task
    return np.array(head(mx.array(support), mx.array(labels), mx.array(query), metric, n_way))


def agree(
    make: Callable[[], Any], head: Head, metric: Metric, change: Any = None, **tasks: bool
) -> None:
    """To 1e-5 of the largest score, on all batches."""
    for seed in range(BATCHES):
        task = batch(seed, **tasks)
        due, found = theirs(make(), task), ours(head, metric, task)
        found = found if change is None else change(found)
        assert np.allclose(due, found, rtol=1e-5, atol=2e-5 * np.abs(due).max()), seed


def test_prototypical_networks() -> None:
    """The same: minus the euclidean distance, not squared."""
    agree(methods.PrototypicalNetworks, nearest_prototype(), euclidean())


def test_simple_shot() -> None:
    """Theirs is a cosine, ours minus a distance: 1 less; and of a vector of zeros 0, ours 1/2."""
    agree(methods.SimpleShot, nearest_prototype(), cosine(), lambda x: 1 + x, zeros=False)


def test_bd_cspn() -> None:
    """Theirs fixes the temperature at 1, and compares queries that it has not moved, by cosine."""

    class Moved(methods.BDCSPN):  # type: ignore[misc]
        def forward(self, query_images: Any) -> Any:
            self.rectify_prototypes(query_images)
            moved = query_images + self.support_features.mean(0) - query_images.mean(0)
            return self.cosine_distance_to_prototypes(moved)

    agree(Moved, bd_cspn(BdCspnOptions(1.0)), cosine())


def test_matching_networks() -> None:
    """Theirs puts LSTMs before (here: none), and 1e-6 into the logarithm; cosines at temperature 1.

    It takes the query as long as it is, which on unit vectors is the cosine.
    """

    class Plain(methods.MatchingNetworks):  # type: ignore[misc]
        def encode_support_features(self, support_features: Any) -> Any:
            return support_features

        def encode_query_features(self, query_features: Any) -> Any:
            return query_features

    agree(
        lambda: Plain(feature_dimension=16),
        matching(MatchingOptions(1.0)),
        cosine(),
        lambda x: np.log(np.exp(x) + 1e-6),
        unit=True,
        zeros=False,
    )


def test_laplacian_shot() -> None:
    """Theirs compares queries that it has not moved, stops when the bound does, and takes its first
    neighbour for the query itself, so that its 3 are our 2 and duplicates confuse it. Of those
    equally far, as all are from a vector of zeros, it takes any, ours all.
    """

    class Moved(methods.LaplacianShot):  # type: ignore[misc]
        def compute_features(self, images: Any) -> Any:
            return images

        def forward(self, query_images: Any) -> Any:
            self.rectify_prototypes(query_images)
            moved = query_images + self.support_features.mean(0) - query_images.mean(0)
            return self.bound_updates(
                torch.cdist(moved, self.prototypes) ** 2, self.compute_pairwise_affinities(moved)
            )

        def compute_upper_bound(self, *_: Any) -> float:
            return float("nan")  # no early stop

    def softmax(x: Any) -> Any:
        return np.exp(x - x.max(1, keepdims=True)) / np.exp(x - x.max(1, keepdims=True)).sum(
            1, keepdims=True
        )

    head = laplacian_shot(LaplacianShotOptions(temperature=1.0))
    agree(Moved, head, euclidean(), softmax, duplicates=False, zeros=False, unit=True)


def test_tim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs takes the cosine where the paper has −½ squared distances, and Adam; ours momentum.

    The gradient of its entropies through PyTorch is then ours.
    """
    o = TimOptions(steps=5)

    class Paper(methods.TIM):  # type: ignore[misc]
        def cosine_distance_to_prototypes(self, samples: Any) -> Any:
            return -((samples[:, None] - self.prototypes) ** 2).sum(-1) / 2

    monkeypatch.setattr(
        torch.optim, "Adam", lambda parts, lr: torch.optim.SGD(parts, lr=lr, momentum=0.9)
    )

    def make() -> Any:
        return Paper(
            fine_tuning_steps=o.steps,
            fine_tuning_lr=o.rate,
            cross_entropy_weight=o.support,
            marginal_entropy_weight=o.marginal,
            conditional_entropy_weight=o.conditional,
            temperature=o.temperature,
        )

    for seed in range(BATCHES):
        task = batch(seed, unit=True)
        due, found = o.temperature * theirs(make(), task), ours(tim(o), euclidean(), task)
        assert np.allclose(due, found, rtol=1e-5, atol=5e-5), seed  # scores of up to 30


def test_transductive_finetuning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs takes unsquared distances, where ours has −½ squared ones as in `tim`, and Adam."""
    o = TransductiveFinetuneOptions(steps=5, conditional=1.0)  # it knows no other

    class Squared(methods.TransductiveFinetuning):  # type: ignore[misc]
        def l2_distance_to_prototypes(self, samples: Any) -> Any:
            return -((samples[:, None] - self.prototypes) ** 2).sum(-1) / 2

    monkeypatch.setattr(
        torch.optim, "Adam", lambda parts, lr: torch.optim.SGD(parts, lr=lr, momentum=0.9)
    )
    more = {"fine_tuning_steps": o.steps, "fine_tuning_lr": o.rate, "temperature": o.temperature}
    for seed in range(BATCHES):
        task = batch(seed, unit=True)
        due = o.temperature * theirs(Squared(**more), task)
        found = ours(transductive_finetune(o), euclidean(), task)
        assert np.allclose(due, found, rtol=1e-5, atol=5e-5), seed  # scores of up to 30


def test_pt_map() -> None:
    """Theirs centres nothing and cuts what is below 0; given the same features, and Sinkhorn's
    algorithm to its end in float64, the transport and its prototypes are ours.
    """

    def prepared(x: Any) -> Any:
        x = np.sign(x) * np.sqrt(np.abs(x.astype(np.float64)))
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        x = x - x.mean(axis=0)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    class Given(methods.PTMAP):  # type: ignore[misc]
        def compute_features(self, images: Any) -> Any:
            return images

    for seed in range(BATCHES):
        support, labels, query, n_way = task = batch(seed)
        method = Given(fine_tuning_steps=20, lambda_regularization=1.0)
        due = theirs(method, (prepared(support), labels, prepared(query), n_way), torch.float64)
        found = np.exp(ours(pt_map(PtMapOptions(sharpness=1.0)), euclidean(), task))
        assert np.allclose(due, found, atol=1e-4), seed  # ours has five rounds a move


def test_feat() -> None:
    """The same, given its weights; theirs is minus the euclidean distance."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(1, 16, 16, 16).eval()
    head = feat(embedding_dim=16)
    assert head.module is not None
    names = {"w_qs": "query", "w_ks": "key", "w_vs": "value", "fc": "out", "layer_norm": "norm"}
    weights = {
        ".".join([names[name.split(".")[0]], name.split(".")[1]]): mx.array(array.numpy())
        for name, array in attention.state_dict().items()
    }
    head.module.load_weights(list(weights.items()))
    agree(lambda: methods.FEAT(attention_module=attention), head, euclidean())

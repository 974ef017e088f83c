"""Losses against pytorch-metric-learning; what differs: docs/explanation/oracles.md.

pip install -e '.[test,oracle]' && python -m pytest tests/oracles
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from metric_learning import (
    BATCHES,
    Array,
    HalfSquares,
    batch,
    close,
    every,
    labels_of_others,
    table,
    torch,
)
from pytorch_metric_learning import losses

from fewshot.core.interfaces import Loss, Metric
from fewshot.parts.losses import batches, pairs, scores, triplets
from fewshot.parts.metrics import cosine, euclidean, sqeuclidean, unit

pytestmark = pytest.mark.filterwarnings("default")


def agree(
    ours: Callable[..., mx.array], theirs: Callable[..., Any], *inputs: Array, slopes: bool = True
) -> None:
    """Values, and gradients of a random sum of them by every input: rows that are 0 have none."""
    given = [torch.tensor(each.astype(np.float64), requires_grad=True) for each in inputs]
    due = theirs(*given)
    found = ours(*map(mx.array, inputs))
    assert close(np.array(found), due.detach().numpy()), (np.array(found), due)
    if not slopes or not due.requires_grad:
        return
    weights = np.random.default_rng(0).random(due.shape)
    (due * torch.tensor(weights)).sum().backward()
    places = list(range(len(inputs)))
    by = mx.grad(lambda *xs: (ours(*xs) * mx.array(weights.astype(np.float32))).sum(), places)
    slopes_found = by(*map(mx.array, inputs))
    found_by = slopes_found if len(places) > 1 else [slopes_found]
    for input, slope, other in zip(inputs, found_by, given, strict=True):
        there = np.zeros_like(input) if other.grad is None else other.grad.numpy()
        rows = (input != 0).any(axis=-1)
        assert close(np.array(slope)[rows], there[rows]), (np.array(slope), there)


# ------------------------------------------------------------------------ losses of batches


def of_batch(loss: Loss, labels: Array, metric: Metric) -> Callable[[mx.array], mx.array]:
    return lambda x: loss.fn(table(unit(x), metric), mx.array(labels), labels_of_others(labels))


def by_image(loss: Any, labels: Array, name: str = "loss") -> Callable[[Any], Any]:
    """Their values of every image: those of its pairs averaged; 0 where it has none."""
    y = torch.tensor(labels)

    def values(x: Any) -> Any:
        found = loss.compute_loss(x, y, None, x, y)[name]
        zeros = torch.zeros(len(y), dtype=x.dtype)
        if not torch.is_tensor(found["losses"]):
            return zeros
        each, at = found["losses"].flatten(), found["indices"]
        at = at[0] if isinstance(at, tuple) else at
        counts = torch.bincount(at, minlength=len(y)).clamp(min=1)
        return zeros.index_add(0, at, each) / counts

    return values


OF_BATCHES = {
    "supcon": (batches.supcon(), losses.SupConLoss(0.1, distance=HalfSquares()), cosine()),
    "nt-xent": (batches.nt_xent(), losses.NTXentLoss(0.1, distance=HalfSquares()), cosine()),
    "multi-similarity": (
        batches.multi_similarity(),
        losses.MultiSimilarityLoss(distance=HalfSquares()),
        cosine(),
    ),
    "circle": (batches.circle(), losses.CircleLoss(distance=HalfSquares()), cosine()),
    "lifted-structure": (batches.lifted_structure(), losses.LiftedStructureLoss(), euclidean()),
    "angular": (batches.angular(), losses.AngularLoss(), cosine()),
}


def has_zero(x: Array) -> bool:
    return bool((x == 0).all(axis=1).any())


def of_unit_vectors(values: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: values(torch.nn.functional.normalize(x))


@pytest.mark.parametrize("name", OF_BATCHES)
def test_losses_of_batches(name: str) -> None:
    ours, theirs, metric = OF_BATCHES[name]
    for x, labels in every():
        if name == "angular" and has_zero(x):
            continue  # of products, in which a zero vector's distance is 1
        if name == "supcon" and len(set(labels)) == 1:
            continue  # 0 there; here positives are told from each other, as equation 2 says
        due = by_image(theirs, labels)
        if name == "angular":  # negatives keep their lengths there
            due = of_unit_vectors(due)
        agree(of_batch(ours, labels, metric), due, x)


def test_n_pairs_of_anchors_against_positives() -> None:
    """There the negatives of an anchor are the positives of the other classes alone."""
    theirs = losses.NPairsLoss()  # of inner products
    for seed in range(BATCHES):
        (x, _), labels = batch(6 * (seed // 2) + seed % 2, 12), np.arange(12) // 2

        def ours(x: mx.array, y: Array = labels[::2]) -> mx.array:
            table = -unit(x[::2]) @ unit(x[1::2]).T
            return batches.n_pairs().fn(table, mx.array(y), mx.broadcast_to(mx.array(y), (6, 6)))

        def due(x: Any, y: Any = torch.tensor(labels)) -> Any:
            return theirs.compute_loss(x, y, None, x, y)["loss"]["losses"]

        agree(ours, of_unit_vectors(due), x)


def test_smooth_ap_of_as_many_classes_as_images_of_each() -> None:
    """There an image is among its own positives, and other numbers of classes are mixed up."""
    theirs = losses.SmoothAPLoss()
    labels = np.arange(9) // 3
    for seed in range(BATCHES):
        x, _ = batch(6 * (seed // 2) + seed % 2, 9)

        def ours(x: mx.array) -> mx.array:
            every = mx.broadcast_to(mx.array(labels), (9, 9))
            return batches.smooth_ap().fn(cosine().table(x, x), mx.array(labels), every)

        def due(x: Any, y: Any = torch.tensor(labels)) -> Any:
            return theirs.compute_loss(x, y, None, x, y)["ap_loss"]["losses"]

        agree(ours, due, x)


# ------------------------------------------------------------- losses of pairs and triplets


def gathered(x: mx.array, one: Any, other: Any) -> mx.array:
    u = unit(x)
    return euclidean().fn(u[mx.array(one.numpy())], u[mx.array(other.numpy())])


def count(labels: Array) -> tuple[int, int]:
    """Positive pairs, and triplets."""
    same = labels[:, None] == labels
    positives = same.sum(axis=1) - 1
    return int(positives.sum()), int((positives * (~same).sum(axis=1)).sum())


def test_contrastive() -> None:
    """Distances are not squared there, and pairs at 0 are left out of the mean."""
    theirs, ours = losses.ContrastiveLoss(), pairs.contrastive()
    for x, labels in every():
        y = torch.tensor(labels)
        for name, same in (("pos_loss", True), ("neg_loss", False)):
            entry = theirs.compute_loss(torch.tensor(x), y, None, torch.tensor(x), y)[name]
            if not torch.is_tensor(entry["losses"]):
                continue
            at = entry["indices"]

            def values(x: mx.array, at: Any = at, same: bool = same) -> mx.array:
                return ours.fn(gathered(x, *at), mx.full(len(at[0]), same))

            def due(x: Any, y: Any = y, name: str = name) -> Any:
                return theirs.compute_loss(x, y, None, x, y)[name]["losses"] ** 2

            agree(values, due, x)


def of_triplets(name: str, theirs: Any, ours: Callable[[mx.array, mx.array], mx.array]) -> None:
    for x, labels in every():
        y = torch.tensor(labels)
        entry = theirs.compute_loss(torch.tensor(x), y, None, torch.tensor(x), y)[name]
        if not torch.is_tensor(entry["losses"]):
            assert count(labels)[1] == 0
            continue
        anchor, near, far = entry["indices"]
        assert len(anchor) == count(labels)[1]

        def values(x: mx.array, a: Any = anchor, p: Any = near, n: Any = far) -> mx.array:
            return ours(gathered(x, a, p), gathered(x, a, n))

        agree(values, lambda x, y=y: theirs.compute_loss(x, y, None, x, y)[name]["losses"], x)


@pytest.mark.parametrize("smooth", [False, True])
def test_triplet(smooth: bool) -> None:
    ours = triplets.triplet(triplets.TripletOptions(0.3, "smooth" if smooth else "hinge"))
    of_triplets("loss", losses.TripletMarginLoss(margin=0.3, smooth_loss=smooth), ours.fn)


def test_margin() -> None:
    """There a pair counts once for every triplet that it is in."""
    loss = pairs.margin()

    def ours(near: mx.array, far: mx.array) -> mx.array:
        ones = mx.ones(len(near), mx.bool_)
        return loss.fn(near, ones) + loss.fn(far, ~ones)

    of_triplets("margin_loss", losses.MarginLoss(), ours)


# ------------------------------------------------------------------------ losses of proxies

CLASSES, CENTRES = 3, 4


def of_proxies(loss: Loss, labels: Array, metric: Metric) -> Callable[..., mx.array]:
    """As in training: labelled images against the proxies of their classes."""

    def values(x: mx.array, proxies: mx.array) -> mx.array:
        distances = metric.table(unit(x), unit(proxies)).reshape(len(x), CLASSES, -1)
        near = distances.min(axis=-1) if loss.centres is None else loss.centres(distances)
        return loss.fn(-near, mx.array(labels))

    return values


def by_query(loss: Any, labels: Array, weights: str, transposed: bool) -> Callable[..., Any]:
    y = torch.tensor(labels)

    def values(x: Any, proxies: Any) -> Any:
        del loss._parameters[weights]
        setattr(loss, weights, proxies.T if transposed else proxies)
        try:
            loss.cast_types = lambda *_: None
            return loss.compute_loss(x, y, None, x, y)
        finally:
            delattr(loss, weights)
            loss._parameters[weights] = None

    return values


def proxied(kind: Any, centres: int = 1, **options: Any) -> Callable[[int], Any]:
    def made(d: int) -> Any:
        distance = {} if kind is losses.ProxyNCALoss else {"distance": HalfSquares()}
        return kind(num_classes=CLASSES, embedding_size=d, **distance, **options)

    return made


# ours, theirs, their weights' name and whether transposed, centres, metric
OF_PROXIES: dict[str, tuple[Loss, Any, str, bool, int, Metric]] = {
    "normface": (
        *(scores.normface(), proxied(losses.NormalizedSoftmaxLoss), "W", True, 1, cosine()),
    ),
    "cosface": (*(scores.cosface(), proxied(losses.CosFaceLoss), "W", True, 1, cosine()),),
    "arcface": (
        scores.arcface(),
        proxied(losses.ArcFaceLoss, margin=np.degrees(0.5)),
        *("W", True, 1, cosine()),
    ),
    "sub-center-arcface": (
        scores.arcface(),
        proxied(losses.SubCenterArcFaceLoss, margin=np.degrees(0.5), sub_centers=CENTRES),
        *("W", True, CENTRES, cosine()),
    ),
    "soft-triple": (
        scores.soft_triple(),
        proxied(losses.SoftTripleLoss, centers_per_class=CENTRES),
        *("fc", True, CENTRES, cosine()),
    ),
    "proxy-nca": (
        *(scores.proxy_nca(), proxied(losses.ProxyNCALoss), "proxies", False, 1, sqeuclidean()),
    ),
    "proxy-anchor": (
        *(scores.proxy_anchor(), proxied(losses.ProxyAnchorLoss), "proxies", False, 1, cosine()),
    ),
}


@pytest.mark.parametrize("name", OF_PROXIES)
def test_losses_of_proxies(name: str) -> None:
    loss, make, weights, transposed, centres, metric = OF_PROXIES[name]
    for seed, (x, labels) in enumerate(every()):
        labels = labels % CLASSES
        proxies = np.random.default_rng(BATCHES + seed).normal(size=(CLASSES * centres, x.shape[1]))
        proxies = proxies.astype(np.float32)
        values = by_query(make(x.shape[1]), labels, weights, transposed)
        ours = of_proxies(loss, labels, metric)
        if "arcface" in name:  # beyond π the margin is taken from the cosine there
            near = np.array(of_proxies(evolve(loss, fn=lambda s, y: s), labels, metric)(
                mx.array(x), mx.array(proxies)
            ))  # fmt: skip
            kept = np.arccos(1 + near[np.arange(len(labels)), labels]) + 0.5 < np.pi
            if not kept.any():
                continue
            x, labels = x[kept], labels[kept]
            values = by_query(make(x.shape[1]), labels, weights, transposed)
            ours = of_proxies(loss, labels, metric)

        def due(x: Any, p: Any, values: Any = values) -> Any:
            found = values(x, p)
            if name == "proxy-anchor":  # two means over proxies
                total = sum(e["losses"].sum() / e["divisor"] for e in found.values())
                return total.expand(len(x))
            return found["loss"]["losses"]

        if name == "proxy-nca":  # the own class is in the sum there
            agree(lambda x, p, ours=ours: mx.logaddexp(ours(x, p), 0), due, x, proxies)
        else:
            agree(ours, due, x, proxies)


def test_arcface_at_the_own_proxy_has_a_gradient_here() -> None:
    x, labels = np.eye(3, 4, dtype=np.float32), np.arange(3)
    theirs = by_query(proxied(losses.ArcFaceLoss)(4), labels, "W", True)
    given = torch.tensor(x, requires_grad=True)
    theirs(given, torch.tensor(x))["loss"]["losses"].sum().backward()
    slopes = given.grad.abs()  # NaN or nothing, as the machine rounds the cosine
    assert (torch.isnan(slopes) | (slopes < 1e-20)).all()
    ours = of_proxies(scores.arcface(), labels, cosine())
    slope = mx.grad(lambda x, p: ours(x, p).sum())(mx.array(x), mx.array(x))
    assert np.isfinite(np.array(slope)).all()

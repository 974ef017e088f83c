"""Heads that look at all queries of a task before they answer one."""

import math

import mlx.core as mx
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import above, at_least, at_most, option, positive, within
from ..metrics import cosine, sqeuclidean, unit
from .prototypes import one_hot, prototypes


def _kept(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, ...]:
    """The whole support (…, s, d), its classes (…, s, n_way) and prototypes (…, n_way, d)."""
    labels = mx.broadcast_to(support_labels, support.shape[:-1])
    return support, one_hot(labels, n_way), prototypes(support, labels, n_way)


def _kept_unit(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, ...]:
    return _kept(unit(support), support_labels, metric, n_way)


@frozen
class BdCspnOptions:
    """Options of BD-CSPN."""

    temperature: float = option(
        0.1,
        "similarities are divided by it: less, and images near a prototype weigh more",
        above(0),
    )


def bd_cspn(options: BdCspnOptions = BdCspnOptions()) -> Head:
    """Nearest prototype, rectified by the queries (BD-CSPN, Liu, Song & Qin 2020).

    Queries are moved by the mean of the support less that of the queries (the cross-class bias).
    Each is then taken for the class whose prototype it is most similar to, by cosine;
    a class's new prototype is the mean of its support and of those queries, weighted by a softmax
    of their similarities over the temperature (the intra-class bias; here all queries
    take part). Scores: minus the distances to these. It takes as many queries of each
    class for granted, and one query alone says nothing.
    """

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        moved, means = _rectified(state, query, options.temperature)
        return -metric.table(moved, means)

    return Head(_kept, scores, differentiable=True, queries="together")


def _rectified(
    state: tuple[mx.array, ...], query: mx.array, temperature: float
) -> tuple[mx.array, mx.array]:
    """Moved queries and new prototypes of BD-CSPN."""
    support, of_class, means = state
    moved = query + (support.mean(axis=-2, keepdims=True) - query.mean(axis=-2, keepdims=True))
    taken_for = _cosines(moved, means).argmax(axis=-1)
    members = mx.concatenate([of_class, one_hot(taken_for, means.shape[-2])], axis=-2)
    rows = mx.concatenate([support, moved], axis=-2)
    similar = mx.where(members > 0, _cosines(rows, means) / temperature, -mx.inf)
    weights = mx.softmax(similar, axis=-2)
    return moved, weights.swapaxes(-1, -2) @ rows


def _cosines(x: mx.array, y: mx.array) -> mx.array:
    """(…, q, d), (…, p, d) -> (…, q, p); of a vector of zeros 1/2."""
    return 1 - cosine().table(x, y)


@frozen
class LaplacianShotOptions:
    """Options of LaplacianShot."""

    weight: float = option(0.7, "how much the nearest queries count", at_least(0.0))
    neighbours: int = option(2, "nearest queries that count", positive)
    steps: int = option(20, "rounds of assignments", positive)
    temperature: float = option(0.1, "that of bd-cspn, which makes the prototypes", above(0))


def laplacian_shot(options: LaplacianShotOptions = LaplacianShotOptions()) -> Head:
    """Nearest prototype, where queries near each other want the same class (Ziko et al. 2020).

    Of embeddings of length 1 and prototypes rectified as in `bd_cspn`: the assignments Y of queries
    are softmax(−a + λ W Y) (eq. 11), again and again, a the squared distances to prototypes and W
    1 from a query to each of its nearest others, of those equally far all. Scores: −a + λ W Y. The
    metric has no say.
    """

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        moved, means = _rectified(state, unit(query), options.temperature)
        near = _nearest_others(_squares(moved, moved), options.neighbours)
        alone = found = -_squares(moved, means)
        for _ in range(options.steps):
            found = alone + options.weight * (near @ mx.softmax(found, axis=-1))
        return found

    return Head(_kept_unit, scores, differentiable=False, queries="together")


_squares = sqeuclidean().table


def _nearest_others(squares: mx.array, k: int) -> mx.array:
    """(…, n, n) -> (…, n, n): 1 where a column is one of the k nearest others of a row, else 0."""
    n = squares.shape[-1]
    if n == 1:
        return mx.zeros_like(squares)
    others = squares + mx.where(mx.eye(n) > 0, mx.inf, 0.0)
    k = min(k, n - 1)
    last = mx.partition(others, k - 1, axis=-1)[..., k - 1 : k]
    return (others <= last).astype(mx.float32)


@frozen
class LabelPropagationOptions:
    """Options of label propagation."""

    alpha: float = option(
        0.7, "share of its neighbours' labels in an image's", within(at_least(0.0), at_most(0.999))
    )
    neighbours: int = option(20, "nearest images that count", positive)
    width: float = option(
        0.05,
        "squared width of the neighbourhood, as a share of the mean squared distance",
        above(0),
    )


def label_propagation(options: LabelPropagationOptions = LabelPropagationOptions()) -> Head:
    """Labels that flow from the support along near images (Zhou et al. 2003; Liu et al. 2019).

    F = (I − α S)⁻¹ Y, S = D^−½ W D^−½ (Liu et al., eq. 4), of support and queries at length 1.
    W is exp(−d²/2σ²) between an image and its nearest others, D its sums over rows, σ² a share of
    the mean d². Scores: F. The metric has no say.

    The inverse by Chebyshev's semi-iteration (Golub & Varga 1961), to 7 digits.
    """
    alpha = options.alpha
    rate = alpha / (1 + math.sqrt(1 - alpha * alpha))
    steps = math.ceil(math.log(1e-7) / math.log(rate)) if alpha else 0

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class, _ = state
        rows = mx.concatenate([support, unit(query)], axis=-2)
        squares = _squares(rows, rows)
        near = _nearest_others(squares, options.neighbours)
        mean = squares.mean(axis=(-1, -2), keepdims=True)
        width = options.width * mx.where(mean > 0, mean, 1.0)
        flow = mx.exp(-squares / width / 2) * mx.maximum(near, near.swapaxes(-1, -2))
        degrees = mx.sqrt(mx.maximum(flow.sum(axis=-1, keepdims=True), 1e-30))
        flow = alpha * flow / (degrees * degrees.swapaxes(-1, -2))
        none = mx.zeros((*query.shape[:-1], of_class.shape[-1]))
        labels = before = mx.concatenate([of_class, none], axis=-2)
        found, weight = labels + flow @ labels, 1 / (1 - alpha * alpha / 2)
        for _ in range(steps):
            before, found = found, before + weight * (labels + flow @ found - before)
            weight = 1 / (1 - alpha * alpha * weight / 4)
        return found[..., support.shape[-2] :, :]

    return Head(_kept_unit, scores, differentiable=False, queries="together")


def _halved_squares(gram: mx.array, shares: mx.array) -> mx.array:
    """(…, n, n), (…, n, m) -> (…, n, m): half the squared distances of n points to sums of them.

    `gram`: their products; `shares`: of each point in each sum.
    """
    products = gram @ shares
    own = mx.diagonal(gram, axis1=-2, axis2=-1)[..., None]
    return own / 2 + (shares * products).sum(axis=-2, keepdims=True) / 2 - products


def _mean_shares(of_class: mx.array, q: int) -> mx.array:
    """(…, s, n_way) -> (…, s + q, n_way): the share of support and queries in each prototype."""
    *lead, _, n_way = of_class.shape
    shares = of_class / of_class.sum(axis=-2, keepdims=True)
    return mx.concatenate([shares, mx.zeros((*lead, q, n_way))], axis=-2)


@frozen
class TimOptions:
    """Options of transductive information maximisation."""

    support: float = option(1.0, "weight of the support's cross-entropy", at_least(0.0))
    marginal: float = option(1.0, "weight of the entropy of the queries' shares", at_least(0.0))
    conditional: float = option(0.1, "weight of the entropy of each query", at_least(0.0))
    temperature: float = option(15.0, "half the squared distances are multiplied by it", above(0))
    steps: int = option(30, "steps of gradient descent", positive)
    rate: float = option(0.005, "length of these steps", above(0))


def tim(options: TimOptions = TimOptions()) -> Head:
    """Nearest prototype, moved so that queries tell most about classes (TIM, Boudiaf et al. 2020).

    Prototypes of embeddings of length 1 descend, from the class means, λ CE − Ĥ(Y) + α Ĥ(Y|X)
    (eq. 3): the cross-entropy of the support, the entropy of the mean of the queries' p and the
    mean of their entropies, p the softmax of −τ/2 times the squared distances (eq. 1), which are
    the scores. The metric has no say. It takes as many queries of each class for granted.

    Descent is by gradient with momentum (there: Adam), in the coordinates of support and queries.
    """
    return _informed(options, 1.0)


@frozen
class AlphaTimOptions:
    """Options of α-TIM."""

    alpha: float = option(
        2.0, "that of the entropies: more, and the queries' shares may be less even", above(1)
    )
    support: float = option(1.0, "weight of the support's cross-entropy", at_least(0.0))
    marginal: float = option(1.0, "weight of the entropy of the queries' shares", at_least(0.0))
    conditional: float = option(1.0, "weight of the entropy of each query", at_least(0.0))
    temperature: float = option(15.0, "half the squared distances are multiplied by it", above(0))
    steps: int = option(30, "steps of gradient descent", positive)
    rate: float = option(0.005, "length of these steps", above(0))


def alpha_tim(options: AlphaTimOptions = AlphaTimOptions()) -> Head:
    """`tim` for as many queries of each class as there happen to be (Veilleux et al. 2021).

    Its two entropies are those of Tsallis, (1 − Σ p^α) / (α − 1) (there eq. 4 and 6), which
    ask less for even shares; the cross-entropy is Shannon's, as in the authors' experiments.
    """
    return _informed(options, options.alpha)


@frozen
class TransductiveFinetuneOptions:
    """Options of transductive fine-tuning."""

    conditional: float = option(1.0, "weight of the entropy of each query", at_least(0.0))
    temperature: float = option(15.0, "half the squared distances are multiplied by it", above(0))
    steps: int = option(25, "steps of gradient descent", positive)
    rate: float = option(0.005, "length of these steps", above(0))


def transductive_finetune(
    options: TransductiveFinetuneOptions = TransductiveFinetuneOptions(),
) -> Head:
    """Nearest prototype, moved until the queries are sure of their class (Dhillon et al. 2020).

    Prototypes of embeddings of length 1 descend, from the class means, the mean cross-entropy of
    the support plus the mean entropy of the queries' p (eq. 8), p as in `tim`, of which this is the
    case without the term of even shares. The original descends by the whole network, here frozen:
    a head sees embeddings, and an adapter no query. The metric has no say.
    """
    return _informed(
        TimOptions(
            marginal=0.0,
            conditional=options.conditional,
            temperature=options.temperature,
            steps=options.steps,
            rate=options.rate,
        ),
        1.0,
    )


def _informed(options: TimOptions | AlphaTimOptions, alpha: float) -> Head:
    temperature = options.temperature

    def rise(p: mx.array) -> mx.array:
        """The derivative of the entropy by p, but for a constant: p sums to 1, whatever it adds."""
        return -mx.log(p + 1e-12) if alpha == 1 else alpha / (1 - alpha) * mx.power(p, alpha - 1)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class, _ = state
        s, q = support.shape[-2], query.shape[-2]
        rows = mx.concatenate([support, unit(query)], axis=-2)
        gram, shares = rows @ rows.swapaxes(-1, -2), _mean_shares(of_class, q)
        speed = mx.zeros_like(shares)
        for _ in range(options.steps):
            every = mx.softmax(-temperature * _halved_squares(gram, shares), axis=-1)
            p = every[..., s:, :]
            even = options.marginal * rise(p.mean(axis=-2, keepdims=True))
            pull = p * (options.conditional * rise(p) - even) / q
            pull = pull - p * pull.sum(axis=-1, keepdims=True)
            wrong = options.support / s * (every[..., :s, :] - of_class)
            slopes = mx.concatenate([wrong, pull], axis=-2)  # by the logits
            push = slopes - slopes.sum(axis=-2, keepdims=True) * shares
            speed = 0.9 * speed - options.rate * temperature * push
            shares = shares + speed
        means = shares.swapaxes(-1, -2) @ rows
        return -temperature / 2 * _squares(rows[..., s:, :], means)

    return Head(_kept_unit, scores, differentiable=False, queries="together")


@frozen
class PtMapOptions:
    """Options of PT-MAP."""

    power: float = option(
        0.5,
        "numbers of an embedding are raised to it, with their sign",
        within(above(0), at_most(1)),
    )
    sharpness: float = option(10.0, "squared distances are multiplied by it", above(0))
    rate: float = option(
        0.2, "how far prototypes go to their new place", within(above(0), at_most(1))
    )
    steps: int = option(20, "times that prototypes move", positive)


def pt_map(options: PtMapOptions = PtMapOptions()) -> Head:
    """Queries shared out among the classes evenly, by optimal transport (PT-MAP, Hu et al. 2021).

    Of embeddings whose numbers are raised to a power (eq. 1), of length 1, centred (support and
    queries each) and of length 1 again. P = argmin Σ P d² − H(P)/λ with rows of 1 and columns
    of q / n_way (eq. 3), by Sinkhorn's algorithm; prototypes then go a part of the way to the mean
    of the support and the queries, these weighted by P (eq. 4 and 5). Scores: log P. The metric has
    no say. It takes as many queries of each class for granted: where they are not, it is wrong.
    """

    def prepared(x: mx.array) -> mx.array:
        x = unit(mx.sign(x) * mx.power(mx.abs(x), options.power))
        return unit(x - x.mean(axis=-2, keepdims=True))

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        return _kept(prepared(support), support_labels, metric, n_way)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class, _ = state
        s, (*lead, q, _) = support.shape[-2], query.shape
        n_way = of_class.shape[-1]
        points = mx.concatenate([support, prepared(query)], axis=-2)
        gram, shares = points @ points.swapaxes(-1, -2), _mean_shares(of_class, q)
        columns = mx.ones((*lead, n_way, 1))

        def shared(columns: mx.array) -> tuple[mx.array, mx.array]:
            """Log P, and the factors of its columns, from which the next one sets out."""
            costs = -2 * options.sharpness * _halved_squares(gram, shares)[..., s:, :]
            costs = costs - costs.max(axis=-1, keepdims=True)
            kernel = mx.exp(costs)
            for _ in range(_SINKHORN):
                rows = 1 / (kernel @ columns)
                columns = q / n_way / (kernel.swapaxes(-1, -2) @ rows)
            rows = 1 / (kernel @ columns)
            return costs + mx.log(rows) + mx.log(columns).swapaxes(-1, -2), columns

        for _ in range(options.steps):
            found, columns = shared(columns)
            weights = mx.concatenate([of_class, mx.exp(found)], axis=-2)
            new = weights / weights.sum(axis=-2, keepdims=True)
            shares = shares + options.rate * (new - shares)
        return shared(columns)[0]

    return Head(fit, scores, differentiable=False, queries="together")


# Rounds of Sinkhorn's algorithm for each move of the prototypes; each sets out from the last.
_SINKHORN = 5


COMPONENTS = (
    Component(
        "bd-cspn",
        bd_cspn,
        BdCspnOptions,
        "minus the distance to class means that the queries rectify; asks all queries together",
    ),
    Component(
        "tim",
        tim,
        TimOptions,
        "class means moved so that queries tell most about classes; for as many queries of each",
    ),
    Component(
        "alpha-tim",
        alpha_tim,
        AlphaTimOptions,
        "class means moved so that queries tell most about classes; for any number of each",
    ),
    Component(
        "transductive-finetune",
        transductive_finetune,
        TransductiveFinetuneOptions,
        "class means moved until the queries are sure of their class; the network stays frozen",
    ),
    Component(
        "laplacian-shot",
        laplacian_shot,
        LaplacianShotOptions,
        "rectified class means, and queries near each other want the same class",
    ),
    Component(
        "pt-map",
        pt_map,
        PtMapOptions,
        "all queries shared out evenly by optimal transport; for as many queries of each class",
    ),
    Component(
        "label-propagation",
        label_propagation,
        LabelPropagationOptions,
        "labels that flow from the support along near images, all queries together",
    ),
)

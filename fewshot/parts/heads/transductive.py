"""Heads that look at all queries of a task before they answer one."""

import math
from collections.abc import Callable

import mlx.core as mx
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import above, at_least, at_most, option, positive, within
from ..metrics import squared_lengths, unit
from .products import (
    ROUNDING,
    ZERO,
    inverse_lengths,
    moved_products,
    nearness,
    products_of,
    squared_distances,
    unit_products,
)

# Everything about classes is (…, n_way, n), images last: sums over few classes then run along rows
# of many images, which is what a CPU does fastest.


def _kept(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, mx.array]:
    """The whole support (…, s, d) and its classes (…, n_way, s), 1 or 0."""
    labels = mx.broadcast_to(support_labels, support.shape[:-1])
    return support, (labels[..., None, :] == mx.arange(n_way)[:, None]).astype(mx.float32)


def _exp(x: mx.array) -> mx.array:
    """As a power, which on a CPU takes less than half the time of MLX's own."""
    return mx.power(math.e, x)


def _softmax(logits: mx.array) -> mx.array:
    """Over the classes of (…, n_way, n)."""
    powers = _exp(logits - logits.max(axis=-2, keepdims=True))
    return powers / powers.sum(axis=-2, keepdims=True)


def _mean(x: mx.array) -> mx.array:
    """(…, n, d) -> (…, 1, d), as a product, which on a CPU takes half the time of MLX's own."""
    n = x.shape[-2]
    return mx.full((1, n), 1 / max(1, n)) @ x


@frozen
class BdCspnOptions:
    """Options of BD-CSPN."""

    temperature: float = option(
        0.1,
        "similarities are divided by it: less, and images near a prototype weigh more",
        above(0),
    )


def bd_cspn(options: BdCspnOptions = BdCspnOptions()) -> Head:
    """Cosine to the nearest prototype, rectified by the queries (BD-CSPN, Liu, Song & Qin 2020).

    Queries are moved by ξ, the mean of the support less that of the queries (the cross-class bias).
    Each is then taken for the class whose prototype p it is most similar to, by cosine; a class's
    new prototype is p' = Σ wₓ x of its support and those queries, w = softmax(cos(x, p) / T) (the
    intra-class bias; here all queries take part). Scores: the cosines to these; the metric has no
    say. It takes as many queries of each class for granted, and one query alone says nothing.
    """

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class = state
        s = support.shape[-2]
        move = _mean(support) - _mean(query)
        # Of moved queries products alone: each pass over them costs as much as all small steps.
        rows = mx.concatenate([of_class @ support, move], axis=-2)
        moved = rows @ query.swapaxes(-1, -2) + rows @ move.swapaxes(-1, -2)
        sums, along, own = moved[..., :-1, :], moved[..., -1:, :], squared_lengths(move)
        squares = squared_lengths(query).swapaxes(-1, -2) + 2 * along - own
        weights = _rectified(
            mx.concatenate([rows[..., :-1, :] @ support.swapaxes(-1, -2), sums], axis=-1),
            mx.concatenate([squared_lengths(support).swapaxes(-1, -2), squares], axis=-1),
            of_class,
            options.temperature,
        )
        known, asked = mx.split(weights, [s], axis=-1)
        new = known @ support + asked @ query + asked.sum(axis=-1, keepdims=True) * move
        products = new @ query.swapaxes(-1, -2) + new @ move.swapaxes(-1, -2)
        found = products * inverse_lengths(squared_lengths(new)) * inverse_lengths(squares)
        return found.swapaxes(-1, -2)

    return Head(_kept, scores, differentiable=True, queries="together")


def _rectified(
    products: mx.array,
    squares: mx.array,
    of_class: mx.array,
    temperature: float,
    least: float = ZERO,
) -> mx.array:
    """The weights (…, n_way, n) of the support and moved queries in BD-CSPN's new prototypes.

    Of the products (…, n_way, n) of the sums of each class's support with them, and of their
    squared lengths (…, 1, n).
    """
    s, n_way = of_class.shape[-1], of_class.shape[-2]
    own = (products[..., :s] * of_class).sum(axis=-1, keepdims=True)
    similar = products * inverse_lengths(own, least) * inverse_lengths(squares, least)
    taken_for = similar[..., s:].argmax(axis=-2)[..., None, :] == mx.arange(n_way)[:, None]
    members = mx.concatenate([of_class > 0, taken_for], axis=-1)
    return mx.softmax(mx.where(members, similar / temperature, -mx.inf), axis=-1)


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
        support, of_class = state
        s, q = support.shape[-2], query.shape[-2]
        asked = (mx.arange(s + q) >= s)[None].astype(mx.float32)
        bias = (1 - asked) / s - asked / q  # by which queries are moved
        gram = moved_products(unit_products(products_of(support, query)), asked, bias)
        squares = mx.diagonal(gram, axis1=-2, axis2=-1)[..., None, :]
        products = of_class @ gram[..., :s, :]
        weights = _rectified(products, squares, of_class, options.temperature, ROUNDING)
        alone = 2 * nearness(weights @ gram, weights)[..., s:] - squares[..., s:]
        near = _nearest_others(squared_distances(gram[..., s:, s:]), options.neighbours).swapaxes(
            -1, -2
        )
        near, found = options.weight * near, alone
        for _ in range(options.steps):
            found = mx.addmm(alone, _softmax(found), near)
        return found.swapaxes(-1, -2)

    return Head(_kept, scores, differentiable=False, queries="together")


_FAR = 1e30  # added to a distance, a third of the time of `where`


def _nearest_others(squares: mx.array, k: int) -> mx.array:
    """(…, n, n) -> (…, n, n): 1 where a column is one of the k nearest others of a row, else 0."""
    n = squares.shape[-1]
    if n == 1:
        return mx.zeros_like(squares)
    others = squares + mx.where(mx.eye(n) > 0, mx.inf, 0.0)
    k = min(k, n - 1)
    if k <= 3:  # faster than a partition
        last = others.min(axis=-1, keepdims=True)
        for _ in range(k - 1):
            # As many as are equally far count; the next is looked for among those farther.
            nearer = others <= last
            beyond = (others + _FAR * nearer).min(axis=-1, keepdims=True)
            last = mx.where(nearer.sum(axis=-1, keepdims=True) < k, beyond, last)
    else:
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
        support, of_class = state
        squares = squared_distances(unit_products(products_of(support, query)))
        near = _nearest_others(squares, options.neighbours)
        mean = squares.mean(axis=(-1, -2), keepdims=True)
        width = options.width * mx.where(mean > 0, mean, 1.0)
        flow = _exp(squares * (-0.5 / width)) * mx.maximum(near, near.swapaxes(-1, -2))
        inverse = mx.rsqrt(mx.maximum(flow.sum(axis=-1, keepdims=True), 1e-30))
        flow = flow * (alpha * inverse) * inverse.swapaxes(-1, -2)
        none = mx.zeros((*of_class.shape[:-1], query.shape[-2]))
        labels = before = mx.concatenate([of_class, none], axis=-1)
        found, weight = labels + labels @ flow, 1 / (1 - alpha * alpha / 2)
        for _ in range(steps):
            before, found = found, before + weight * (labels + found @ flow - before)
            weight = 1 / (1 - alpha * alpha * weight / 4)
        return found[..., support.shape[-2] :].swapaxes(-1, -2)

    return Head(_kept, scores, differentiable=False, queries="together")


def _mean_shares(of_class: mx.array, q: int) -> mx.array:
    """(…, n_way, s) -> (…, n_way, s + q): the share of support and queries in each prototype."""
    shares = of_class / of_class.sum(axis=-1, keepdims=True)
    return mx.concatenate([shares, mx.zeros((*of_class.shape[:-1], q))], axis=-1)


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
    the scores. The metric has no say. It assumes equally many queries of each class.

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

    conditional: float = option(
        0.03,
        "weight of the entropy of each query: more, and hard queries are drawn into one class",
        at_least(0.0),
    )
    temperature: float = option(15.0, "half the squared distances are multiplied by it", above(0))
    steps: int = option(25, "steps of gradient descent", positive)
    rate: float = option(0.002, "length of these steps", above(0))


def transductive_finetune(
    options: TransductiveFinetuneOptions = TransductiveFinetuneOptions(),
) -> Head:
    """Nearest prototype, moved until the queries are sure of their class (Dhillon et al. 2020).

    Prototypes of embeddings of length 1 descend, from the class means, the mean cross-entropy of
    the support plus the weighted mean entropy of the queries' p (eq. 8, weight 1), p as in `tim`,
    of which this is the case without the term of even shares. With nothing to keep classes apart,
    weight 1 took 18 points from 5-way 1-shot on photos; the default takes none. The original
    descends by the whole network, here frozen: a head sees embeddings, and an adapter no query. The
    metric has no say.
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
    # The derivative of an entropy by p is this times log p or p^(α−1), but for a constant, which
    # does not count where all p sum to 1.
    factor = -1.0 if alpha == 1 else alpha / (1 - alpha)

    def rise(p: mx.array, log: mx.array) -> mx.array:
        return log if alpha == 1 else p if alpha == 2 else mx.power(p, alpha - 1)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class = state
        s, q = support.shape[-2], query.shape[-2]
        shares = _mean_shares(of_class, q)
        near, own = _nearness_of(support, query, temperature)
        # All queries and the support at once, each with its weight in a step.
        step = options.rate * temperature
        asked = (mx.arange(s + q) >= s) / q
        known = step * options.support / s * (mx.arange(s + q) < s)
        due = known * mx.concatenate([of_class, mx.zeros((*of_class.shape[:-1], q))], axis=-1)
        speed = mx.zeros_like(shares)
        for _ in range(options.steps):
            logits = near(shares)
            p = _softmax(logits)
            pull = options.conditional * rise(p, logits)
            if options.marginal:
                mean = p @ asked[:, None]
                pull = pull - options.marginal * rise(mean, mx.log(mean + 1e-12))
            pull = (pull - (p * pull).sum(axis=-2, keepdims=True)) * (step * factor * asked)
            slopes = p * (pull + known) - due  # by the logits
            speed = 0.9 * speed - (slopes - slopes.sum(axis=-1, keepdims=True) * shares)
            shares = shares + speed
        return (near(shares)[..., s:] - own).swapaxes(-1, -2)

    return Head(_kept, scores, differentiable=False, queries="together")


def _nearness_of(
    support: mx.array, query: mx.array, temperature: float
) -> tuple[Callable[[mx.array], mx.array], mx.array]:
    """`nearness` of unit vectors to sums of these, and τ/2 |q|² of queries, all times τ.

    By products of all with all, or, where images are many, by the vectors.
    """
    s, n = support.shape[-2], support.shape[-2] + query.shape[-2]
    if n <= 2 * support.shape[-1]:
        gram = temperature * unit_products(products_of(support, query))
        own = mx.diagonal(gram, axis1=-2, axis2=-1)[..., None, s:] / 2
        return lambda shares: nearness(shares @ gram, shares), own
    rows = unit(mx.concatenate([support, query], axis=-2))
    columns = temperature * rows.swapaxes(-1, -2)
    own = temperature / 2 * squared_lengths(rows[..., s:, :]).swapaxes(-1, -2)
    return lambda shares: nearness((shares @ rows) @ columns, shares), own


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
    no say. It assumes equally many queries of each class: where they are not, it is wrong.
    """

    def raised(x: mx.array) -> mx.array:
        size = mx.abs(x)
        size = mx.sqrt(size) if options.power == 0.5 else mx.power(size, options.power)
        return mx.sign(x) * size

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        return _kept(raised(support), support_labels, metric, n_way)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class = state
        s, q, n_way = support.shape[-2], query.shape[-2], of_class.shape[-2]
        gram = unit_products(products_of(support, raised(query)))
        asked = mx.arange(s + q) >= s
        parts = mx.stack([~asked, asked]).astype(mx.float32)
        means = parts / parts.sum(axis=1, keepdims=True)
        gram = unit_products(moved_products(gram, parts, -means), ROUNDING)
        gram = 2 * options.sharpness * gram
        shares = _mean_shares(of_class, q)
        columns = mx.ones((*of_class.shape[:-1], 1))

        def shared(columns: mx.array) -> tuple[mx.array, mx.array, mx.array]:
            """P (…, n_way, q), its logarithm, and the factors of its classes, to set out from."""
            near = nearness(shares @ gram, shares)
            near = (near - near.max(axis=-2, keepdims=True))[..., s:]  # slower of a part of rows
            kernel = _exp(near)
            for _ in range(_SINKHORN):
                rows = 1 / (columns.swapaxes(-1, -2) @ kernel)
                columns = q / n_way / (kernel @ rows.swapaxes(-1, -2))
            found = kernel * columns
            sums = found.sum(axis=-2, keepdims=True)
            return found / sums, near + mx.log(columns) - mx.log(sums), columns

        for _ in range(options.steps):
            p, _, columns = shared(columns)
            weights = mx.concatenate([of_class, p], axis=-1)
            step = options.rate / weights.sum(axis=-1, keepdims=True)
            shares = (1 - options.rate) * shares + step * weights
        return shared(columns)[1].swapaxes(-1, -2)

    return Head(fit, scores, differentiable=False, queries="together")


# Rounds of Sinkhorn's algorithm for each move of the prototypes; each sets out from the last.
_SINKHORN = 5


COMPONENTS = (
    Component(
        "bd-cspn",
        bd_cspn,
        BdCspnOptions,
        "cosines to class means that the queries rectify; asks all queries together",
    ),
    Component(
        "tim",
        tim,
        TimOptions,
        "class means moved so that queries tell most about classes; for equally many of each class",
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
        "all queries shared out evenly by optimal transport; for equally many of each class",
    ),
    Component(
        "label-propagation",
        label_propagation,
        LabelPropagationOptions,
        "labels that flow from the support along near images, all queries together",
    ),
)

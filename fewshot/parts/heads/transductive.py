"""Heads that look at all queries of a task before they answer one."""

import math

import mlx.core as mx
from attrs import frozen

from ...core.components import Component
from ...core.interfaces import Head, Metric
from ...core.options import above, at_least, at_most, option, positive, within
from ..metrics import sqeuclidean, unit

# Everything about classes is (…, n_way, n), images last: sums over few classes then run along rows
# of many images, which is what a CPU does fastest.


def _kept(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, mx.array]:
    """The whole support (…, s, d) and its classes (…, n_way, s), 1 or 0."""
    labels = mx.broadcast_to(support_labels, support.shape[:-1])
    return support, (labels[..., None, :] == mx.arange(n_way)[:, None]).astype(mx.float32)


def _kept_unit(
    support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
) -> tuple[mx.array, mx.array]:
    return _kept(unit(support), support_labels, metric, n_way)


def _log_softmax(logits: mx.array) -> tuple[mx.array, mx.array]:
    """Softmax over the classes of (…, n_way, n), and its logarithm."""
    logits = logits - logits.max(axis=-2, keepdims=True)
    powers = mx.exp(logits)
    sums = powers.sum(axis=-2, keepdims=True)
    return powers / sums, logits - mx.log(sums)


def _softmax(logits: mx.array) -> mx.array:
    powers = mx.exp(logits - logits.max(axis=-2, keepdims=True))
    return powers / powers.sum(axis=-2, keepdims=True)


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
    support, of_class = state
    s, n_way = of_class.shape[-1], of_class.shape[-2]
    means = unit(of_class @ support)  # their length is of no account
    moved = query + (support.mean(axis=-2, keepdims=True) - query.mean(axis=-2, keepdims=True))
    rows = mx.concatenate([support, moved], axis=-2)
    similar = means @ unit(rows).swapaxes(-1, -2)
    taken_for = similar[..., s:].argmax(axis=-2)[..., None, :] == mx.arange(n_way)[:, None]
    members = mx.concatenate([of_class > 0, taken_for], axis=-1)
    weights = mx.softmax(mx.where(members, similar / temperature, -mx.inf), axis=-1)
    return moved, weights @ rows


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
        near = _nearest_others(_squares_among(moved), options.neighbours).swapaxes(-1, -2)
        alone = found = -_squares(means, moved)
        for _ in range(options.steps):
            found = alone + options.weight * (_softmax(found) @ near)
        return found.swapaxes(-1, -2)

    return Head(_kept_unit, scores, differentiable=False, queries="together")


_squares = sqeuclidean().table


def _squares_among(rows: mx.array) -> mx.array:
    """Squared distances (…, n, n) among rows (…, n, d) of about length 1."""
    gram = rows @ rows.swapaxes(-1, -2)
    own = mx.diagonal(gram, axis1=-2, axis2=-1)
    return mx.maximum(own[..., None] + own[..., None, :] - 2 * gram, 0)


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
            seen = (others <= last).sum(axis=-1, keepdims=True)
            beyond = mx.where(others > last, others, mx.inf).min(axis=-1, keepdims=True)
            last = mx.where(seen < k, beyond, last)
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
        rows = mx.concatenate([support, unit(query)], axis=-2)
        squares = _squares_among(rows)
        near = _nearest_others(squares, options.neighbours)
        mean = squares.mean(axis=(-1, -2), keepdims=True)
        width = options.width * mx.where(mean > 0, mean, 1.0)
        flow = mx.exp(squares * (-0.5 / width)) * mx.maximum(near, near.swapaxes(-1, -2))
        inverse = mx.rsqrt(mx.maximum(flow.sum(axis=-1, keepdims=True), 1e-30))
        flow = flow * (alpha * inverse) * inverse.swapaxes(-1, -2)
        none = mx.zeros((*of_class.shape[:-1], query.shape[-2]))
        labels = before = mx.concatenate([of_class, none], axis=-1)
        found, weight = labels + labels @ flow, 1 / (1 - alpha * alpha / 2)
        for _ in range(steps):
            before, found = found, before + weight * (labels + found @ flow - before)
            weight = 1 / (1 - alpha * alpha * weight / 4)
        return found[..., support.shape[-2] :].swapaxes(-1, -2)

    return Head(_kept_unit, scores, differentiable=False, queries="together")


def _nearness(products: mx.array, shares: mx.array) -> mx.array:
    """x·m − |m|²/2 (…, n_way, n) of points x and sums m of points, by the points' shares in them.

    That is minus half the squared distance but for |x|²/2. `products`: x·m.
    """
    return products - (shares * products).sum(axis=-1, keepdims=True) / 2


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

    def rise(p: mx.array, log: mx.array | None) -> mx.array:
        """The derivative of the entropy by p, but for a constant: p sums to 1, whatever it adds."""
        if alpha == 1:
            return -(mx.log(p + 1e-12) if log is None else log)
        return alpha / (1 - alpha) * (p if alpha == 2 else mx.power(p, alpha - 1))

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class = state
        s, q = support.shape[-2], query.shape[-2]
        rows = mx.concatenate([support, unit(query)], axis=-2)
        columns, shares = rows.swapaxes(-1, -2), _mean_shares(of_class, q)
        gram = rows @ columns if s + q <= 2 * rows.shape[-1] else None

        def nearness(shares: mx.array) -> mx.array:
            products = (shares @ rows) @ columns if gram is None else shares @ gram
            return _nearness(products, shares)

        speed = mx.zeros_like(shares)
        for _ in range(options.steps):
            every, log = _log_softmax(temperature * nearness(shares))
            p = every[..., s:]
            even = options.marginal / q * rise(p.mean(axis=-1, keepdims=True), None)
            pull = p * (options.conditional / q * rise(p, log[..., s:]) - even)
            pull = pull - p * pull.sum(axis=-2, keepdims=True)
            wrong = options.support / s * (every[..., :s] - of_class)
            slopes = mx.concatenate([wrong, pull], axis=-1)  # by the logits
            push = slopes - slopes.sum(axis=-1, keepdims=True) * shares
            speed = 0.9 * speed - options.rate * temperature * push
            shares = shares + speed
        own = mx.square(rows[..., s:, :]).sum(axis=-1, keepdims=True) / 2
        return temperature * (nearness(shares)[..., s:].swapaxes(-1, -2) - own)

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
    no say. It assumes equally many queries of each class: where they are not, it is wrong.
    """

    def raised(x: mx.array) -> mx.array:
        size = mx.abs(x)
        size = mx.sqrt(size) if options.power == 0.5 else mx.power(size, options.power)
        return mx.where(x < 0, -size, size)

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, ...]:
        return _kept(raised(support), support_labels, metric, n_way)

    def scores(state: tuple[mx.array, ...], query: mx.array, metric: Metric) -> mx.array:
        support, of_class = state
        s, q, n_way = support.shape[-2], query.shape[-2], of_class.shape[-2]
        rows = mx.concatenate([support, raised(query)], axis=-2)
        gram = _unit_products(rows @ rows.swapaxes(-1, -2))
        shares = _mean_shares(of_class, q)
        gram = _unit_products(_centred_products(gram, s))
        columns = mx.ones((*of_class.shape[:-1], 1))

        def shared(columns: mx.array) -> tuple[mx.array, mx.array, mx.array]:
            """P (…, n_way, q), its logarithm, and the factors of its classes, to set out from."""
            near = _nearness(shares @ gram, shares)[..., s:]
            near = 2 * options.sharpness * (near - near.max(axis=-2, keepdims=True))
            kernel = mx.exp(near)
            for _ in range(_SINKHORN):
                rows = 1 / (kernel * columns).sum(axis=-2, keepdims=True)
                columns = q / n_way / (kernel * rows).sum(axis=-1, keepdims=True)
            found = kernel * columns
            sums = found.sum(axis=-2, keepdims=True)
            return found / sums, near + mx.log(columns) - mx.log(sums), columns

        for _ in range(options.steps):
            p, _, columns = shared(columns)
            weights = mx.concatenate([of_class, p], axis=-1)
            new = weights / weights.sum(axis=-1, keepdims=True)
            shares = shares + options.rate * (new - shares)
        return shared(columns)[1].swapaxes(-1, -2)

    return Head(fit, scores, differentiable=False, queries="together")


def _unit_products(gram: mx.array) -> mx.array:
    """The products (…, n, n) of points, where these are brought to length 1; of zeros, 0."""
    squares = mx.diagonal(gram, axis1=-2, axis2=-1)
    zero = squares < 1e-12
    inverse = mx.where(zero, 0.0, mx.rsqrt(mx.where(zero, 1.0, squares)))
    return gram * inverse[..., None] * inverse[..., None, :]


def _centred_products(gram: mx.array, s: int) -> mx.array:
    """The products (…, n, n) of points, the first s about their mean, the others about theirs."""

    def centred(x: mx.array) -> mx.array:
        """Each row of (…, n, n) less its mean over the first s columns, or over the others."""
        parts = (x[..., :s], x[..., s:])
        return mx.concatenate([y - y.mean(axis=-1, keepdims=True) for y in parts], axis=-1)

    return centred(centred(gram).swapaxes(-1, -2))


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

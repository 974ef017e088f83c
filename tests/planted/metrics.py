"""Distances with a fault, and odd ones without."""

import mlx.core as mx
import mlx.nn as nn
from attrs import evolve

from fewshot import Metric, cosine, euclidean, manhattan, sqeuclidean
from planted import Collection

CASES = Collection("metric")
NO_BOUND = float("inf")


def metric(fn, *laws, upper=NO_BOUND, matrix=None):
    return Metric(fn, frozenset(laws), lambda d: upper, matrix)


def squares(x, y):
    return ((x - y) ** 2).sum(-1)


@CASES.breaks("made")
def a_bare_function(_):
    return squares


@CASES.breaks("made")
def a_law_of_its_own(_):
    return metric(squares, "ultrametric")


@CASES.breaks("made")
def an_upper_bound_of_nothing(_):
    return metric(squares, upper=0)


@CASES.breaks("shape")
def wrong_axis(_):
    return metric(lambda x, y: mx.abs(x - y).sum(0))


@CASES.breaks("shape")
def mean_over_all(_):
    return metric(lambda x, y: squares(x, y).mean())


@CASES.breaks("float32")
def half_precision(_):
    return metric(lambda x, y: squares(x, y).astype(mx.float16))


@CASES.breaks("finite")
def log_of_a_ratio(_):
    return metric(lambda x, y: mx.log((x * x).sum(-1) / (y * y).sum(-1)) ** 2)


@CASES.breaks("never negative")
def minus_the_product(_):
    return metric(lambda x, y: -(x * y).sum(-1))


@CASES.breaks("nearer to itself")
def a_similarity(_):
    return metric(lambda x, y: mx.exp(-squares(x, y)), upper=1)


@CASES.breaks("nearer to itself")
def a_constant(_):
    return metric(lambda x, y: 0 * squares(x, y))


@CASES.breaks("identity")
def root_with_an_epsilon(_):
    return metric(lambda x, y: mx.sqrt(squares(x, y) + 1e-12), "identity")


@CASES.breaks("symmetry")
def asymmetric(_):
    return metric(
        lambda x, y: (mx.maximum(y - x, 0) + 2 * mx.maximum(x - y, 0)).sum(-1), "symmetry"
    )


@CASES.breaks("triangle")
def squares_with_a_triangle(_):
    return evolve(sqeuclidean(), laws=frozenset({"identity", "symmetry", "triangle"}))


@CASES.breaks("triangle")
def bray_curtis_with_a_triangle(_):
    """Broken by (1, 0), (1, 1), (0, 1)."""

    def fn(x, y):
        total = (mx.abs(x) + mx.abs(y)).sum(-1)
        return mx.abs(x - y).sum(-1) / mx.where(total == 0, 1, total)

    return metric(fn, "identity", "symmetry", "triangle")


@CASES.breaks("triangle")
def squares_up_to_one_with_a_triangle(_):
    return metric(
        lambda x, y: mx.minimum(squares(x, y), 1), "identity", "symmetry", "triangle", upper=1
    )


@CASES.breaks("triangle")
def squares_of_near_points_with_a_triangle(_):
    """From 1/16 on it is a distance."""

    def fn(x, y):
        d = euclidean().fn(x, y)
        return mx.where(d < 1 / 16, 16 * d * d, d)

    return metric(fn, "identity", "symmetry", "triangle")


@CASES.breaks("scale free")
def free_of_one_scale_for_both(_):
    """Canberra's distance: it is free of a scale that x and y share."""

    def fn(x, y):
        total = mx.abs(x) + mx.abs(y)
        return (mx.abs(x - y) / mx.where(total == 0, 1, total)).sum(-1)

    return metric(fn, "scale_free")


@CASES.breaks("scale free")
def lengths_matter(_):
    return evolve(euclidean(), laws=frozenset({"scale_free"}))


@CASES.breaks("cosine")
def twice_the_cosine_distance(_):
    return evolve(cosine(), fn=lambda x, y: 2 * cosine().fn(x, y), upper=lambda d: 4.0)


@CASES.breaks("cosine")
def the_angle_itself(_):
    def fn(x, y):
        return mx.arccos(mx.clip(1 - cosine().fn(x, y), -1, 1))

    return metric(fn, "cosine")


@CASES.breaks("upper bound")
def half_the_bound(_):
    return evolve(cosine(), upper=lambda d: 1.0)


@CASES.breaks("upper bound")
def the_bound_of_two_dimensions(_):
    return evolve(manhattan(), upper=lambda d: 2 * 2**0.5)


@CASES.breaks("upper bound")
def not_quite_the_bound(_):
    return evolve(manhattan(), upper=lambda d: (2.0 if d == 1 else 1.999) * d**0.5)


@CASES.breaks("finite gradient")
def a_bare_root(_):
    return metric(lambda x, y: mx.sqrt(squares(x, y)))


@CASES.breaks("finite gradient")
def a_norm_divided(_):
    def unit(x):
        return x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    return metric(lambda x, y: squares(unit(x), unit(y)))


@CASES.breaks("finite gradient")
def canberra_without_a_floor(_):
    def fn(x, y):
        total = mx.abs(x) + mx.abs(y)
        return (mx.abs(x - y) / mx.where(total == 0, 1, total)).sum(-1)

    return metric(fn, "identity", "symmetry", "triangle")


@CASES.breaks("never negative")
def a_form_that_is_not_definite(_):
    """Mahalanobis's, squared, of a learned matrix that is not L'L."""
    form = mx.array([1.0, -0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    return metric(lambda x, y: ((x - y) ** 2 * form[mx.arange(x.shape[-1]) % 9]).sum(-1))


@CASES.breaks("pair alone")
def relative_to_the_farthest(_):
    def fn(x, y):
        found = squares(x, y)
        return found / mx.maximum(found.max(), 1e-9)

    return metric(fn)


@CASES.breaks("pair alone")
def about_the_mean_of_the_batch(_):
    def fn(x, y):
        centre = x.reshape(-1, x.shape[-1]).mean(0)
        return mx.abs((x - centre) * (y - centre)).sum(-1) + squares(x, y)

    return metric(fn)


@CASES.breaks("asked twice")
def noisy(_):
    return metric(lambda x, y: squares(x, y) + mx.random.uniform(shape=squares(x, y).shape))


@CASES.breaks("asked twice")
def a_count_of_calls(_):
    calls = []

    def fn(x, y):
        calls.append(0)
        return squares(x, y) + len(calls)

    return metric(fn)


@CASES.breaks("inputs untouched")
def in_place(_):
    def fn(x, y):
        x -= y
        return (x * x).sum(-1)

    return metric(fn)


class Weighted(nn.Module):
    """A learned weight of the L1 distance, kept above 0 (after Koch et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.weight = mx.array(0.5)

    def __call__(self, x, y):
        return nn.softplus(self.weight) * mx.abs(x - y).sum(-1)


class Gated(Weighted):
    """Begins at the root of 0."""

    def __init__(self):
        super().__init__()
        self.gate = mx.array(0.0)

    def __call__(self, x, y):
        return (1 + mx.sqrt(self.gate)) * super().__call__(x, y)


@CASES.breaks("learned parts")
def the_root_of_a_learned_zero(_):
    return metric(Gated())


class Late(nn.Module):
    """A weight for every coordinate, made when the first vectors come."""

    def __call__(self, x, y):
        if "weight" not in self:
            self.weight = mx.ones(x.shape[-1])
        return (self.weight[: x.shape[-1]].mean() * (x - y) ** 2).sum(-1)


@CASES.breaks("made whole")
def weights_at_the_first_call(_):
    return metric(Late())


@CASES.breaks("matrix shape")
def a_matrix_turned_round(_):
    return metric(squares, matrix=lambda q, p: squares(q[..., None, :, :], p[..., :, None, :]))


@CASES.breaks("matrix shape")
def a_matrix_of_one_episode(_):
    good = sqeuclidean().matrix
    return metric(squares, matrix=lambda q, p: good(q[0], p[0])[None] if q.ndim > 2 else good(q, p))


@CASES.breaks("matrix agrees")
def a_matrix_without_its_root(_):
    return evolve(euclidean(), matrix=sqeuclidean().matrix)


@CASES.breaks("matrix agrees")
def a_matrix_below_zero(_):
    def products(q, p):
        lengths = (q * q).sum(-1)[..., :, None] + (p * p).sum(-1)[..., None, :]
        return lengths - 2 * (q @ p.swapaxes(-1, -2))

    return evolve(sqeuclidean(), matrix=products)


@CASES.breaks("matrix gradient")
def a_matrix_with_a_bare_root(_):
    good = sqeuclidean().matrix
    return evolve(euclidean(), matrix=lambda q, p: mx.sqrt(good(q, p)))


# ------------------------------------------------------------------------------ odd and sound


@CASES.sound
def no_law_at_all(_):
    return metric(lambda x, y: (mx.maximum(y - x, 0) + 2 * mx.maximum(x - y, 0)).sum(-1))


@CASES.sound
def asymmetric_and_says_so(_):
    fn = lambda x, y: (mx.maximum(y - x, 0) + 3 * mx.maximum(x - y, 0)).sum(-1)  # noqa: E731
    return metric(fn, "identity", "triangle")


@CASES.sound
def a_divergence(_):
    """Kullback-Leibler of softmaxes, which is 0 at x = y only up to rounding."""

    def fn(x, y):
        p, q = (v - mx.logsumexp(v, axis=-1, keepdims=True) for v in (x, y))
        return mx.maximum((mx.exp(p) * (p - q)).sum(-1), 0)

    return metric(fn)


@CASES.sound
def discrete_largest_difference(_):
    return metric(lambda x, y: mx.abs(x - y).max(-1), "identity", "symmetry", "triangle", upper=2)


@CASES.sound
def learned(_):
    return metric(Weighted(), "identity", "symmetry", "triangle")


class EachWeighted(nn.Module):
    """A learned weight of each of d numbers."""

    def __init__(self, d, start):
        super().__init__()
        self.weights = mx.full((d,), start)

    def __call__(self, x, y):
        return (mx.sqrt(self.weights) * mx.abs(x - y)).sum(-1)


@CASES.sound
def learned_by_coordinate(_, embedding_dim):
    return metric(EachWeighted(embedding_dim, 0.5), "identity", "symmetry", "triangle")


@CASES.breaks("learned parts")
def the_root_of_learned_zeros(_, *, embedding_dim):
    return metric(EachWeighted(embedding_dim, 0.0))


class Frozen(Weighted):
    """Has nothing to learn: a number that is kept with the weights."""

    def __init__(self):
        super().__init__()
        self.freeze()


@CASES.sound
def nothing_to_learn(_):
    return metric(Frozen(), "identity", "symmetry", "triangle")


class Dropping(Weighted):
    """Leaves coordinates out while it is trained."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def __call__(self, x, y):
        return super().__call__(self.drop(x - y), 0)


@CASES.sound
def learned_with_dropout(_):
    return metric(Dropping(), "identity", "symmetry", "triangle")


@CASES.sound
def a_huge_bound(_):
    return metric(squares, "identity", "symmetry", upper=1e30)


@CASES.sound
def tiny_distances(_):
    good = sqeuclidean()
    return metric(
        lambda x, y: 1e-3 * good.fn(x, y), "identity", "symmetry", upper=0.01,
        matrix=lambda q, p: 1e-3 * good.matrix(q, p),
    )  # fmt: skip


@CASES.sound
def large_distances(_):
    good = euclidean()
    return metric(
        lambda x, y: 1e3 * good.fn(x, y), "identity", "symmetry", "triangle", upper=2e3,
        matrix=lambda q, p: 1e3 * good.matrix(q, p),
    )  # fmt: skip


@CASES.sound
def bounded(_):
    return metric(lambda x, y: 1 - mx.exp(-squares(x, y)), "identity", "symmetry", upper=1)

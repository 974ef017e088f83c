"""Intervals and paired tests."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from ..core.figures import PairedTest
from ..core.seeding import generator

Floats = NDArray[np.float64]


def t_interval(values: Floats) -> tuple[float, float]:
    """95 % Student t interval of the mean of independent values in [0, 1], cut to [0, 1]."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return 0.0, 1.0
    half = float(stdtrit(n - 1, 0.975)) * float(np.std(values, ddof=1)) / n**0.5
    return max(0.0, mean - half), min(1.0, mean + half)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of the share `right` / n of independent answers (Wilson 1927).

    It has a width where all are right, and stays within [0, 1].
    """
    z2 = float(ndtri(0.975)) ** 2
    share = right / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (share * (1 - share) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(values: Floats, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; the same values give the same interval.

    (0, 1) for fewer than two values, which say nothing of their spread.
    """
    if len(values) < 2:
        return 0.0, 1.0
    rng = generator(0, "bootstrap")
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_test(a: NDArray[np.float64], b: NDArray[np.float64]) -> PairedTest:
    """Student's paired t test of accuracies (n,) of a and b: of the same episodes, or classes.

    Without any spread the interval is the mean itself, and p is 1 for no difference, else 0; one
    pair tells nothing: its interval is everything and p is 1.
    """
    difference = b - a
    n, mean = len(difference), float(np.mean(difference))
    if n < 2:
        return PairedTest(mean, (-1.0, 1.0), 1.0, n)
    error = float(np.std(difference, ddof=1)) / n**0.5
    if error == 0:
        return PairedTest(mean, (mean, mean), 1.0 if mean == 0 else 0.0, n)
    half = float(stdtrit(n - 1, 0.975)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return PairedTest(mean, (mean - half, mean + half), p, n)


def over_classes(a: Mapping[str, float], b: Mapping[str, float]) -> PairedTest:
    """The paired test of two runs' accuracies by class, which says how far classes agree.

    Draws of the same few classes are not independent of these: a difference that holds for all
    draws may rest on one class.
    """
    return paired_test(np.array([a[name] for name in b]), np.array([b[name] for name in b]))


def lower_next(draws: Sequence[Sequence[float]], at_next: Sequence[Sequence[float]]) -> float:
    """Chance that one draw at the next K is lower than one at this; by seed, ties counted half."""
    pairs = [
        np.subtract.outer(np.array(a), np.array(b)) for a, b in zip(draws, at_next, strict=True)
    ]
    return float(np.mean([np.mean(d > 0) + np.mean(d == 0) / 2 for d in pairs]))

"""Mixup and CutMix against their papers; what every mixer keeps is in test_laws.py."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, kstest

from fewshot.core.interfaces import Mixer
from fewshot.parts.mixers import CutmixOptions, MixupOptions, cutmix, mixup
from fewshot.testing import batches
from fewshot.testing.strategies import seeds

Array = NDArray[Any]

alphas = st.sampled_from([0.1, 0.2, 1.0, 4.0])


def mixed(mixer: Mixer, images: Array, seed: int) -> tuple[Array, Array]:
    """Images mixed, and how much of each is in each (b, b)."""
    assert mixer.mix is not None
    return mixer.mix(images, np.eye(len(images), dtype=np.float32), np.random.default_rng(seed))


@pytest.mark.parametrize("options", [MixupOptions, CutmixOptions])
def test_shares_that_cannot_be_drawn_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="alpha"):
        options(alpha=0.0)


@given(images=batches(), seed=seeds, alpha=alphas)
def test_mixup_is_the_mean_weighted_by_the_targets(images: Array, seed: int, alpha: float) -> None:
    found, shares = mixed(mixup(MixupOptions(alpha)), images, seed)
    due = np.einsum("ij,jhwc->ihwc", shares.astype(np.float64), images)
    assert np.abs(found - due).max() < 1e-6


@given(images=batches(), seed=seeds, alpha=alphas)
def test_every_pixel_of_cutmix_is_of_one_image_and_the_others_are_a_rectangle(
    images: Array, seed: int, alpha: float
) -> None:
    b, h, w, _ = images.shape
    numbered = np.broadcast_to(np.arange(b).reshape(b, 1, 1, 1) / 8, images.shape)
    found, shares = mixed(cutmix(CutmixOptions(alpha)), numbered.astype(np.float32), seed)
    source = (found[..., 0] * 8).round().astype(int)
    for i in range(b):
        counted = np.bincount(source[i].ravel(), minlength=b) / (h * w)
        assert np.abs(counted - shares[i]).max() < 1e-6
        rows, columns = np.nonzero(source[i] != i)
        if len(rows):
            box = source[i, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == box[0, 0]).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixups_shares_are_of_the_beta_distribution(alpha: float) -> None:
    images = np.zeros((1500, 1, 1, 1), np.float32)
    shares = np.diag(mixed(mixup(MixupOptions(alpha)), images, 0)[1])
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("mixer", [mixup(), cutmix()])
def test_every_image_has_a_share_of_its_own(mixer: Mixer) -> None:
    images = np.random.default_rng(0).random((64, 16, 16, 1), np.float32)
    shares = np.diag(mixed(mixer, images, 0)[1])
    assert len(np.unique(shares)) > 16

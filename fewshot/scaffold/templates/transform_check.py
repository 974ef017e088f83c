"""The transform keeps images what they are, and hides what it claims to hide."""

import numpy as np
from fewshot.testing import check_transform

from PLUGIN_MODULE import Options, transform


def test_it_keeps_the_laws_of_a_transform():
    check_transform(transform, Options())


def test_it_hides_a_square_of_the_size_asked_for():
    images = np.random.default_rng(0).random((5, 10, 10, 3), np.float32)
    changed = (
        transform(Options(side=0.3))(images, np.random.default_rng(1)) != images
    ).any(-1)
    assert changed.sum(axis=(1, 2)).tolist() == [9] * 5

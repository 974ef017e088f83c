"""The mixer keeps targets true, and mixes what it claims to mix."""

import numpy as np
from fewshot.testing import check_mixer

from PLUGIN_MODULE import Options, mixer


def test_it_keeps_the_laws_of_a_mixer():
    check_mixer(mixer, Options())


def test_the_upper_half_is_the_images_own():
    images = np.random.default_rng(0).random((5, 10, 10, 3), np.float32)
    mixed, _ = mixer(Options(highest=0.5)).mix(
        images, np.eye(5, dtype=np.float32), np.random.default_rng(1)
    )
    assert np.array_equal(mixed[:, :5], images[:, :5])
    assert not np.array_equal(mixed[:, 5:], images[:, 5:])

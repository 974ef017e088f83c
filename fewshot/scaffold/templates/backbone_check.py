"""The backbone embeds each image by itself, and has the size that it claims to have."""

import mlx.core as mx
from fewshot.testing import check_backbone

from PLUGIN_MODULE import Options, network


def test_it_keeps_the_laws_of_a_backbone():
    check_backbone(network, Options())


def test_an_embedding_has_four_times_the_width():
    assert network(Options(width=6), (20, 28, 1))(mx.zeros((2, 20, 28, 1))).shape == (
        2,
        24,
    )

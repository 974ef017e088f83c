"""The adapter moves embeddings as it claims to, and changes no other embedder."""

import numpy as np
from fewshot import Conv4Options, Embedder, conv4, embed, euclidean, from_arrays

from PLUGIN_MODULE import Options, adapter

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
SUPPORT = from_arrays(IMAGES, [0, 0, 1, 1, 2, 2])
EMBEDDER = Embedder(conv4(Conv4Options(4), (16, 16, 1)), normalize="none")


def test_the_support_lies_about_the_origin():
    adapted = adapter(Options())(EMBEDDER, IMAGES, SUPPORT.labels, euclidean(), 0)
    np.testing.assert_allclose(embed(adapted, SUPPORT).mean(axis=0), 0, atol=1e-5)


def test_the_embedder_that_it_was_given_stays():
    before = embed(EMBEDDER, SUPPORT)
    adapter(Options())(EMBEDDER, IMAGES, SUPPORT.labels, euclidean(), 0)
    np.testing.assert_array_equal(embed(EMBEDDER, SUPPORT), before)

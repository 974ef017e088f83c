"""The miner chooses alike in any order, and chooses what it claims to choose."""

import mlx.core as mx
from fewshot.testing import check_miner

from PLUGIN_MODULE import Options, miner


def test_it_keeps_the_laws_of_a_miner():
    check_miner(miner, Options())


def test_its_choice():
    distances = mx.array([[0.9, 0.4, 0.6, 0.8]])
    labels, others = mx.array([7]), mx.array([[7, 1, 2, 3]])
    mask = miner(Options(share=0.5)).mask(distances, labels, others)
    assert mask.tolist() == [[True, True, True, False]]

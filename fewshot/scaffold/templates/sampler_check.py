"""The sampler is a function of seed and index and draws what it claims to."""

import numpy as np
from fewshot.testing import check_sampler

from PLUGIN_MODULE import Options, sampler


def test_it_keeps_the_laws_of_a_sampler():
    check_sampler(sampler, Options())


def test_the_number_of_classes_varies_within_its_limits():
    draw = sampler(Options(least=2, most=4), np.repeat(np.arange(6), 8)).draw
    assert {draw(0, index).n_way for index in range(40)} == {2, 3, 4}

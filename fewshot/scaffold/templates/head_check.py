"""The head is a few-shot classifier, and answers as it claims to."""

import mlx.core as mx
from fewshot import euclidean
from fewshot.testing import check_head

from PLUGIN_MODULE import Options, head


def test_it_keeps_the_laws_of_a_head():
    check_head(head, Options())


def test_equal_distances_share_the_vote():
    support, labels = mx.array([[0.0, 1.0], [0.0, -1.0]]), mx.array([0, 1])
    query = mx.array([[3.0, 0.0]])
    scores = head(Options())(support, labels, query, euclidean(), n_way=2)
    assert mx.allclose(mx.exp(scores), mx.array([[0.5, 0.5]]))

"""Draws as records: an episode says which is which, and what is malformed is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.core.draws import Episode, EpisodeBlock
from fewshot.core.errors import DataError

names = st.one_of(st.text(max_size=3), st.integers(2**53, 2**53 + 4), st.integers(0, 3))


@given(names=st.lists(names, min_size=1, max_size=5, unique_by=str), data=st.data())
def test_an_episode_of_any_labels_says_which_is_which(names: list[Any], data: Any) -> None:
    support = data.draw(st.permutations([*names, *data.draw(st.lists(st.sampled_from(names)))]))
    query = data.draw(st.lists(st.sampled_from(names)))
    start = data.draw(st.sampled_from([0, 2**53 + 1, 2**60 + 1]))  # no float64 holds these
    rows = list(range(start, start + len(support) + len(query)))
    s = len(support)
    episode = Episode.of(rows[:s], support, rows[s:], query)
    assert list(episode.classes) == [str(name) for name in dict.fromkeys(support)]
    assert [episode.classes[y] for y in episode.support_labels] == [str(y) for y in support]
    assert [episode.classes[y] for y in episode.query_labels] == [str(y) for y in query]
    assert episode.items[episode.support].tolist() == rows[:s]
    assert episode.items[episode.query].tolist() == rows[s:]
    assert episode.n_way == len(names)


@given(labels=st.lists(names, min_size=1, max_size=5, unique_by=str))
def test_a_query_label_without_support_is_named(labels: list[Any]) -> None:
    with pytest.raises(DataError, match="nobody"):
        Episode.of(range(len(labels)), labels, [99], ["nobody"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": [0]}, "both support and query"),
        ({"items": [7, 8, 7]}, "both support and query"),
        ({"support_labels": [0]}, "one label per"),
        ({"query_labels": [0, 1]}, "one label per"),
        ({"support_labels": [0, 0]}, "cover"),
        ({"support_labels": [1, 2]}, "cover"),
        ({"classes": ("a", "b", "c")}, "cover"),
        ({"query_labels": [2]}, "query labels"),
        ({"query_labels": [-1]}, "query labels"),
        ({"items": [0.0, 1.0, 2.0]}, "integers"),
        ({"support": [[0, 1]]}, "integers"),
    ],
)
def test_a_malformed_episode_is_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "items": [7, 8, 9],
        "support": [0, 1],
        "support_labels": [0, 1],
        "query": [2],
        "query_labels": [1],
        "classes": ("a", "b"),
    }
    assert Episode(**good).n_way == 2
    with pytest.raises(DataError, match=message):
        Episode(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": [[0, 2], [5, 5]]}, r"\[0\] are both support and query"),
        ({"query": [[4, 2], [5, 3]]}, r"\[3\] are both support and query"),
        ({"query": [[4, -1], [5, 5]]}, "negative"),
        ({"query": [[4, 2]]}, "2 episodes"),
        ({"query": [4, 2]}, "2 episodes"),
        ({"support_labels": [0]}, "do not fit"),
        ({"query_labels": [0, 1, 1]}, "do not fit"),
        ({"query_labels": [0, 2]}, "lie in"),
        ({"query_labels": [-1, 0]}, "lie in"),
        ({"support_labels": [0, 0]}, "cover"),
        ({"support_labels": [[0, 1], [1, 1]]}, "cover"),
    ],
)
def test_a_malformed_block_is_refused(change: dict[str, Any], message: str) -> None:
    good = {
        "support": [[0, 1], [3, 2]],
        "support_labels": [0, 1],
        "query": [[4, 2], [5, 5]],
        "query_labels": [1, 1],
        "classes": [[7, 8], [8, 9]],
    }
    made = EpisodeBlock(**{name: np.array(value) for name, value in good.items()})
    assert (len(made), made.n_way) == (2, 2)
    assert made.episode(1).items.tolist() == [3, 2, 5, 5]
    assert made.episode(1).classes == (8, 9)
    with pytest.raises(DataError, match=message):
        EpisodeBlock(**{name: np.array(value) for name, value in {**good, **change}.items()})

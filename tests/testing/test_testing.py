"""The laws' own machinery: examples are small, words are plain, the corners are reached."""

import types
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from planted import metrics as planted

from fewshot import Component, Metric, Preset, cosine, euclidean, hookimpl, sqeuclidean
from fewshot.core.errors import ConfigError, DataError, PluginError
from fewshot.testing import (
    LawBroken,
    batches,
    check_adapter,
    check_backbone,
    check_dataset,
    check_head,
    check_loss,
    check_metric,
    check_plugin,
    check_preset,
    check_sampler,
    check_transform,
    compared_pairs,
    distances,
    labelled,
    points,
    scored_queries,
    supports,
    tasks,
)  # fmt: skip

# ------------------------------------------------------------------------------- strategies

REACHED: list[tuple[str, st.SearchStrategy[Any], Callable[[Any], bool]]] = [
    ("coincident points", points(3), lambda x: bool((x[0] == x[1]).all() and x.any())),
    ("points that differ", points(3), lambda x: bool((x[0] != x[1]).all())),
    ("a zero vector beside another", points(2), lambda x: not x[0].any() and bool(x[1].any())),
    ("one dimension", points(2), lambda x: x.shape[1] == 1),
    ("several dimensions", points(2), lambda x: x.shape[1] >= 4),
    ("three points on a line", points(9, 1), lambda x: len(np.unique(x)) > 2),
    ("one pair", compared_pairs(), lambda p: len(p[0]) == 1),
    ("only same pairs", compared_pairs(), lambda p: len(p[1]) > 2 and bool(p[1].all())),
    ("only different pairs", compared_pairs(), lambda p: len(p[1]) > 2 and not p[1].any()),
    ("both", compared_pairs(), lambda p: 0 < p[1].sum() < len(p[1])),
    ("a distance of 0", distances(2), lambda d: bool((d == 0).any() and (d > 0).any())),
    ("equal distances", distances(2), lambda d: bool((d[0] == d[1])[d[0] > 0].any())),
    ("one query", scored_queries(), lambda s: s[1].shape == (1,)),
    ("episodes of episodes", scored_queries(), lambda s: s[1].ndim == 3),
    ("equal scores", scored_queries(), lambda s: bool((s[0] == s[0].flat[0]).all())),
    ("one support image each", tasks(), lambda t: len(t[1]) == t[3]),
    ("unequal counts", tasks(), lambda t: len(set(np.bincount(t[1]).tolist())) > 1),
    ("a single query", tasks(), lambda t: len(t[2]) == 1),
    ("a query on its support", tasks(), lambda t: bool((t[2][0] == t[0]).all(axis=1).any())),
    ("equal images of two classes", tasks(),
     lambda t: any((t[0][i] == t[0][j]).all() for i in range(len(t[1]))
                   for j in range(i) if t[1][i] != t[1][j])),
    ("classes out of order", tasks(), lambda t: bool((np.diff(t[1]) < 0).any())),
    ("one support image a class", supports(), lambda t: len(t[1]) == len(set(t[1]))),
    ("images all equal", supports(), lambda t: len(t[0]) > 1 and bool((t[0] == t[0][0]).all())),
    ("a pixel", batches(), lambda b: b.shape[1:3] == (1, 1)),
    ("no square", batches(), lambda b: b.shape[1] != b.shape[2]),
    ("grey", batches(), lambda b: b.shape[3] == 1),
    ("black and white", batches(), lambda b: set(np.unique(b)) == {0, 1}),
    ("one class", labelled(), lambda d: len(set(d[0][d[0] >= 0])) == 1),
    ("a class of one image", labelled(), lambda d: 1 in np.unique(d[0], return_counts=True)[1]),
    ("unlabelled images", labelled(), lambda d: bool((d[0] == -1).any())),
    ("gaps between ids", labelled(), lambda d: len(set(d[0][d[0] >= 0])) > 1),
    ("a class of one group", labelled(),
     lambda d: any(len(set(d[1][d[0] == c])) == 1 and (d[0] == c).sum() > 2 for c in set(d[0]))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "holds"), [row[1:] for row in REACHED], ids=[row[0] for row in REACHED]
)
def test_a_strategy_reaches(strategy: Any, holds: Callable[[Any], bool]) -> None:
    # As many examples as a check tries under the profile that the README's command uses.
    few = settings(
        max_examples=30, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    find(strategy, holds, settings=few)


# ------------------------------------------------------------------------------------ words


def asymmetric(_: Any) -> Metric:
    """Twice as far to the left as to the right."""
    fn = planted.asymmetric(_).fn
    return Metric(fn, frozenset({"symmetry"}), lambda d: float("inf"))


def test_the_smallest_example_is_told_in_plain_words() -> None:
    with pytest.raises(LawBroken) as caught:
        check_metric(asymmetric)
    assert caught.value.law == "symmetry"
    assert caught.value.example == (
        "not symmetric: d(x, y) = 2.0 but d(y, x) = 1.0 for x = [1.0], y = [0.0]"
    ), caught.value.example
    assert str(caught.value).splitlines() == [
        "metric 'asymmetric' breaks symmetry",
        "  symmetry: d(x, y) = d(y, x), where declared.",
        f"    {caught.value.example}",
    ]


def test_all_laws_that_are_broken_are_told() -> None:
    def several(_: Any) -> Metric:
        return Metric(
            lambda x, y: mx.sqrt(((x - y) ** 2).sum(-1)) - 1,
            frozenset({"identity", "scale_free"}),
            lambda d: 0.1,
        )

    with pytest.raises(LawBroken) as caught:
        check_metric(several)
    told = [o.law.name for o in caught.value.broken["metric 'several'"]]
    assert told == ["never negative", "identity", "scale free", "upper bound", "finite gradient"]


def test_what_a_component_raises_breaks_the_law_and_is_told_once_with_its_place() -> None:
    def fails(_: Any) -> Metric:
        def fn(x: mx.array, y: mx.array) -> mx.array:
            if x.shape[-1] > 3:
                raise RuntimeError("no more than three numbers")
            return ((x - y) ** 2).sum(-1)

        return Metric(fn, frozenset(), lambda d: 4.0)

    where = r"RuntimeError in test_testing.py, line \d+: no more than three numbers"
    with pytest.raises(LawBroken, match=where) as caught:
        check_metric(fails)
    assert len(caught.value.broken["metric 'fails'"]) == 1


def test_what_a_factory_raises_breaks_its_first_law_and_a_refusal_is_passed_on() -> None:
    def crashes(_: Any) -> Metric:
        raise KeyError("scale")

    def refuses(_: Any) -> Metric:
        raise ConfigError("a path is due")

    with pytest.raises(LawBroken) as caught:
        check_metric(crashes)
    assert (caught.value.law, "KeyError: 'scale'" in str(caught.value)) == ("made", True)
    with pytest.raises(ConfigError, match="a path is due"):
        check_metric(refuses)


CHECKS = [check_adapter, check_backbone, check_dataset, check_head]
CHECKS += [check_loss, check_metric, check_sampler, check_transform]


@pytest.mark.parametrize("check", CHECKS)
def test_what_is_nothing_is_refused_by_every_check(check: Any) -> None:
    with pytest.raises(LawBroken) as caught:
        check(lambda *_: None)
    assert caught.value.law == "made"


# ---------------------------------------------------------------------------------- plugins


def plugin(**hooks: list[Any]) -> Any:
    """A plugin with hooks that return these."""
    module = types.ModuleType("fewshot_tried")
    for name, parts in hooks.items():
        setattr(module, f"fewshot_{name}", hookimpl(lambda parts=parts: parts))
    return module


def refuses(_: Any) -> Any:
    raise DataError("the photos are not here")


def test_a_plugin_is_checked_whole() -> None:
    good = Component("near", lambda _: euclidean(), summary="near")
    preset = Preset("nearest", {"metric": "near"}, "with near")
    far = Component("far", refuses, summary="not here")
    untried = check_plugin(plugin(metrics=[good], presets=[preset], datasets=[far]))
    assert untried == ["dataset 'far' is not checked: the photos are not here"]


def test_every_part_of_a_plugin_that_breaks_a_law_is_told() -> None:
    bad = Component("lop-sided", asymmetric, summary="lop-sided")
    dumb = Component("near", lambda _: cosine())
    preset = Preset("nearest", {"metric": "nera"}, "with near")
    with pytest.raises(LawBroken) as caught:
        check_plugin(plugin(metrics=[bad, dumb], presets=[preset]))
    told = {part: [o.law.name for o in each] for part, each in caught.value.broken.items()}
    assert told == {
        "metric 'lop-sided'": ["symmetry"],
        "metric 'near'": ["summary"],
        "preset 'nearest'": ["components"],
    }
    assert "did you mean 'near'?" in str(caught.value)


def test_hooks_that_cannot_be_collected_are_a_plugin_error() -> None:
    with pytest.raises(PluginError, match="and in it is Metric"):
        check_plugin(plugin(metrics=[sqeuclidean()]))


def test_a_preset_is_checked_among_the_installed_components() -> None:
    check_preset(Preset("mine", {"metric": "cosine"}, "mine"))
    with pytest.raises(LawBroken, match="did you mean 'cosine'"):
        check_preset(Preset("mine", {"metric": "cosin"}, "mine"))

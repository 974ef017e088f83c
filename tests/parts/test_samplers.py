"""The built-in samplers, and when they must refuse; what every draw keeps is in test_laws.py."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import every, make

from fewshot.core.errors import ClassTooSmallError, ConfigError, DataError
from fewshot.core.seeding import generator, mlx_seed
from fewshot.parts.episodes import EpisodesOptions, episodes
from fewshot.parts.samplers import (
    BalancedOptions,
    PairsOptions,
    ProxiesOptions,
    TripletsOptions,
    all_pairs,
    balanced,
    pairs,
    proxies,
    triplets,
)
from fewshot.testing import labelled, plenty
from fewshot.testing.samplers import draw_fault
from fewshot.testing.strategies import indices, seeds

Ints = NDArray[np.int64]


def check_draw(draw: Any, labels: Ints, groups: Ints | None) -> None:
    """`groups` only where they must be kept apart."""
    assert draw_fault(draw, labels, groups) is None


def numbers(error: BaseException) -> set[int]:
    """All that an error's text names."""
    return {int(number) for number in re.findall(r"\d+", str(error))}


def counts(values: Any) -> set[int]:
    return set(np.unique(values, return_counts=True)[1].tolist())


# -------------------------------------------------------------------------------- every sampler


@every("sampler")
def test_one_class_is_too_few(entry: Any) -> None:
    labels, groups = plenty()
    with pytest.raises(DataError, match="classes"):
        make(entry, np.where(labels == 3, 3, -1), groups)


@every("sampler")
def test_a_class_of_one_image_is_refused_by_name_and_number(entry: Any) -> None:
    labels, _ = plenty()
    of_seven = np.flatnonzero(labels == 7)
    labels[of_seven[1:]] = -1
    with pytest.raises(ClassTooSmallError, match=r"class 7 has 1 ") as caught:
        make(entry, labels, None)
    assert caught.value.class_id == 7
    assert str(caught.value.named([f"sign {i}" for i in range(16)])).startswith("class 'sign 7' ")


@given(a=st.tuples(seeds, indices), b=st.tuples(seeds, indices))
def test_random_numbers_depend_on_seed_purpose_and_index_alone(a: Any, b: Any) -> None:
    def drawn(seed: int, purpose: str, index: int) -> tuple[int, ...]:
        return tuple(generator(seed, purpose, index).integers(2**63, size=2).tolist())

    assert drawn(a[0], "x", a[1]) == drawn(a[0], "x", a[1])
    assert drawn(a[0], "x", a[1]) != drawn(a[0], "y", a[1])
    assert (drawn(a[0], "x", a[1]) == drawn(b[0], "x", b[1])) == (a == b)
    assert (mlx_seed(a[0], "x", a[1]) == mlx_seed(b[0], "x", b[1])) == (a == b)


OTHER_PROCESS = """
import json
import numpy as np
from fewshot.parts.samplers import EpisodesOptions, episodes
from fewshot.core.seeding import mlx_seed
labels = np.repeat(np.arange(4), 5)
draw = episodes(EpisodesOptions(3, 2, 2), labels).draw(7, 3)
print(json.dumps([draw.items.tolist(), list(draw.classes), mlx_seed(7, "dropout", 3)]))
"""


def test_another_process_draws_the_same() -> None:
    draw = episodes(EpisodesOptions(3, 2, 2), np.repeat(np.arange(4), 5)).draw(7, 3)
    mine = [draw.items.tolist(), list(draw.classes), mlx_seed(7, "dropout", 3)]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == mine


# ---------------------------------------------------------------------------------------- pairs


@given(
    count=st.integers(1, 40),
    part=st.floats(0, 1),
    mode=st.sampled_from(["separate", "mixed"]),
    images=st.sampled_from([0, 4, 7, 30]),
    seed=seeds,
)
def test_pairs_are_as_many_and_as_many_alike_as_asked(
    count: int, part: float, mode: Any, images: int, seed: int
) -> None:
    labels, groups = plenty(4, 6)
    draw = pairs(PairsOptions(count, part, mode, images), labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups if mode == "separate" else None)
    assert len(draw.left) == len(draw.right) == len(draw.same) == count
    assert draw.same.sum() == round(count * part)
    assert len(draw.items) <= (images or 2 * count)


def test_pairs_among_fewer_images_than_hold_two_classes_are_refused() -> None:
    for images in (1, 2, 3):
        with pytest.raises(ConfigError, match=f"sampler.images = {images}: .* at least 4"):
            pairs(PairsOptions(images=images), plenty(4, 6)[0])


@given(data=labelled(), part=st.sampled_from([0.0, 0.5, 1.0]), grouped=st.booleans(), seed=seeds)
def test_pairs_refuse_exactly_what_cannot_be_drawn(
    data: tuple[Ints, Ints], part: float, grouped: bool, seed: int
) -> None:
    labels, groups = data[0], data[1] if grouped else None
    ids = [c for c in np.unique(labels) if c >= 0]
    units = np.arange(len(labels)) if groups is None else groups
    small = [c for c in ids if len(np.unique(units[labels == c])) < 2]
    few = len(ids) < (1 if part == 1 else 2)
    if few or (small and part > 0):
        with pytest.raises(DataError) as caught:
            pairs(PairsOptions(8, part), labels, groups)
        if isinstance(caught.value, ClassTooSmallError):
            assert caught.value.class_id in small
    else:
        check_draw(pairs(PairsOptions(8, part), labels, groups).draw(seed, 0), labels, groups)


@given(classes=st.integers(2, 6), per_class=st.integers(2, 5), seed=seeds)
def test_all_pairs_are_every_unordered_pair_of_a_balanced_batch_once(
    classes: int, per_class: int, seed: int
) -> None:
    labels, groups = plenty(4, 12)
    options = BalancedOptions(classes, per_class)
    draw = all_pairs(options, labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups)
    n = min(classes, 4) * per_class
    found = {frozenset(p) for p in zip(draw.left.tolist(), draw.right.tolist(), strict=True)}
    assert found == {frozenset(p) for p in itertools.combinations(range(n), 2)}
    assert len(draw.left) == len(found)
    assert len(np.unique(draw.items)) == len(draw.items) == n
    assert counts(labels[draw.items]) == {per_class}


# ------------------------------------------------------------------------------ labelled images


@given(given=labelled(), classes=st.integers(1, 20), per_class=st.integers(1, 4), seed=seeds)
def test_a_batch_has_the_classes_and_images_asked_for_and_names_every_class(
    given: tuple[Ints, Ints], classes: int, per_class: int, seed: int
) -> None:
    labels = given[0]
    there, sizes = np.unique(labels[labels >= 0], return_counts=True)
    assume(len(there) >= 2 and sizes.min() >= per_class)
    draw = proxies(ProxiesOptions(classes, per_class), labels).draw(seed, 0)
    assert draw.classes == tuple(there)
    assert counts(draw.labels) == {per_class}
    assert len(np.unique(draw.labels)) == min(classes, len(there))


# ------------------------------------------------------------------------------------- triplets


@given(classes=st.integers(2, 6), per_class=st.integers(2, 5), t=st.integers(1, 64), seed=seeds)
def test_triplets_come_from_a_balanced_batch(
    classes: int, per_class: int, t: int, seed: int
) -> None:
    labels, groups = plenty(4, 12)
    draw = triplets(TripletsOptions(classes, per_class, t), labels, groups).draw(seed, 0)
    check_draw(draw, labels, groups)
    assert len(draw.anchor) == len(draw.positive) == len(draw.negative) == t
    assert len(np.unique(draw.items)) == len(draw.items) == min(classes, 4) * per_class
    assert counts(labels[draw.items]) == {per_class}


def test_triplets_reach_every_anchor_positive_and_negative() -> None:
    labels = np.repeat(np.arange(3), 3)
    draw = triplets(TripletsOptions(3, 3, 4096), labels).draw(0, 0)
    found = set(
        zip(*(x.tolist() for x in (draw.anchor, draw.positive, draw.negative)), strict=True)
    )
    assert len(found) == 9 * 2 * 6


@pytest.mark.parametrize(
    ("factory", "options"), [(all_pairs, BalancedOptions(5, 3)), (triplets, TripletsOptions(5, 3))]
)
@given(data=labelled(), grouped=st.booleans(), seed=seeds)
def test_balanced_batches_refuse_exactly_what_cannot_be_drawn(
    factory: Callable[..., Any], options: Any, data: tuple[Ints, Ints], grouped: bool, seed: int
) -> None:
    labels, groups = data[0], data[1] if grouped else None
    ids = [c for c in np.unique(labels) if c >= 0]
    units = np.arange(len(labels)) if groups is None else groups
    small = {c: len(np.unique(units[labels == c])) for c in ids}
    if len(ids) < 2 or min(small.values()) < 3:
        with pytest.raises(DataError) as caught:
            factory(options, labels, groups)
        if isinstance(caught.value, ClassTooSmallError):
            named = caught.value.class_id
            assert small[named] < 3
            assert str(caught.value).startswith(f"class {named} has {small[named]} ")
            assert 3 in numbers(caught.value)
    else:
        check_draw(factory(options, labels, groups).draw(seed, 0), labels, groups)
    mixed = attrs.evolve(options, groups="mixed")
    if len(ids) >= 2 and min(np.sum(labels == c) for c in ids) >= 3:
        check_draw(factory(mixed, labels, groups).draw(seed, 0), labels, None)


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (PairsOptions, {"pairs": 0}),
        (PairsOptions, {"same_share": 1.1}),
        (PairsOptions, {"same_share": -0.1}),
        (PairsOptions, {"images": -1}),
        (BalancedOptions, {"classes": 1}),
        (BalancedOptions, {"per_class": 1}),
        (TripletsOptions, {"triplets": 0}),
        (TripletsOptions, {"per_class": 1}),
        (EpisodesOptions, {"n_way": 1}),
        (EpisodesOptions, {"k_shot": 0}),
        (EpisodesOptions, {"n_query": 0}),
    ],
)
def test_counts_that_draw_nothing_are_refused(options: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        options(**change)


@pytest.mark.parametrize("make_", [balanced, proxies])
@pytest.mark.parametrize("fewest", [2, 3])
def test_a_batch_too_large_for_a_class_says_the_size_that_is_not(
    make_: Callable[..., Any], fewest: int
) -> None:
    labels = np.repeat([0, 1, 2], [fewest, 9, 9])
    options = {balanced: BalancedOptions, proxies: ProxiesOptions}[make_]
    with pytest.raises(ClassTooSmallError) as caught:
        make_(options(per_class=5), labels, None)
    said = int(str(caught.value).partition("--set sampler.per_class=")[2].partition(",")[0])
    make_(options(per_class=said), labels, None)
    with pytest.raises(ClassTooSmallError):
        make_(options(per_class=said + 1), labels, None)

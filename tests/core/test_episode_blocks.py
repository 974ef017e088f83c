"""Episodes drawn many at a time are those drawn one by one, and as random."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from fewshot.core.errors import ClassTooSmallError
from fewshot.core.interfaces import Sampler
from fewshot.parts import episodes as block_drawing
from fewshot.parts.episodes import EpisodesOptions, _Pools, _shuffle, all_way, episodes
from fewshot.testing import labelled, plenty
from fewshot.testing.samplers import draw_fault, same_draw
from fewshot.testing.strategies import seeds

Ints = NDArray[np.int64]


def in_small_blocks(entries: int, factory: Callable[..., Any], *given: Any) -> Any:
    """A sampler that draws few episodes together, so that a test meets several blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_drawing, "_ENTRIES", entries)
        return factory(*given)


@given(
    seed=seeds,
    count=st.integers(1, 30),
    entries=st.sampled_from([1, 500, 3000, 1 << 20]),
    mode=st.sampled_from(["none", "within", "across"]),
    data=st.data(),
)
def test_blocks_are_the_draws_in_order_and_draws_come_in_any_order(
    seed: int, count: int, entries: int, mode: str, data: Any
) -> None:
    labels, groups = plenty(6, 20)
    labels = np.where(np.arange(120) % 7 == 6, -1, labels)  # classes of unequal size
    used = {"none": None, "within": groups, "across": np.arange(120) % 17}[mode]
    for made in (
        (episodes, EpisodesOptions(3, 2, 1), labels, used),
        (all_way, labels, used, [1, 4], 3),
    ):
        sampler, another = (in_small_blocks(entries, *made) for _ in range(2))
        blocks = list(sampler.blocks(seed, count))
        flat = [block.episode(i) for block in blocks for i in range(len(block))]
        assert len(flat) == count == sum(map(len, blocks))
        assert len({draw.items.tobytes() for draw in flat}) == count
        for index in data.draw(st.permutations(range(count))):
            draw = another.draw(seed, index)
            assert same_draw(draw, flat[index])
            assert draw_fault(draw, labels, used) is None
            if used is not None:
                mine = used[draw.items]
                assert not np.isin(mine[draw.query], mine[draw.support]).any()
        later = sampler.draw(seed, count + 7)  # a longer run of the same draws begins alike
        assert same_draw(later, another.draw(seed, count + 7))
        assert same_draw(sampler.draw(seed, 0), flat[0])


@given(data=labelled(classes=4), seed=seeds, k_shot=st.integers(1, 4), apart=st.booleans())
def test_a_block_deals_by_the_rule_of_one_rank_for_all_classes(
    data: tuple[Ints, Ints], seed: int, k_shot: int, apart: bool
) -> None:
    labels, groups = data
    if not apart:
        groups = groups % 5  # groups that span classes
    groups = np.unique(groups, return_inverse=True)[1]
    pools = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0}
    assume(min(map(len, pools.values())) >= k_shot)
    tables = _Pools.of(pools, groups)
    classes = np.tile(np.arange(len(pools)), (3, 1))
    dealt = tables.deal(np.random.default_rng(seed), classes, k_shot)
    support, rest = (rows.reshape(len(rows), 3, -1) for rows in dealt[:2])
    n_rest = dealt[2].reshape(3, -1)
    everyone = np.tile(np.arange(groups.max() + 1), (3, 1))
    ranks = np.random.default_rng(seed).permuted(everyone, axis=1)
    for e, rank in enumerate(ranks):
        chosen = [pool[support[:, e, w]] for w, pool in enumerate(pools.values())]
        taken = set(groups[np.concatenate(chosen)].tolist())
        for w, pool in enumerate(pools.values()):
            assert len(set(chosen[w].tolist())) == k_shot
            of_class = sorted(set(groups[pool].tolist()), key=lambda g: rank[g])
            sizes = [int(np.sum(groups[pool] == g)) for g in of_class]
            needed = next(n for n in range(1, len(sizes) + 1) if sum(sizes[:n]) >= k_shot)
            side = set(of_class[: max(needed, len(of_class) // 2)])
            assert set(groups[chosen[w]].tolist()) <= side
            left = {int(i) for i in pool if int(groups[i]) not in side | taken}
            assert set(pool[rest[: n_rest[e, w], e, w]].tolist()) == left
            assert n_rest[e, w] == len(left)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    count=st.integers(1, 9),
    seed=seeds,
)
def test_a_shuffle_keeps_every_entry_and_draws_among_the_first(
    sizes: list[int], count: int, seed: int
) -> None:
    table = np.repeat(np.arange(9)[:, None], len(sizes), axis=1)
    _shuffle(np.random.default_rng(seed), table, np.array(sizes), count)
    for column, size in zip(table.T, sizes, strict=True):
        assert sorted(column.tolist()) == list(range(9))
        if count <= size:
            assert set(column[:size].tolist()) == set(range(size))


def uniform(observed: Any) -> bool:
    return float(chisquare(observed).pvalue) > 1e-3


@pytest.mark.parametrize("grouped", [False, True], ids=["no groups", "groups"])
def test_every_class_and_image_is_chosen_equally_often(grouped: bool) -> None:
    # Four classes of 6, 8, 10 and 12 images; groups of two, so that each is equally likely to be
    # on either side.
    sizes = [6, 8, 10, 12]
    labels = np.repeat(np.arange(4), sizes)
    groups = np.arange(len(labels)) // 2 if grouped else None
    sampler = episodes(EpisodesOptions(2, 2, 2), labels, groups)
    blocks = list(sampler.blocks(0, 6000))
    classes, support, query = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("classes", "support", "query")
    )
    ordered = classes[:, 0] * 4 + classes[:, 1]
    of_pair = np.bincount(ordered, minlength=16)
    assert uniform(of_pair[of_pair > 0])
    assert np.count_nonzero(of_pair) == 12
    for c in range(4):
        pool = np.flatnonzero(labels == c)
        for side in (support, query):
            for column in (side[:, 0], side[:, 1]):  # every place, not only the whole
                found = np.bincount(column, minlength=len(labels))[pool]
                assert uniform(found)
        both = support.reshape(-1, 2)
        both = both[np.isin(both[:, 0], pool)] - pool[0]
        of_pair = np.bincount(both[:, 0] * sizes[c] + both[:, 1])
        assert grouped or uniform(of_pair[of_pair > 0])


def test_an_episode_that_cannot_be_dealt_spoils_no_other() -> None:
    # Class 0's groups are class 1's as well: where all were taken, no query is left.
    labels = np.array([0] * 4 + [1] * 4)
    groups = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    sampler = episodes(EpisodesOptions(2, 2, 2), labels, groups)
    assert all(len(block) for block in sampler.blocks(0, 50))
    tight = episodes(EpisodesOptions(2, 1, 2), labels, np.array([0, 1, 2, 3, 2, 2, 4, 5]))
    failed = set()
    for index in range(40):
        try:
            tight.draw(0, index)
        except ClassTooSmallError:
            failed.add(index)
    assert failed
    first = min(failed)
    assert sum(map(len, tight.blocks(0, first))) == first
    with pytest.raises(ClassTooSmallError, match="apart from the groups of the support"):
        list(tight.blocks(0, first + 1))


def test_a_sampler_that_offers_no_blocks_has_blocks_of_one() -> None:
    labels, _ = plenty(4, 8)
    draw = episodes(EpisodesOptions(2, 2, 2), labels).draw
    blocks = list(Sampler(draw=draw, layout="episode").blocks(3, 4))
    assert [len(block) for block in blocks] == [1] * 4
    assert all(same_draw(block.episode(0), draw(3, i)) for i, block in enumerate(blocks))

"""Images as arrays: decoded from what gives them, one's own, and episodes written down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import SIZE, folder, picture, two_classes
from PIL import Image

import fewshot as fs
from fewshot.core.draws import Episode
from fewshot.core.errors import DataError
from fewshot.data.datasets import ArrayDataset, ArraysOptions, arrays, decode, from_arrays
from fewshot.data.episode_files import read_episode, write_episode
from fewshot.data.folders import ImageFiles
from fewshot.data.joined import Joined
from fewshot.data.split import ClassSplit

# --------------------------------------------------------------------------------------- decode


def test_decode_gives_item_by_item_and_tells_progress(tmp_path: Path):
    dataset = folder(two_classes(tmp_path, "a/2.png", "b/2.png", "c/1.png"))
    told: list[tuple[int, int]] = []
    arrays = decode(dataset, lambda done, total: told.append((done, total)))
    for i in range(5):
        np.testing.assert_array_equal(arrays[i], dataset[i])
    assert told == [(i, 5) for i in range(1, 6)]
    assert (arrays.classes, list(arrays.names)) == (dataset.classes, dataset.names)
    np.testing.assert_array_equal(arrays.labels, dataset.labels)


def test_decode_takes_the_data_sets_own_way_and_keeps_its_groups_and_split():
    class Own:
        classes = ("a", "b")
        labels = np.array([0, 1])
        groups = np.array([4, 9])
        split = ClassSplit(["a"], [], ["b"])

        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            raise AssertionError("load is there")

        def load(self, progress: Callable[[int, int], None] | None) -> NDArray[np.uint8]:
            return np.stack([picture(5), picture(6)])

    arrays = decode(Own())
    np.testing.assert_array_equal(arrays[1], picture(6))
    assert arrays.groups is not None
    assert arrays.groups.tolist() == [4, 9]
    assert arrays.split == Own.split


def test_decode_of_nothing_is_refused():
    empty = ImageFiles([], np.zeros(0, np.int64), ("a", "b"), SIZE)
    with pytest.raises(DataError, match="no images"):
        decode(empty)


# ----------------------------------------------------------------------------------- own arrays


def images(n: int) -> NDArray[np.uint8]:
    return np.zeros((n, 2, 2, 3), np.uint8)


def test_a_data_set_is_shown_in_a_line(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    arrays = from_arrays(
        np.zeros((300, 4, 4, 3), np.uint8), [f"class {i % 100}" for i in range(300)]
    )
    files = ImageFiles([tmp_path / "a.png"] * 300, arrays.labels, arrays.classes, 4)
    for dataset in arrays, files, Joined({"a": arrays, "b": files}, (4, 4, 3)):
        assert "of 100 classes" in repr(dataset)
        assert len(repr(dataset)) < 80


def test_labels_may_be_names():
    dataset = from_arrays(images(4), ["dog", "cat", "dog", "ant"], groups=["x", "y", "x", "x"])
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [2, 1, 2, 0]
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1, 0, 0]


def test_roles_are_kept_where_a_dataset_is_decoded_and_in_a_file(tmp_path: Path):
    role = ["support", "query", "both", "query"]
    dataset = from_arrays(images(4), ["a", "b", "a", "b"], role=role)
    np.savez(tmp_path / "roles.npz", images=dataset.images, labels=dataset.labels, role=role)
    read = arrays(ArraysOptions(str(tmp_path / "roles.npz")))
    for found in (dataset, decode(dataset), read):
        assert found.role is not None
        assert found.role.tolist() == role


@pytest.mark.parametrize(
    ("role", "says"), [(["support"] * 3, "4 images, but 3 roles"), (["probe"] * 4, "'probe'.*both")]
)
def test_roles_that_are_none_are_refused(role: list[str], says: str):
    with pytest.raises(DataError, match=says):
        from_arrays(images(4), ["a", "b", "a", "b"], role=role)


@given(
    st.lists(
        st.integers(-(2**70), 2**70)
        | st.sampled_from([2**53, 2**53 + 1, 2**63, 2**63 + 1, 2**64, -1, 0]),
        min_size=1,
        max_size=6,
    )
)
def test_labels_may_be_numbers_of_any_size(labels: list[int]):
    dataset = from_arrays(images(len(labels)), labels)
    assert sorted(dataset.classes) == sorted(str(label) for label in set(labels))
    assert [dataset.classes[i] for i in dataset.labels] == [str(label) for label in labels]


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=6))
def test_groups_may_be_numbers_of_any_size(groups: list[int]):
    dataset = from_arrays(images(len(groups)), [0] * len(groups), groups)
    assert dataset.groups is not None
    same = np.equal.outer(dataset.groups, dataset.groups)
    np.testing.assert_array_equal(same, [[a == b for b in groups] for a in groups])


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"images": np.zeros((2, 4, 4, 3), np.float32)}, "uint8"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, r"\(n, h, w, c\)"),
        ({"labels": [0]}, "2 images, but 1 labels"),
        ({"labels": [0, 2]}, r"0\.\.1"),
        ({"labels": [-1, 0]}, r"0\.\.1"),
        ({"labels": [0.0, 1.0]}, "integers"),
        ({"labels": [[0, 1]]}, "integers"),
        ({"groups": np.array([1])}, "2 images, but 1 groups"),
        ({"classes": ["a", "a"]}, "one name"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], wanted: str):
    sound: dict[str, object] = {"images": images(2), "labels": [0, 1], "classes": ["a", "b"]}
    assert len(ArrayDataset(**sound).labels) == 2
    with pytest.raises(DataError, match=wanted):
        ArrayDataset(**{**sound, **change})


# ----------------------------------------------------------------------- episodes, written down


@given(st.data())
def test_an_episode_written_down_is_replayed_on_the_same_images(data: st.DataObject):
    dataset = from_arrays(images(12), [f"c{i % 4}" for i in range(12)])
    chosen = data.draw(st.lists(st.integers(0, 11), min_size=5, unique=True))
    labels = [dataset.labels[i] for i in chosen]
    support = [i for n, i in enumerate(chosen) if labels.index(labels[n]) == n]
    query = [i for i in chosen if i not in support]
    names = [dataset.classes[c] for c in dataset.labels]
    task = Episode.of(support, [names[i] for i in support], query, [names[i] for i in query])
    written = json.loads(json.dumps(write_episode(dataset, task)))
    again = read_episode(dataset, written)
    assert sorted(again.items[again.support]) == sorted(support)
    assert sorted(again.items[again.query]) == sorted(query)
    for positions, of in ((again.support, again.support_labels), (again.query, again.query_labels)):
        for item, label in zip(again.items[positions], of, strict=True):
            assert again.classes[label] == names[item]


def test_an_episode_of_images_that_are_gone_is_refused_by_name():
    dataset = from_arrays(images(4), ["a", "a", "b", "b"])
    with pytest.raises(DataError, match="'a/9'"):
        read_episode(dataset, {"support": {"a": ["a/9"]}, "query": {}})


@pytest.mark.parametrize(
    ("labels", "way_out"),
    [
        (["a", "b"] * 8, "from_arrays"),
        (np.arange(16)[:, None] % 2, r"labels\[:, 0\]"),
        (np.eye(2, dtype=int)[np.arange(16) % 2], "argmax"),
    ],
)
def test_a_sampler_of_other_labels_than_numbers_says_the_way_out(labels: Any, way_out: str):
    options = fs.EpisodesOptions(n_way=2, k_shot=1, n_query=1)
    with pytest.raises(fs.DataError, match=way_out):
        fs.episodes(options, labels)

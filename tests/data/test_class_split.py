"""Classes become train, validation and test: as given, as drawn, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.core.errors import DataError
from fewshot.data.datasets import ArrayDataset, from_arrays
from fewshot.data.split import ClassSplit, SplitOptions, split_classes


def images(n: int) -> NDArray[np.uint8]:
    return np.zeros((n, 2, 2, 3), np.uint8)


def counted(*counts: int, split: ClassSplit | None = None) -> ArrayDataset:
    """Classes c0, c1, … of so many images."""
    return ArrayDataset(
        images(sum(counts)),
        np.repeat(np.arange(len(counts)), counts),
        [f"c{i}" for i in range(len(counts))],
        split=split,
    )


def every(split: ClassSplit) -> list[str]:
    return [*split.train, *split.val, *split.test]


@given(
    st.integers(3, 40),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
    st.integers(0, 2**32),
)
def test_a_drawn_split_is_disjoint_complete_and_of_the_asked_shares(
    n: int, val: float, test: float, seed: int
):
    dataset = counted(*[2] * n)
    n_test, n_val = max(1, round(n * test)), round(n * val)
    assume(n - n_test - n_val >= 2)
    options = SplitOptions(val_fraction=val, test_fraction=test, seed=seed)
    split = split_classes(dataset, options)
    assert sorted(every(split)) == sorted(dataset.classes)
    assert (len(split.val), len(split.test)) == (n_val, n_test)
    assert split_classes(dataset, options) == split


def test_another_seed_draws_another_split():
    dataset = counted(*[2] * 20)
    splits = {split_classes(dataset, SplitOptions(seed=seed)) for seed in range(10)}
    assert len(splits) > 1


def test_the_drawn_split_does_not_depend_on_the_processs_hash_seed():
    code = (
        "import numpy as np\nfrom fewshot.data.datasets import *\n"
        "from fewshot.data.split import *\n"
        "names = [f'class {i}' for i in range(30)]\n"
        "data = from_arrays(np.zeros((60, 1, 1, 3), np.uint8), names * 2)\n"
        "print(split_classes(data, SplitOptions(seed=5)))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
    assert "class 29" in told.pop()


def test_a_split_by_names_is_taken_as_it_is():
    options = SplitOptions(train=("c3", "c0"), val=("c2",), test=("c1",))
    assert split_classes(counted(2, 2, 2, 2, 2), options) == ClassSplit(
        ["c3", "c0"], ["c2"], ["c1"]
    )


def test_a_split_is_read_from_a_file(tmp_path: Path):
    path = tmp_path / "split.toml"
    path.write_text('train = ["c0", "c1"]\ntest = ["c2"]\n')
    split = split_classes(counted(2, 2, 2, 2), SplitOptions(file=str(path)))
    assert split == ClassSplit(["c0", "c1"], [], ["c2"])


@pytest.mark.parametrize(
    "text", ["train = ", "train = 3", 'train = "c0"\ntest = "c1"', "trian = []", None]
)
def test_a_file_that_is_no_split_is_refused(text: str | None, tmp_path: Path):
    path = tmp_path / "split.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError):
        split_classes(counted(2, 2, 2), SplitOptions(file=str(path)))


def test_a_misspelt_list_in_the_file_is_no_silent_loss(tmp_path: Path):
    path = tmp_path / "split.toml"
    path.write_text('train = ["c0", "c1"]\nvall = ["c3"]\ntest = ["c2"]\n')
    with pytest.raises(DataError, match="vall"):
        split_classes(counted(2, 2, 2, 2), SplitOptions(file=str(path)))


def test_validation_names_alone_are_not_passed_over():
    own = ClassSplit(["c0", "c1"], ["c2"], ["c3"])
    try:
        split = split_classes(counted(2, 2, 2, 2, 2, split=own), SplitOptions(val=("c4",)))
    except DataError:
        return
    assert split.val == ("c4",)


def test_the_data_sets_own_split_is_the_default_and_names_replace_it():
    own = ClassSplit(["c0", "c1"], ["c2"], ["c3"])
    dataset = counted(2, 2, 2, 2, split=own)
    assert split_classes(dataset) == own
    named = SplitOptions(train=("c3", "c2"), test=("c0",))
    assert split_classes(dataset, named) == ClassSplit(["c3", "c2"], [], ["c0"])


@pytest.mark.parametrize(
    "parts",
    [
        {"train": ("c0", "c1"), "test": ("c1",)},
        {"train": ("c0", "c1"), "val": ("c1",), "test": ("c2",)},
        {"train": ("c0", "c2"), "val": ("c1",), "test": ("c1",)},
        {"train": ("c0", "c1", "c1"), "test": ("c2",)},
    ],
)
def test_an_overlap_is_refused_by_the_class_name(parts: dict[str, tuple[str, ...]]):
    with pytest.raises(DataError, match="class 'c1' is in"):
        split_classes(counted(2, 2, 2), SplitOptions(**parts))


def test_an_unknown_class_name_is_met_with_the_nearest_one():
    dataset = from_arrays(images(6), ["circle", "square", "triangle"] * 2)
    options = SplitOptions(train=("circle", "sqare"), test=("triangle",))
    with pytest.raises(DataError, match=r"'sqare'.*did you mean 'square'"):
        split_classes(dataset, options)


@pytest.mark.parametrize(
    "options",
    [
        SplitOptions(train=("c0",), test=("c1",)),
        SplitOptions(train=("c0", "c1", "c2", "c3")),
        SplitOptions(val=("c0", "c1"), test=("c2",)),
        SplitOptions(test_fraction=0.75),
    ],
)
def test_a_split_without_two_training_classes_and_a_test_class_is_refused(options: SplitOptions):
    with pytest.raises(DataError, match="at least 2 train classes and 1 test class"):
        split_classes(counted(2, 2, 2, 2), options)


def test_classes_that_no_list_names_are_for_training():
    split = split_classes(counted(2, 2, 2, 2), SplitOptions(val=("c1",), test=("c3",)))
    assert split == ClassSplit(train=("c0", "c2"), val=("c1",), test=("c3",))


def test_a_drawn_split_leaves_two_classes_to_train_on_before_any_validate():
    for classes in range(3, 9):
        split = split_classes(
            counted(*[2] * classes), SplitOptions(val_fraction=0.9, test_fraction=0.1)
        )
        assert len(split.train) == 2
        assert len(split.val) == classes - 3


def test_names_and_a_file_for_one_split_exclude_each_other():
    with pytest.raises(DataError, match="exclude"):
        split_classes(counted(2, 2, 2), SplitOptions(test=("c0",), file="split.toml"))


def test_a_class_too_small_is_refused_by_name_and_number():
    with pytest.raises(DataError) as caught:
        split_classes(counted(9, 1, 9, 4, 9), SplitOptions(min_images=5))
    message = str(caught.value)
    assert "'c1' (1)" in message
    assert "'c3' (4)" in message
    assert "'c0'" not in message
    assert "leave-out" in message


@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=20), st.integers(1, 6), st.integers(0, 2**32)
)
def test_classes_too_small_are_left_out_and_no_other(counts: list[int], least: int, seed: int):
    kept = [f"c{i}" for i, count in enumerate(counts) if count >= least]
    assume(len(kept) >= 5)
    options = SplitOptions(too_small="leave-out", min_images=least, seed=seed)
    assert sorted(every(split_classes(counted(*counts), options))) == sorted(kept)


def test_a_class_too_small_is_left_out_of_a_split_by_names_too():
    options = SplitOptions(
        train=("c0", "c1", "c2"), val=("c3",), test=("c4",), too_small="leave-out"
    )
    assert split_classes(counted(2, 1, 2, 1, 2), options) == ClassSplit(["c0", "c2"], [], ["c4"])


def test_where_nothing_is_trained_all_classes_are_for_test_unless_something_else_is_said():
    dataset = counted(2, 2, 2, 2, 1)
    small = SplitOptions(too_small="leave-out")
    names = ("c0", "c1", "c2", "c3")
    assert split_classes(dataset, small, training=False) == ClassSplit([], [], names)
    drawn = SplitOptions(too_small="leave-out", draw=True)
    assert split_classes(dataset, drawn, training=False) == split_classes(dataset, drawn)
    named = SplitOptions(too_small="leave-out", test=names)
    assert split_classes(dataset, named, training=False) == ClassSplit([], [], names)
    own = ClassSplit(["c0", "c1"], ["c2"], ["c3"])
    assert split_classes(counted(2, 2, 2, 2, split=own), training=False) == own
    with pytest.raises(
        DataError, match="needs 2 classes, of which 1 is for test; here are 1 and 1"
    ):
        split_classes(counted(2), training=False)
    with pytest.raises(DataError, match="at least 2 train classes"):
        split_classes(dataset, named)


@pytest.mark.parametrize("how", ["drawn", "own", "file"])
def test_an_empty_list_is_an_empty_part(how: str, tmp_path: Path):
    own = ClassSplit(("c0", "c1"), ("c2", "c3"), ("c4", "c5"))
    dataset = counted(*[2] * 6, split=own if how == "own" else None)
    file = tmp_path / "split.toml"
    file.write_text('train = ["c0", "c1"]\nval = ["c2", "c3"]\ntest = ["c4", "c5"]\n')
    given = {"file": str(file)} if how == "file" else {}
    usual = split_classes(dataset, SplitOptions(**given))
    assert usual.val
    split = split_classes(dataset, SplitOptions(val=(), **given))
    assert (split.val, split.test) == ((), usual.test)
    assert {*split.train} == {*usual.train, *usual.val}
    with pytest.raises(DataError, match=r"this one has [0-9] and 0"):
        split_classes(dataset, SplitOptions(test=(), **given))
    with pytest.raises(DataError, match="this one has 0 and"):
        split_classes(dataset, SplitOptions(train=(), **given))


def test_without_training_an_empty_validation_part_leaves_all_for_test():
    split = split_classes(counted(2, 2, 2), SplitOptions(val=()), training=False)
    assert split == ClassSplit((), (), ("c0", "c1", "c2"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbftrain = ['c0', 'c1']\ntest = ['c2']", None),
        (b"train = 3", "'train' must be a list of class names"),
        (b"[train]\na = 1", "'train' must be a list of class names"),
        (b"train = ['c0', 1]", "'train' must be a list of class names"),
        (b"train = ['c0']\ntest = ['c0']", "is in train and in test"),
        (b"test = ['\xe9']", "not UTF-8"),
        (b"train = " + b"[" * 3000, "nested too deep"),
    ],
)
def test_a_split_file_is_read_or_named_with_what_is_wrong(
    content: bytes, said: str | None, tmp_path: Path
):
    path = tmp_path / "split.toml"
    path.write_bytes(content)
    options = SplitOptions(file=str(path))
    if said is None:
        assert split_classes(counted(2, 2, 2), options).test == ("c2",)
        return
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        split_classes(counted(2, 2, 2), options)
    assert str(caught.value).startswith(str(path))


def test_a_split_file_may_be_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "split.toml").write_text("train = ['c0', 'c1']\ntest = ['c2']")
    split = split_classes(counted(2, 2, 2), SplitOptions(file="~/split.toml"))
    assert split.test == ("c2",)


@given(parts=st.tuples(*[st.lists(st.sampled_from("abcdef"), max_size=4)] * 3))
def test_a_class_split_is_disjoint_or_refused(parts: tuple[list[str], ...]) -> None:
    listed = [name for part in parts for name in part]
    twice = {name for name in listed if listed.count(name) > 1}
    if twice:
        with pytest.raises(DataError, match=f"class '[{''.join(sorted(twice))}]' is in "):
            ClassSplit(*parts)
    else:
        split = ClassSplit(*parts)
        assert (split.train, split.val, split.test) == tuple(map(tuple, parts))

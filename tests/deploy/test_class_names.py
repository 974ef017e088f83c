"""Class names in Python may be text, numbers or paths; labels of a wrong shape are told why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewshot as fs
from fewshot import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture(scope="module")
def embedder() -> fs.Embedder:
    return fs.Embedder(fs.conv4(fs.Conv4Options(width=2), (16, 16, 3)))


@pytest.mark.parametrize(
    "names",
    [
        (0, 1),
        tuple(np.unique(LABELS)),
        (Path("a/cup"), Path("b")),
        ("cup", 7),
        tuple(np.str_("ab")),
    ],
    ids=["int", "numpy", "path", "mixed", "numpy text"],
)
def test_any_name_is_its_text(names: tuple[Any, ...], embedder: fs.Embedder) -> None:
    few = {name: IMAGES[i == LABELS] for i, name in enumerate(names)}
    made = fs.Classifier.of(embedder, few)
    assert made.classes == tuple(map(str, names))
    assert {each.best for each in made.predict(IMAGES)} <= set(made.classes)
    assert made.enrol({names[0]: IMAGES[:1] // 2}).counts()[str(names[0])] == 4
    assert made.remove(names[0]).classes == (str(names[1]),)
    data = fs.ArrayDataset(IMAGES, LABELS, names)
    assert data.classes == made.classes


def test_a_name_is_one_in_whatever_form_it_comes(embedder: fs.Embedder) -> None:
    made = fs.Classifier.of(embedder, {"\u00e9": IMAGES[:2], "b": IMAGES[3:4]})
    for name in ("e\u0301", " \u00e9", "e\u0301\n"):
        assert made.enrol({name: IMAGES[2:3]}).counts() == {"\u00e9": 3, "b": 1}
        assert made.remove(name).classes == ("b",)


def test_the_rule_of_names_is_one_for_classifiers_and_data_sets(embedder: fs.Embedder) -> None:
    blank = fs.Classifier.of(embedder, {"a": IMAGES[0]})
    for name in ("", "c\u200bup", "a\udcff", "a\nb", "n" * 256, "é" * 128):
        with pytest.raises(DataError, match="can be no class's name") as caught:
            blank.enrol({name: IMAGES[1]})
        str(caught.value).encode()
        with pytest.raises(DataError, match="can be no class's name"):
            fs.ArrayDataset(IMAGES, LABELS, ["a", name])
    for name in ("n" * 255, "می\u200cخواهم", "👨\u200d👩\u200d👧"):
        assert blank.enrol({name: IMAGES[1]}).classes == ("a", name)
        assert fs.ArrayDataset(IMAGES, LABELS, ["a", name]).classes == ("a", name)


def test_lists_and_single_images_are_images_too(embedder: fs.Embedder) -> None:
    made = fs.Classifier.of(embedder, {"a": list(IMAGES[:2]), "b": IMAGES[3]})
    assert made.counts() == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "given", [[IMAGES], IMAGES, "cup", None, {"a": IMAGES[0, :, :, 0]}, {"a": ["cup.png"]}]
)
def test_what_is_not_by_name_is_told_so(given: Any, embedder: fs.Embedder) -> None:
    with pytest.raises(DataError, match="images"):
        fs.Classifier.of(embedder, given)


def test_labels_of_a_wrong_shape_name_what_is_wrong() -> None:
    one_hot = np.eye(2, dtype=int)[LABELS]
    for labels in (one_hot, one_hot.astype(float), one_hot.astype(bool)):
        with pytest.raises(DataError, match=r"not \(6, 2\): these are one-hot.*argmax\(axis=1\)"):
            fs.from_arrays(IMAGES, labels)
    for make in (fs.from_arrays, lambda x, y: fs.ArrayDataset(x, y, ["a", "b"])):
        with pytest.raises(DataError, match=r"not \(6, 1\): take their one column, labels\[:, 0\]"):
            make(IMAGES, LABELS[:, None])
        with pytest.raises(DataError, match="one-hot"):
            make(IMAGES, one_hot)
    with pytest.raises(DataError, match="label 2 is NaN"):
        fs.from_arrays(IMAGES, [0.0, 1.0, np.nan, 0.0, np.nan, 1.0])
    with pytest.raises(DataError, match="uint8, not"):
        fs.from_arrays(IMAGES.tolist(), LABELS)
    assert fs.from_arrays(list(IMAGES), list(LABELS)).images.shape == IMAGES.shape

"""A table of images is read as it says, and what is wrong with it is told by its line."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot.core.errors import DataError
from fewshot.data.split import ClassSplit
from fewshot.data.tables import ImageTableOptions as Options
from fewshot.data.tables import image_table

NAMES = [f"{place}{i}.png" for i in range(3) for place in ("", "in/", "in a/deep, one/")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one colour each, which is their place in NAMES."""
    folder = tmp_path_factory.mktemp("images")
    for i, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / name)
    return folder


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def text_of(header: list[str], rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


LABELS = st.sampled_from(["c1", "c2", "c10", "owl, barn", 'the "x"', "große", "two  spaces"])


@given(
    st.permutations(NAMES),
    st.lists(LABELS, min_size=len(NAMES), max_size=len(NAMES)).filter(lambda x: len({*x}) > 1),
    st.lists(st.sampled_from(["", "g1", "g2"]), min_size=len(NAMES), max_size=len(NAMES)),
    st.permutations(["path", "label", "group", "more"]),
)
@settings(max_examples=25)
def test_every_row_is_an_image_with_its_class_and_group(
    folder: Path, names: list[str], labels: list[str], groups: list[str], columns: list[str]
):
    cells = {"path": names, "label": labels, "group": groups, "more": ["x"] * len(names)}
    rows = [[cells[column][i] for column in columns] for i in range(len(names))]
    path = table(folder, "\ufeff" + text_of(columns, rows))
    dataset = image_table(Options(path=str(path), size=8))
    told = {name: (label, group) for name, label, group in zip(names, labels, groups, strict=True)}
    assert {*dataset.classes} == {*labels}
    assert len(dataset.labels) == len(names)
    for i, (label, file) in enumerate(zip(dataset.labels, dataset.paths, strict=True)):
        assert dataset.classes[label] == told[file.name][0]
        assert (dataset[i] == NAMES.index(file.name)).all()
    assert dataset.notes[0] == "columns passed over: 1 (more)"
    if not any(groups):
        assert dataset.groups is None
        return
    assert dataset.groups is not None
    keys = [told[file.name][1] for file in dataset.paths]
    same = np.array([[a == b != "" for a in keys] for b in keys]) | np.eye(len(keys), dtype=bool)
    np.testing.assert_array_equal(dataset.groups[:, None] == dataset.groups, same)


def test_the_order_of_rows_changes_nothing_and_classes_are_in_order_of_name(folder: Path):
    rows = [[name, f"c{10 - i % 3}"] for i, name in enumerate(NAMES)]
    one = image_table(Options(path=str(table(folder, text_of(["path", "label"], rows)))))
    other = image_table(Options(path=str(table(folder, text_of(["path", "label"], rows[::-1])))))
    assert one.classes == other.classes == ("c8", "c9", "c10")
    assert one.names == other.names
    assert (one.notes, one.split, one.groups) == ((), None, None)


def test_a_column_of_parts_is_the_class_split(folder: Path):
    text = "path,label,split\n0.png,a,train\n1.png,b,Train\n2.png,c,validation\nin/0.png,d,test\n"
    dataset = image_table(Options(path=str(table(folder, text))))
    assert dataset.split == ClassSplit(["a", "b"], ["c"], ["d"])
    assert dataset.notes == (
        "the column 'split' is the class split: train 2, val 1, test 1 classes",
    )
    ignored = image_table(Options(path=str(table(folder, text)), split_column=""))
    assert (ignored.split, ignored.notes) == (None, ("columns passed over: 1 (split)",))


def test_columns_may_have_other_names(folder: Path):
    text = "filename,class,signer\n0.png,a,1\n1.png,a,2\nin/0.png,b,1\n"
    options = Options(
        path=str(table(folder, text)), image_column="filename", label_column="class",
        group_column="signer",
    )  # fmt: skip
    assert image_table(options).groups.tolist() == [0, 1, 0]


H = "path,label\n"
WRONG = {
    "no such column": ("file,label\n0.png,a\n", r"no column 'path' \(--set dataset.image_column"),
    "near": ("path,labels\n0.png,a\n", "did you mean 'labels'"),
    "semicolons": ("path;label\n0.png;a\n", "parted by commas"),
    "no label": (H + "0.png,a\n1.png,\n", "line 3: nothing in the column 'label'"),
    "no path": (H + "0.png,a\n,b\n", "line 3: nothing in the column 'path'"),
    "no file": (H + "0.png,a\n\n1.png,b\nx.png,b\n", "line 5: no file '.*x.png'; paths start"),
    "a folder": (H + "0.png,a\nin,b\ny,b\n", r"line 3: no file '.*in' \(and 1 more\)"),
    "cells": (H + "0.png,a\n1.png,b,c\n", "line 3: 3 cells, its header has 2"),
    "lines in a cell": (H + '0.png,"a\nb"\n1.png\n', "line 4: 1 cells"),
    "a name of two lines": (H + '0.png,a\n1.png,"a\nb"\n', r"line 3: 'a\\nb' can be no class's"),
    "twice": (H + "0.png,a\n1.png,b\n./0.png,b\n", "line 4: './0.png' is in .*line 2 too"),
    "quote": (H + '0.png,"a"b\n', "line 2: not CSV"),
    "one class": (H + "0.png,a\n1.png,a\n", r"one class only \(a\); at least two"),
    "nothing": ("", "no column 'path'"),
    "a header alone": (H, "no row below its header"),
    "zero byte": (H + "0.png,a\n1\0.png,b\n", "line 3: no file"),
    "a part": ("path,label,split\n0.png,a,train\n1.png,b,dev\n", "line 3: 'dev' is no part"),
    "no part": ("path,label,split\n0.png,a,train\n1.png,b,\n", "line 3: '' is no part"),
    "one class in two forms": (H + "0.png,\u00e9\n1.png,e\u0301\n", r"one class only \(\u00e9\)"),
    "two forms in two parts": (
        "path,label,split\n0.png,\u00e9,train\n1.png,e\u0301,test\n2.png,b,test\n",
        "line 3: class '\u00e9' is in test here and in train",
    ),
    "two parts": (
        "path,label,split\n0.png,a,train\n1.png,a,test\n2.png,b,test\n",
        "line 3: class 'a' is in test here and in train in .*line 2; .*dataset.split_column=",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_is_told_by_table_and_line(fault: str, folder: Path):
    text, said = WRONG[fault]
    path = table(folder, text, "wrong.csv")
    with pytest.raises(DataError, match=said) as caught:
        image_table(Options(path=str(path)))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_none_is_named(folder: Path):
    (folder / "latin.csv").write_bytes(b"path,label\n\xe9.png,a\n")
    with pytest.raises(DataError, match=r"latin\.csv: not in UTF-8"):
        image_table(Options(path=str(folder / "latin.csv")))
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read: No such file"):
        image_table(Options(path=str(folder / "gone.csv")))
    path = table(folder, "path,label\n0.png,a\n1.png,b\n")
    with pytest.raises(DataError, match=r"no column 'fold' \(--set dataset.split_column"):
        image_table(Options(path=str(path), split_column="fold"))
    with pytest.raises(DataError, match="needs a table"):
        image_table(Options())


# ------------------------------------------------------------------------------- Parquet


def test_a_parquet_file_is_read_as_the_same_table_in_csv(folder: Path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [[name, i % 3, ["train", "val", "test"][i % 3]] for i, name in enumerate(NAMES)]
    path, label, split = zip(*rows, strict=True)
    group = [None, *(f"g{i % 2}" for i in range(1, len(NAMES)))]
    columns = {"path": path, "label": label, "split": split, "group": group}
    parquet.write_table(arrow.table(columns), folder / "t.parquet")
    cells = [[*map(str, row), of or ""] for row, of in zip(rows, group, strict=True)]
    one = image_table(Options(path=str(folder / "t.parquet")))
    other = image_table(Options(path=str(table(folder, text_of([*columns], cells)))))
    assert (one.classes, one.names, one.split, one.notes) == (
        other.classes, other.names, other.split, other.notes,
    )  # fmt: skip
    np.testing.assert_array_equal(one.groups, other.groups)
    (folder / "bad.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(DataError, match=r"bad.parquet: no Parquet file"):
        image_table(Options(path=str(folder / "bad.parquet")))
    parquet.write_table(
        arrow.table({"path": ["0.png", None], "label": ["a", "b"]}), folder / "n.parquet"
    )
    with pytest.raises(DataError, match=r"n\.parquet, row 2: nothing in the column 'path'"):
        image_table(Options(path=str(folder / "n.parquet")))


def test_without_pyarrow_the_extra_is_named(folder: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(DataError, match=r"t2.parquet: .*pip install 'fewshot\[parquet\]'"):
            image_table(Options(path=str(folder / "t2.parquet")))


def test_labels_that_are_one_but_for_their_form_are_one_class(folder: Path):
    dataset = image_table(
        Options(path=str(table(folder, H + "0.png,\u00e9\n1.png,b\n2.png,e\u0301\n")), size=8)
    )
    assert (dataset.classes, dataset.labels.tolist()) == (("b", "\u00e9"), [0, 1, 1])
    assert "2 names are one class" in " ".join(dataset.notes)

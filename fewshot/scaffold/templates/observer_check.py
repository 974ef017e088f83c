"""The observer keeps the laws, and writes what it is told."""

import csv

from fewshot.testing import check_observer

from PLUGIN_MODULE import Options, observer


def test_it_keeps_the_laws_of_an_observer():
    check_observer(observer, Options())


def test_every_record_is_a_row(tmp_path):
    told = observer(Options(file="rows.csv"))
    told.start(tmp_path, {"seed": 0})
    told.record({"step": 50, "loss": 0.5})
    told.record({"step": 100, "loss": 0.25, "score": None})
    told.end(None)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["50", "100"]
    assert [row["loss"] for row in rows] == ["0.5", "0.25"]

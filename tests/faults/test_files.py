"""A few damaged and malformed files of every kind; `python -m tests.faults.files` has more."""

from pathlib import Path

import pytest

from tests.faults.files import Kind, kinds, malformed_documents, tried

NAMES = (
    "settings of a run", "manifest", "results", "records", "weights", "classifier", "cache",
    "trials", "configuration", "class split", "study", "search",
)  # fmt: skip


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    found = {kind.name: kind for kind in kinds(tmp_path_factory.mktemp("faults"))}
    assert {*found} == {*NAMES}
    return found


@pytest.mark.parametrize("how", ["damaged", "malformed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_refused_in_one_line_or_means_what_it_did(
    name: str, how: str, every: dict[str, Kind]
) -> None:
    kind = every[name]
    if how == "malformed" and kind.text is None:
        pytest.skip("bytes have no shape")
    found = tried(kind, how, 8, seed=1)
    assert found["CHANGED"] == found["TRACEBACK"] == 0
    assert found["refused"] > 0 or name in ("cache", "trials")


def test_a_malformed_document_of_a_classifier_is_refused(every: dict[str, Kind]) -> None:
    found = malformed_documents(every["classifier"].path, 8)
    assert found["TRACEBACK"] == 0
    assert found["refused"] > 0


def test_a_changed_figure_and_an_error_of_many_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x00" * 16)
    assert tried(Kind("believes anything", path, path.read_bytes), "damaged", 8)["CHANGED"] > 0
    whole = path.read_bytes()

    def fail() -> None:
        if path.read_bytes() != whole:
            raise KeyError("a traceback")

    assert tried(Kind("raises anything", path, fail), "damaged", 8)["TRACEBACK"] > 0

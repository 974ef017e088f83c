"""A number agrees with its noun."""

import pytest

from fewshot.core.wording import counted


@pytest.mark.parametrize(
    ("count", "file", "class_"),
    [(0, "0 files", "0 classes"), (1, "1 file", "1 class"), (21, "21 files", "21 classes")],
)
def test_one_alone_is_singular(count: int, file: str, class_: str) -> None:
    assert (counted(count, "file"), counted(count, "class", "classes")) == (file, class_)

"""A folder to work in, and small images in it."""

from pathlib import Path

import pytest
from small_runs import CLASSES, PER_CLASS, write_images


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def data(work: Path) -> Path:
    return write_images(work / "data", {f"class {i}": PER_CLASS for i in range(CLASSES)})

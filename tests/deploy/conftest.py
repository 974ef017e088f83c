"""A classifier without classes, and one of two."""

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from classifiers import photo
from strategies import REGISTRY

import fewshot as fs


@pytest.fixture(scope="module")
def blank(trained: Path) -> fs.Classifier:
    """By one engine: "auto" takes another after a while, whose answers are rounded otherwise."""
    return evolve(fs.Classifier.load(trained, REGISTRY), engine="mlx")


@pytest.fixture(scope="module")
def enrolled(blank: fs.Classifier) -> fs.Classifier:
    rng = np.random.default_rng(1)
    return blank.enrol({"cup": [photo(rng)], "key": [photo(rng) for _ in range(3)]})

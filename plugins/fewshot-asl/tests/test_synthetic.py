"""The drawn alphabet as a data set: the same image for the same number, whoever draws it."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import ConfigError, DataError, decode, split_classes
from fewshot.catalogue.loading import build_registry
from fewshot.engine.objective import check_fits
from fewshot.experiments.config import resolve
from fewshot.experiments.run import build
from fewshot_asl import synthetic as module
from fewshot_asl.alphabet import CLASSES, SPLIT
from fewshot_asl.synthetic import Drawn, SyntheticOptions, synthetic

REGISTRY = build_registry()[0]
SMALL = SyntheticOptions(size=32, images=2)


@pytest.fixture(scope="module")
def loaded() -> np.ndarray:
    return synthetic(SMALL).load()


def test_classes_and_split_are_those_of_the_photos():
    dataset = synthetic(SMALL)
    assert dataset.classes == CLASSES
    assert split_classes(dataset) == SPLIT
    assert np.bincount(dataset.labels).tolist() == [2] * 29
    assert dataset.groups is None


def test_loading_all_gives_item_by_item(loaded: np.ndarray):
    dataset = synthetic(SMALL)
    assert loaded.shape == (58, 32, 32, 3)
    assert loaded.dtype == np.uint8
    for i in range(len(loaded)):
        np.testing.assert_array_equal(loaded[i], dataset[i], err_msg=str(i))


def test_decoding_takes_that_way_and_tells_progress(loaded: np.ndarray):
    told: list[tuple[int, int]] = []
    arrays = decode(synthetic(SMALL), lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(arrays.images, loaded)
    assert arrays.split == SPLIT
    assert told == sorted(told)
    assert told[-1] == (58, 58)


@given(st.integers(0, 57), st.integers(0, 2**32))
@settings(max_examples=10)
def test_an_image_depends_on_seed_and_index_alone(index: int, seed: int):
    options = SyntheticOptions(size=32, images=2, seed=seed)
    one, other = synthetic(options), synthetic(options)
    _ = other[(index + 5) % 58]  # in another order
    np.testing.assert_array_equal(one[index], other[index])
    assert (one[index] != synthetic(SyntheticOptions(32, 2, seed + 1))[index]).any()


def test_no_two_images_are_alike(loaded: np.ndarray):
    assert len({image.tobytes() for image in loaded}) == len(loaded)


def test_an_image_is_the_same_in_another_process(loaded: np.ndarray):
    code = (
        "import sys\nfrom fewshot_asl.synthetic import *\n"
        "sys.stdout.buffer.write(synthetic(SyntheticOptions(32, 2))[41].tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == loaded[41].tobytes()


def test_a_process_that_fails_is_a_data_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "__name__", "fewshot_asl.not_there")
    with pytest.raises(DataError, match="exit code 1"):
        module._elsewhere(SMALL, 1, 2)


def test_drawing_needs_neither_mlx_nor_the_command_line():
    code = (
        "import sys, fewshot_asl.synthetic\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'mlx', 'click', 'pluggy', 'scipy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("values", [{"size": 1}, {"size": 10**6}, {"images": 0}, {"seed": -1}])
def test_options_that_cannot_be_are_refused(values: dict[str, int]):
    with pytest.raises(ConfigError, match=next(iter(values))):
        resolve(REGISTRY, [{"dataset": {"name": "asl-synthetic", **values}}])


def test_it_is_what_a_run_takes_where_nothing_is_named():
    config = resolve(REGISTRY, [])
    assert config.dataset.name == "asl/asl-synthetic"
    assert config.backbone.name == "asl/simplecnn"


@pytest.mark.parametrize(
    "preset", [e.name for e in REGISTRY.all("preset") if e.provider in ("asl", "builtin")]
)
def test_every_preset_can_be_built_on_it(preset: str):
    layer = {"preset": preset, "dataset": "asl-synthetic", "split": {}}
    config = resolve(REGISTRY, [{**layer, "evaluation": {"k_shot": [1], "repeats": 2}}])
    parts = build(config, REGISTRY)
    check_fits(parts.embedder, parts.sampler, parts.loss, parts.metric, parts.head)
    assert isinstance(parts.dataset, Drawn)
    assert parts.split == SPLIT
    assert parts.embedder.backbone.embedding_dim > 0

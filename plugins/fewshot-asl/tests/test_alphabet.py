"""The photos: the experiment's classes and split, the Kaggle layout, groups by their numbers."""

import os
import string
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewshot import ConfigError, DataError
from fewshot.catalogue.loading import build_registry
from fewshot.data.split import split_classes
from fewshot.experiments.config import resolve, settings_layer, to_tree
from fewshot.experiments.run import run
from fewshot_asl.alphabet import CLASSES, SPLIT, VARIABLE, AlphabetOptions, alphabet, fetch_photos
from fewshot_asl.poses import NAMES

REGISTRY = build_registry()[0]
REAL = os.environ.get(VARIABLE)


@pytest.fixture(autouse=True)
def no_data_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "fetched"))


def photos(root: Path, numbers: tuple[int, ...] = (1, 2), leave_out: tuple[str, ...] = ()) -> Path:
    """The Kaggle set's layout and names, with a colour for each class in place of photos."""
    train = root / "asl_alphabet_train" / "asl_alphabet_train"
    test = root / "asl_alphabet_test" / "asl_alphabet_test"
    test.mkdir(parents=True)
    for i, name in enumerate(CLASSES):
        if name in leave_out:
            continue
        image = Image.new("RGB", (8, 8), (8 * i, 255 - 8 * i, 100))
        (train / name).mkdir(parents=True)
        for number in numbers:
            image.save(train / name / f"{name}{number}.jpg")
        if name != "del":  # as in the original
            image.save(test / f"{name}_test.jpg")
    return root


def packed(root: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path


# -------------------------------------------------------------------------- classes and split


def test_the_classes_are_26_letters_and_three_more():
    assert sorted(CLASSES) == sorted([*string.ascii_uppercase, "del", "nothing", "space"])
    assert len(set(CLASSES)) == 29
    assert set(CLASSES) == set(NAMES)


def test_the_split_is_the_papers():
    assert (len(SPLIT.train), len(SPLIT.val), len(SPLIT.test)) == (20, 3, 6)
    assert sorted([*SPLIT.train, *SPLIT.val, *SPLIT.test]) == sorted(CLASSES)
    assert set(SPLIT.val) == set("HWY")
    assert set(SPLIT.test) == set("BEGLOU")


def test_a_run_takes_that_split(tmp_path: Path):
    assert split_classes(alphabet(AlphabetOptions(path=str(photos(tmp_path))))) == SPLIT


# ------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    "level", ["", "asl_alphabet_train", "asl_alphabet_train/asl_alphabet_train"]
)
@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_the_photos_are_found_at_any_level(level: str, pack: bool, tmp_path: Path):
    place = photos(tmp_path / "root") / level
    if pack:
        place = packed(place, tmp_path / "archive.zip")
    dataset = alphabet(AlphabetOptions(path=str(place), size=8))
    assert dataset.classes == CLASSES
    assert [Path(name).name for name in dataset.names] == [
        f"{name}{number}.jpg" for name in CLASSES for number in (1, 2)
    ]
    np.testing.assert_array_equal(dataset.labels, np.repeat(np.arange(29), 2))
    for i in (0, 57):
        colour = (8 * (i // 2), 255 - 8 * (i // 2), 100)
        np.testing.assert_allclose(dataset[i], np.full((8, 8, 3), colour), atol=4)


def test_the_variable_names_the_photos_and_the_option_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, str(photos(tmp_path / "one")))
    assert len(alphabet(AlphabetOptions()).labels) == 2 * 29
    other = photos(tmp_path / "other", numbers=(1, 2, 3))
    assert len(alphabet(AlphabetOptions(path=str(other))).labels) == 3 * 29


def test_without_photos_it_says_where_to_get_them_and_how_to_name_them():
    with pytest.raises(DataError) as caught:
        alphabet(AlphabetOptions())
    message = str(caught.value)
    assert "grassknoted/asl-alphabet" in message
    assert "fewshot data fetch asl-alphabet" in message
    assert "Kaggle" in message
    assert "--data" in message
    assert "FEWSHOT_ASL_DATA" in message
    assert "\n" not in message


def test_what_is_left_out_is_told(tmp_path: Path):
    (note,) = alphabet(AlphabetOptions(path=str(photos(tmp_path)))).notes
    assert "belong to no class: 28 (28 in asl_alphabet_test/asl_alphabet_test)" in note


def test_missing_classes_are_named(tmp_path: Path):
    root = photos(tmp_path, leave_out=("Q", "space"))
    with pytest.raises(DataError) as caught:
        alphabet(AlphabetOptions(path=str(root)))
    message = str(caught.value)
    assert str(root) in message
    assert "Q, space" in message
    assert "nothing" not in message


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere"):
        alphabet(AlphabetOptions(path=str(tmp_path / "nowhere")))


# ------------------------------------------------------------------------- fetched from Kaggle


def kagglehub(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A stand-in for the package, for what is called and what it may raise; no download."""
    lines = "def dataset_download(handle, path=None, *, force_download=False, output_dir=None):"
    (folder / "kagglehub.py").write_text(f"{lines}\n    {body}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "kagglehub", raising=False)


def test_kagglehub_is_asked_for_the_data_set_and_the_photos_are_then_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, folder = photos(tmp_path / "kaggle"), tmp_path / "fetched" / "asl-alphabet"
    body = (
        "import shutil; assert handle == 'grassknoted/asl-alphabet'; "
        f"shutil.copytree({str(source)!r}, output_dir)"
    )
    kagglehub(tmp_path, monkeypatch, body)
    fetch = REGISTRY.get("dataset", "asl-alphabet").component.fetch
    assert fetch is not None
    fetch(folder, lambda file, done, total: None)
    assert len(alphabet(AlphabetOptions()).labels) == 2 * 29


def test_what_kaggle_refuses_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kagglehub(tmp_path, monkeypatch, "raise RuntimeError('403 Client Error.\\n\\nNo token')")
    with pytest.raises(DataError, match=r"403 Client Error\. No token.*access_token") as caught:
        fetch_photos(tmp_path / "x", None)
    assert "\n" not in str(caught.value)


def test_without_kagglehub_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match="pip install 'kagglehub"):
        fetch_photos(tmp_path / "x", None)


# ------------------------------------------------------------------------------------- groups


@given(run_length=st.integers(1, 7), numbers=st.sets(st.integers(1, 40), min_size=1, max_size=6))
def test_consecutive_numbers_are_one_group(
    run_length: int, numbers: set[int], tmp_path_factory: pytest.TempPathFactory
):
    root = tmp_path_factory.mktemp("photos")
    for name in CLASSES:
        (root / name).mkdir()
        for number in numbers:
            (root / name / f"{name}{number}.jpg").touch()  # not decoded here
    dataset = alphabet(AlphabetOptions(path=str(root), run_length=run_length))
    assert dataset.groups is not None
    keys = [
        (label, (number - 1) // run_length)
        for label in range(len(CLASSES))
        for number in sorted(numbers)
    ]
    first = np.equal.outer(dataset.groups[: 2 * len(numbers)], dataset.groups)
    wanted = [[key == other for other in keys] for key in keys[: 2 * len(numbers)]]
    np.testing.assert_array_equal(first, wanted)
    assert len(np.unique(dataset.groups)) == len(set(keys))


def test_groups_are_of_ten_by_default(tmp_path: Path):
    root = photos(tmp_path, numbers=(1, 10, 11, 20, 21))
    groups = alphabet(AlphabetOptions(path=str(root))).groups
    assert groups is not None
    assert groups[:5].tolist() == [0, 0, 1, 1, 2]


def test_files_without_a_number_are_one_group(tmp_path: Path):
    root = photos(tmp_path)
    folder = root / "asl_alphabet_train" / "asl_alphabet_train" / "A"
    (folder / "A1.jpg").rename(folder / "extra.jpg")
    (folder / "A2.jpg").rename(folder / "more.jpg")
    groups = alphabet(AlphabetOptions(path=str(root))).groups
    assert groups is not None
    assert groups[0] == groups[1]
    assert groups[1] not in groups[2:]


def test_a_validation_class_of_one_shot_is_refused_by_name_before_training(tmp_path: Path):
    """Verification draws pairs from two shots of a class, and H has one."""
    root = photos(tmp_path / "data", numbers=tuple(range(1, 31)))
    for number in range(11, 31):
        (root / "asl_alphabet_train" / "asl_alphabet_train" / "H" / f"H{number}.jpg").unlink()
    settings = ["dataset.size=16", "backbone.width=2", "sampler.per_class=2", "training.steps=1"]
    parts = {"dataset": {"name": "asl-alphabet", "path": str(root)}, "backbone": "conv4"}
    few = {"evaluation": {"k_shot": [1], "repeats": 2}}
    config = resolve(REGISTRY, [parts, few, settings_layer(settings)])
    with pytest.raises(DataError, match=r"class 'H' has 1 group"):
        run(config, REGISTRY, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# ------------------------------------------------------------------------- through the registry


def test_the_options_are_checked():
    for values in ({"size": 4}, {"run_length": 0}, {"max_pixels": 0}, {"rot": "x"}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            resolve(REGISTRY, [{"dataset": {"name": "asl-alphabet", **values}}])


@pytest.mark.parametrize("number", range(1, 5))
def test_the_papers_models_are_presets(number: int):
    config = resolve(REGISTRY, [{"preset": f"asl-model-{number}"}])
    assert config.backbone.name == "asl/simplecnn"
    assert (config.metric.name, config.loss.name) == ("euclidean", "contrastive")
    assert (config.sampler.name, config.sampler.options.groups) == ("pairs", "mixed")
    assert config.evaluation.groups == ("mixed",)
    names = [chosen.name for chosen in config.augment]
    others = ["crop", "colour", "blur"]
    assert names == {1: [], 2: ["flip", *others], 3: [], 4: others}[number]
    assert (config.backbone.options.dropout > 0) == (number == 3)
    assert (config.backbone.options.order == "norm-relu") == (number == 4)


def test_the_recommended_recipe_differs_from_its_siblings_by_the_loss_alone():
    best, *siblings = (
        to_tree(resolve(REGISTRY, [{"preset": f"asl-{name}"}]))
        for name in ("best", "contrastive", "triplet", "prototypical")
    )
    assert best["sampler"]["name"] == "proxies"
    assert best["split"]["test"] == list(SPLIT.test)
    for sibling in siblings:
        differing = {key for key in best if best[key] != sibling[key]}
        through_the_head = {"head"} if sibling["sampler"]["name"] == "episodes" else set()
        assert differing <= {"loss", "metric", "sampler"} | through_the_head


def test_the_recipe_for_other_people_is_the_best_one_beside_a_network_of_photos():
    if not find_spec("fewshot_pretrained"):
        assert "asl-people" not in REGISTRY.names("preset")
        pytest.skip("asl-people is offered beside fewshot-pretrained, which is not installed")
    best = to_tree(resolve(REGISTRY, [{"preset": "asl-best"}]))
    config = resolve(REGISTRY, [{"preset": "asl-people"}, {"dataset": {"path": "PHOTOS"}}])
    people = to_tree(config)
    differing = {key for key in best if best[key] != people[key]}
    assert differing == {"dataset", "backbone", "embedding"}
    assert people["backbone"]["parts"]["hands"] == best["backbone"] | {"shrink": 3}
    photos, drawn = (config.dataset.options.sources[name] for name in ("photos", "drawn"))
    assert (photos.name, photos.options.path) == ("asl/asl-alphabet", "PHOTOS")
    assert (photos.options.size, drawn.options.size) == (144, 144)


@pytest.mark.skipif(not REAL, reason=f"the photos are not here: {VARIABLE} is not set")
def test_the_real_photos_load():
    dataset = alphabet(AlphabetOptions(path=str(REAL)))
    assert len(dataset.classes) == 29
    counts = np.bincount(dataset.labels, minlength=29)
    assert counts.min() >= 30
    assert dataset.groups is not None
    assert len(np.unique(dataset.groups)) > 29
    for index in np.flatnonzero(np.diff(dataset.labels, prepend=-1)):
        image = dataset[int(index)]
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8

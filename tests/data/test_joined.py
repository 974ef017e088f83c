"""Data sets as one: whose each image is, what they share, and what their configuration says."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from commands import done, error
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import make
from fewshot.core.errors import ConfigError, DataError
from fewshot.data.datasets import ArrayDataset, decode
from fewshot.data.joined import Joined, JoinedOptions, PeopleOptions, joined, people
from fewshot.experiments.config import RunConfig, resolve, settings_layer, to_toml
from fewshot.experiments.folder import run_config
from fewshot.experiments.run import trained
from fewshot.testing import check_dataset

REGISTRY = build_registry()[0]
NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8)


def of(names: list[str], seed: int = 0, size: int = 8, c: int = 3, **more: Any) -> ArrayDataset:
    """Noise of classes, an image for each name."""
    shape = len(names), size, size, c
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return attrs.evolve(fs.from_arrays(images, names), **more)


def one(*parts: ArrayDataset, size: int = 8, **more: Any) -> Joined:
    sources = {f"source {i}": part for i, part in enumerate(parts)}
    return joined(JoinedOptions(sources, size=size, **more))


def named(data: Any) -> NDArray[Any]:
    return np.array(data.classes)[data.labels]


@given(parts=st.lists(NAMES, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_every_image_keeps_its_class_its_source_and_its_group(
    parts: list[list[str]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    every = [
        of(names, i, groups=None if i % 2 else rng.integers(0, 3, len(names)))
        for i, names in enumerate(parts)
    ]
    data = one(*every)
    assert sorted(data.classes) == sorted({name for names in parts for name in names})
    assert named(data).tolist() == np.concatenate([named(part) for part in every]).tolist()
    assert np.array_equal(data.load(), np.concatenate([part.images for part in every]))
    whose = [f"source {i}" for i, names in enumerate(parts) for _ in names]
    assert data.source.tolist() == whose
    assert len(set(data.names)) == len(whose)
    assert data.groups is not None
    own = [(i, j if p.groups is None else p.groups[j]) for i, p in enumerate(every)
           for j in range(len(p.labels))]  # fmt: skip
    same = np.array([[a == b for b in own] for a in own])
    assert np.array_equal(data.groups[:, None] == data.groups, same)
    grouped = one(*every, grouped="sources").groups
    assert grouped is not None
    assert np.array_equal(grouped[:, None] == grouped, data.source[:, None] == data.source)


def test_groups_are_unknown_where_no_source_knows_any() -> None:
    assert one(of(["a"]), of(["b"])).groups is None


def test_images_are_made_of_one_size_and_of_colour() -> None:
    grey, large = of(["a", "b"], c=1), of(["a"], size=16)
    data = one(grey, large)
    found = data.load()
    assert np.array_equal(found[:2], np.repeat(grey.images, 3, axis=3))
    quarters = large.images[0].reshape(8, 2, 8, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(found[2] - quarters).max() <= 1  # scaled down by area, in two passes
    assert np.array_equal(found[2], data[2])


@given(parts=st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(
    ("train", "val", "test")), min_size=1), min_size=1, max_size=3))  # fmt: skip
def test_what_a_source_holds_out_is_held_out(parts: list[dict[str, str]]) -> None:
    def split(part_of: dict[str, str]) -> fs.ClassSplit:
        lists = [[n for n in part_of if part_of[n] == p] for p in ("train", "val", "test")]
        return fs.ClassSplit(*lists)

    data = one(*(of(list(part), split=split(part)) for part in parts), of(["e"]))
    assert data.split is not None
    for name in data.classes:
        said = {part[name] for part in parts if name in part}
        due = next((p for p in ("test", "val") if p in said), "train")
        assert name in getattr(data.split, due)


def test_roles_and_parents_are_those_of_the_sources_that_say() -> None:
    plain, told = of(["a", "b"]), of(["b", "c"], role=np.array(["support", "query"]), parents="xy")
    assert (one(plain).role, one(plain).parents) == (None, None)
    both = one(plain, told)
    assert both.role is not None
    assert both.role.tolist() == ["both", "both", "support", "query"]
    assert both.parents == ["source 0", "source 0", "y"]


def test_what_cannot_be_joined_is_named() -> None:
    with pytest.raises(DataError, match=r"sources\.NAME"):
        joined(JoinedOptions())
    with pytest.raises(DataError, match="'source 1' has images of 2 channels, others have 3"):
        one(of(["a"]), of(["a"], c=2))
    with pytest.raises(IndexError):
        one(of(["a"]))[1]


# ------------------------------------------------------------------------- configuration


def config(*settings: str) -> RunConfig:
    base = {"dataset": {"name": "joined", "size": 16}, "backbone": "conv4"}
    return resolve(REGISTRY, [base, settings_layer(settings)])


def sources(config: RunConfig) -> dict[str, Any]:
    return {name: inner.options for name, inner in config.dataset.options.sources.items()}


TWO = (
    "dataset.sources.anna=image-folder",
    "dataset.sources.ben.name=image-folder",
    "dataset.sources.ben.path=BEN",
    "dataset.sources.ben.size=32",
)


def test_size_and_path_are_handed_to_sources_that_do_not_say_their_own() -> None:
    found = sources(config(*TWO, "dataset.path=ALL"))
    assert {name: (o.path, o.size) for name, o in found.items()} == {
        "anna": ("ALL", 16), "ben": ("BEN", 32)
    }  # fmt: skip


def test_a_written_configuration_hands_on_what_is_changed_later() -> None:
    import tomllib

    first = config(*TWO, "dataset.path=ALL")
    again = tomllib.loads(to_toml(first))
    assert resolve(REGISTRY, [again]) == first
    moved = resolve(REGISTRY, [again, {"dataset": {"path": "ELSEWHERE", "size": 8}}])
    assert {name: (o.path, o.size) for name, o in sources(moved).items()} == {
        "anna": ("ELSEWHERE", 8), "ben": ("BEN", 32)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dataset.sources=[1]", "dataset.sources wants a table of datasets by name"),
        ("dataset.sources.anna=3", "dataset.sources.anna wants a dataset, by name or as a table"),
        ("dataset.sources.anna.path=X", "dataset.sources.anna wants a dataset, by name"),
        (
            "dataset.sources.anna=image-foldr",
            r"dataset.sources.anna: unknown dataset.*image-folder",
        ),
        ("dataset.sources.ben={name='arrays',sise=3}", "dataset.sources.ben has no option 'sise'"),
    ],
)
def test_a_source_that_cannot_be_is_named(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(setting)


# ----------------------------------------------------------------------------- on a disk


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, five classes of the first, four of the second, six photos each."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    for person, classes in (("anna", "abcde"), ("ben", "abcd")):
        for i, name in enumerate(classes):
            (root / person / name).mkdir(parents=True)
            for j in range(6):
                noise = rng.integers(0, 160, (16, 16, 3)) + 20 * i
                Image.fromarray(noise.astype(np.uint8)).save(root / person / name / f"{j}.png")
    return root


def test_a_folder_of_people_keeps_the_laws_and_is_what_their_folders_are(folder: Path) -> None:
    options = PeopleOptions(str(folder), size=16)
    check_dataset(people, options)
    data, parts = decode(people(options)), []
    for person in ("anna", "ben"):
        parts.append(decode(fs.image_folder(fs.ImageFolderOptions(str(folder / person), size=16))))
    assert np.array_equal(data.images, np.concatenate([part.images for part in parts]))
    assert data.source is not None
    assert data.source.tolist() == ["anna"] * 30 + ["ben"] * 24
    chosen = config(*TWO[:1], f"dataset.path={folder / 'anna'}").dataset
    check_dataset(lambda _: make(REGISTRY.get("dataset", "joined"), chosen.options), chosen.options)


def test_people_of_whom_there_is_one_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="--data PATH"):
        people(PeopleOptions())
    (folder.parent / "alone" / "anna").mkdir(parents=True)
    with pytest.raises(DataError, match="1 folders, where one a person is due"):
        people(PeopleOptions(str(folder.parent / "alone")))


def test_a_run_asks_one_person_about_another_and_says_so(folder: Path, tmp_path: Path) -> None:
    small = (
        *("--set", "backbone.width=2", "--set", "dataset.size=16", "--k-shot", "1,2"),
        *("--set", "evaluation.repeats=2", "--set", "evaluation.pairs=20"),
    )
    asked = ("support from anna, queries from ben", "support from ben, queries from anna")
    run = done(
        "run", "--dataset", "people", "--data", folder, "--backbone", "conv4", "--steps", 2,
        "--groups", "sources", *small, "--out", tmp_path / "run", "--set", "sampler.per_class=2",
        "--set", 'split.test=["c", "d"]',
    )  # fmt: skip
    page = (tmp_path / "run" / "report.html").read_text()
    for words in asked:
        assert words in " ".join(run.stdout.split())
        assert words in page
        assert words in (tmp_path / "run" / "results.json").read_text()
    parts = trained(tmp_path / "run", REGISTRY)
    assert parts.split.test == ("c", "d")
    again = done(
        "eval", tmp_path / "run", "--dataset", "joined", "--data", folder / "anna",
        "--set", "dataset.sources.a.name=image-folder",
        "--set", "dataset.sources.b.name=image-folder",
        "--set", f"dataset.sources.b.path={folder / 'ben'}", "--groups", "sources", *small[4:],
    )  # fmt: skip
    assert "support from b, queries from a" in " ".join(again.stdout.split())
    (evaluated,) = (tmp_path / "run").glob("eval-*")
    chosen = resolve(REGISTRY, [run_config(evaluated)])
    assert {name: (o.path, o.size) for name, o in sources(chosen).items()} == {
        "a": (str(folder / "anna"), 16), "b": (str(folder / "ben"), 16)
    }  # fmt: skip
    alone = error(
        4, "eval", tmp_path / "run", "--dataset", "image-folder", "--data", folder / "anna",
        "--groups", "sources",
    )  # fmt: skip
    assert "--dataset people" in alone

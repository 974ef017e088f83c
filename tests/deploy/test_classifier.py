"""A classifier of one's own classes: a value, asked in any way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from classifiers import SIZE, equal, photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sealing import sealed
from strategies import REGISTRY

import fewshot as fs
from fewshot.data.images import Reading, picture
from fewshot.experiments.assembly import build
from fewshot.experiments.config import resolve
from fewshot.experiments.folder import read_results, run_config
from fewshot.experiments.run import evaluate_run, run
from fewshot.reports.run_page import facts

seeds = st.integers(0, 2**32 - 1)


def same(a: fs.Prediction, b: fs.Prediction) -> bool:
    close = [(x.score, x.distance, x.confidence or 0) for x in (a, b)]
    rows = [sorted(n.row for n in each.nearest) for each in (a, b)]
    return (
        (a.label, a.best) == (b.label, b.best)
        and np.allclose(*close, atol=1e-5)
        and (rows[0] == rows[1])
    )


def test_a_classifier_is_shown_in_a_line(blank: fs.Classifier):
    rng = np.random.default_rng(0)
    ours = blank.enrol({name: [photo(rng) for _ in range(3)] for name in ("owl", "jay")})
    assert repr(ours).startswith("Classifier(6 images of 2 classes")
    assert len(repr(ours)) < 80


# ------------------------------------------------------------------------------- answers


@given(seed=seeds, counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_an_image_gets_the_same_answer_alone_and_among_others_in_any_order(
    blank: fs.Classifier, seed: int, counts: list[int]
):
    rng = np.random.default_rng(seed)
    ours = blank.enrol({f"class {i}": [photo(rng) for _ in range(k)] for i, k in enumerate(counts)})
    images = [photo(rng, int(size)) for size in rng.integers(5, 40, 6)]
    together = ours.predict(images)
    order = rng.permutation(6)
    shuffled = ours.predict([images[i] for i in order])
    alone = [ours.predict(image)[0] for image in images]
    assert all(map(same, together, alone))
    assert all(map(same, shuffled, [together[i] for i in order]))
    assert ours.predict(images) == together


def test_a_head_that_looks_at_queries_together_answers_one_task_and_nothing_else(
    blank: fs.Classifier,
):
    rng = np.random.default_rng(3)
    ours = evolve(blank, head=fs.bd_cspn()).enrol({name: [photo(rng)] for name in "ab"})
    images = np.stack([photo(rng) for _ in range(130)])  # more than are read at a time
    for ask in (ours.predict, ours.stream, ours.scores):
        with pytest.raises(fs.ConfigError, match=r"together=True"):
            ask(images)
    found = ours.scores(images, together=True)
    rows = [mx.array(ours._embeddings(each)) for each in (ours.support.images, images)]
    expected = ours.head(rows[0], mx.array([0, 1]), rows[1], ours.metric, 2)
    assert np.allclose(found, np.array(expected), atol=1e-4)
    told = ours.predict(images, together=True)
    assert np.allclose([each.score for each in told], found.max(axis=1), atol=1e-5)


def test_a_learned_head_goes_from_run_to_file_to_classifier(tmp_path: Path, trained: Path):
    layer = run_config(trained) | {
        "loss": {"name": "prototypical"},
        "sampler": {"name": "episodes", "n_way": 2, "k_shot": 1, "n_query": 2},
        "head": {"name": "relation", "hidden": 5},
        "training": {"steps": 3},
    }
    folder = run(resolve(REGISTRY, [layer]), REGISTRY, tmp_path / "run")
    parts = fs.trained(folder, REGISTRY)
    fresh = build(parts.config, REGISTRY).head
    rng = np.random.default_rng(0)
    of = {name: [photo(rng, parts.shape[0]) for _ in range(2)] for name in "ab"}
    fs.Classifier.load(folder, REGISTRY).enrol(of).save(tmp_path / "ours.fewshot")
    again = fs.Classifier.load(tmp_path / "ours.fewshot", REGISTRY)
    query = mx.array(again.support.embeddings)
    asked = query, mx.array(again.support.labels), query, again.metric, 2
    here, there, untrained = (np.array(head(*asked)) for head in (parts.head, again.head, fresh))
    assert np.array_equal(here, there)
    assert not np.allclose(here, untrained)
    assert again.head.module is not None
    assert not again.head.module.training
    with pytest.raises(fs.ConfigError, match="did not train"):
        evaluate_run(
            trained,
            evolve(parts.config, split=resolve(REGISTRY, [run_config(trained)]).split),
            REGISTRY,
        )
    plain = resolve(REGISTRY, [run_config(folder) | {"head": {"name": "bd-cspn"}}])
    plain = evolve(
        plain, evaluation=evolve(plain.evaluation, n_way=(0, 2), n_query=3, episodes=4, k_shot=(1,))
    )
    results = read_results(evaluate_run(folder, plain, REGISTRY))
    assert (results.queries, results.unknown) == ("together", ())
    assert [(row.n_way, row.dirichlet) for row in results.k_shot][1:] == [(2, 0.0), (2, 2.0)]
    every, even, uneven = (row.balance for row in results.k_shot)
    assert even == pytest.approx(1)
    assert max(every, uneven) < 1
    (said,) = [line for line in facts(results) if "another question" in line]
    for balance in (every, even, uneven):
        assert f"{balance:.2f}" in said
    assert "Dirichlet(2)" in said


def test_the_nearest_support_images_are_those_of_least_distance(enrolled: fs.Classifier):
    for row, image in enumerate(enrolled.support.images):
        (answer,) = enrolled.predict(image, nearest=4)
        assert answer.nearest[0].row == row
        assert answer.nearest[0].distance == pytest.approx(0, abs=1e-3)
        assert answer.nearest[0].label == enrolled.classes[enrolled.support.labels[row]]
        distances = [each.distance for each in answer.nearest]
        assert distances == sorted(distances)
        assert len(distances) == 4
        assert enrolled.predict(image, nearest=0)[0].nearest == ()


def test_beyond_the_threshold_an_image_is_unknown(enrolled: fs.Classifier):
    image = photo(np.random.default_rng(5))
    (answer,) = enrolled.predict(image)
    for threshold, known in ((answer.distance * 1.01, True), (answer.distance * 0.99, False)):
        (found,) = evolve(enrolled, threshold=threshold).predict(image)
        assert found.label == (found.best if known else None)
        assert found.best == answer.best


def write(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_path_pillow_image_and_array_are_one_image(blank: fs.Classifier, tmp_path: Path):
    for name, size in (("small.png", (9, 14)), ("same.png", (SIZE, SIZE)), ("big.png", (50, 30))):
        array = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        path = write(Image.fromarray(array), tmp_path / name)
        shown = [picture(each, blank.shape).image for each in (path, str(path), array)]
        shown.append(picture(Image.open(path), blank.shape).image)
        assert all(np.array_equal(each, shown[0]) for each in shown)
        assert shown[0].shape == blank.shape


def test_a_file_is_read_as_the_dataset_of_its_folder_reads_it(blank: fs.Classifier, tmp_path: Path):
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in "ab":
        (tmp_path / name).mkdir()
        image = Image.fromarray(rng.integers(0, 256, (300, 200, 3), np.uint8))
        write(image, tmp_path / name / "0.jpg", exif=turned)
        write(image.convert("RGBA"), tmp_path / name / "1.png")
    options = fs.ImageFolderOptions(path=str(tmp_path), size=SIZE)
    dataset = fs.image_folder(options)
    for i, path in enumerate(dataset.paths):
        assert np.array_equal(picture(str(path), blank.shape).image, dataset[i])


def test_the_caller_keeps_a_pillow_image_as_it_was(enrolled: fs.Classifier, tmp_path: Path):
    rng = np.random.default_rng(0)
    path = write(Image.fromarray(photo(rng, 600)), tmp_path / "large.jpg")
    image = Image.open(path)
    enrolled.predict(image)
    assert image.size == (600, 600)
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(path)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("no such.png", "no such.png: no such file"),
        (3, "an image is a path, a Pillow image or an array"),
        (np.zeros((4, 4, 3)), "uint8, 0 to 255, not float64"),
        (np.zeros((4, 4, 2), np.uint8), r"not \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
    ],
)
def test_a_bad_image_is_refused_and_in_a_stream_the_rest_go_on(
    enrolled: fs.Classifier, bad: Any, message: str
):
    good = photo(np.random.default_rng(0))
    with pytest.raises(fs.DataError, match=message):
        enrolled.predict([good, bad])
    first, error, last = enrolled.stream(iter([good, bad, good]))
    assert isinstance(error, fs.DataError)
    assert first == last == enrolled.predict(good)[0]


def test_a_classifier_without_classes_answers_nothing(blank: fs.Classifier):
    with pytest.raises(fs.DataError, match="no class is enrolled yet"):
        blank.predict([])


# ------------------------------------------------------------------------------- support


@given(seed=seeds, k=st.integers(1, 4))
def test_enrolling_and_removing_a_class_gives_the_same_classifier(
    enrolled: fs.Classifier, seed: int, k: int
):
    rng = np.random.default_rng(seed)
    more = enrolled.enrol({"owl": [photo(rng) for _ in range(k)]})
    assert more.counts() == {"cup": 1, "key": 3, "owl": k}
    assert enrolled.counts() == {"cup": 1, "key": 3}
    back = more.remove("owl")
    assert equal(back, enrolled)
    images = [photo(rng) for _ in range(3)]
    assert back.predict(images) == enrolled.predict(images)


@given(seed=seeds)
def test_classes_enrolled_together_or_one_by_one_are_the_same(blank: fs.Classifier, seed: int):
    rng = np.random.default_rng(seed)
    of = {name: [photo(rng) for _ in range(k)] for name, k in (("a", 2), ("b", 1), ("c", 3))}
    step_by_step = blank
    for name, images in of.items():
        for image in images:
            step_by_step = step_by_step.enrol({name: image})
    together = blank.enrol(of)
    assert (together.classes, together.support.sha256) == (
        step_by_step.classes,
        step_by_step.support.sha256,
    )
    np.testing.assert_allclose(
        together.support.embeddings, step_by_step.support.embeddings, atol=1e-5
    )


def test_an_image_that_a_class_has_is_not_enrolled_again(enrolled: fs.Classifier):
    again = enrolled.enrol({"key": [*enrolled.support.images[1:]]})
    assert equal(again, enrolled)
    assert enrolled.enrol({"cup": enrolled.support.images[1]}).counts() == {"cup": 2, "key": 3}


def given_as(tmp_path: Path, array: np.ndarray) -> dict[str, Any]:
    """An image in every way that is taken, its file apart, and as it was read for other sizes."""
    path = write(Image.fromarray(array), tmp_path / "image.png")
    ways: dict[str, Any] = {"path": path, "array": array, "Pillow": Image.open(path)}
    for size in (5, SIZE, 40):
        shape = (size, size, 3)
        ways |= {f"{name} at {size}": picture(ways[name], shape) for name in ("path", "array")}
    return ways


@pytest.mark.parametrize("size", [5, SIZE, 40])
def test_an_image_is_known_again_whatever_size_it_was_read_at(
    blank: fs.Classifier, tmp_path: Path, size: int
):
    ways = given_as(tmp_path, photo(np.random.default_rng(0), size))
    of_file = {name: way for name, way in ways.items() if name.startswith("path")}
    of_pixels = {name: way for name, way in ways.items() if name not in of_file}
    for alike in (of_file, of_pixels):
        for first in alike.values():
            once = blank.enrol({"cup": first})
            for name, again in alike.items():
                assert once.enrol({"cup": again}).counts() == {"cup": 1}, name


def test_images_that_are_alike_only_once_scaled_are_two(blank: fs.Classifier):
    fine = photo(np.random.default_rng(0), 2 * SIZE)
    twin = fine.reshape(SIZE, 2, SIZE, 2, 3)[:, ::-1].reshape(fine.shape)  # the same averages
    assert np.array_equal(*(picture(each, blank.shape).image for each in (fine, twin)))
    for a, b in ((fine, twin), (Image.fromarray(fine), Image.fromarray(twin))):
        assert blank.enrol({"cup": [a, b]}).counts() == {"cup": 2}


def test_removing_the_images_of_a_class_one_by_one_removes_it(enrolled: fs.Classifier):
    hashes = [h for h, c in zip(enrolled.support.sha256, enrolled.support.labels, strict=True) if c]
    rest = enrolled.remove_image("key", hashes[0])
    assert rest.counts() == {"cup": 1, "key": 2}
    assert hashes[0] not in rest.support.sha256
    for sha256 in hashes[1:]:
        rest = rest.remove_image("key", sha256)
    assert rest.classes == ("cup",)
    assert rest.remove("cup").counts() == {}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c: c.remove("keys"), "no class 'keys': did you mean 'key'"),
        (lambda c: c.remove_image("key", "00"), "'key' has no image with the SHA-256 00"),
        (lambda c: c.enrol({"owl": []}), "class 'owl' has no image"),
        (lambda c: c.enrol({" ": [c.support.images[0]]}), "' ' can be no class's name"),
        (lambda c: c.enrol({"a\nb": [c.support.images[0]]}), "can be no class's name"),
    ],
)
def test_what_cannot_be_done_to_a_support_is_said(
    enrolled: fs.Classifier, act: Callable[[fs.Classifier], Any], message: str
):
    with pytest.raises(fs.DataError, match=message):
        act(enrolled)


def test_one_name_in_two_forms_is_one_class(trained: Path):
    made = fs.Classifier.load(trained).enrol({"e\u0301": Image.new("RGB", (9, 9))})
    assert made.enrol({"\u00e9": Image.new("RGB", (9, 9), "red")}).counts() == {"\u00e9": 2}


# ----------------------------------------------------------------------------- from a run


def test_a_run_with_an_adapter_gives_a_classifier_only_without_it(trained: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(
        config.replace('[adapter]\nname = "none"', '[adapter]\nname = "finetune"')
    )
    sealed(run)
    with pytest.raises(fs.ConfigError, match=r"adapter 'finetune'.*without_adapter=True"):
        fs.Classifier.load(run, REGISTRY)
    image = photo(np.random.default_rng(0))
    kept, known = (
        fs.Classifier.load(each, REGISTRY, without_adapter=True).enrol({"cup": image})
        for each in (run, trained)
    )
    assert equal(kept, known)


def test_images_are_read_as_by_the_run_also_after_a_restart(trained: Path, tmp_path: Path):
    blank = fs.Classifier.load(trained)
    assert blank.recipe is not None
    height, width, _ = blank.shape
    clear = Image.new("RGBA", (width, height))
    reading = Reading(background="#102030", interpolation="bilinear")
    ours = evolve(blank, recipe=evolve(blank.recipe, reading=reading), reading=reading)
    ours.enrol({"a": clear}).save(tmp_path / "a.fewshot")
    found = fs.Classifier.load(tmp_path / "a.fewshot")
    assert found.reading == reading
    for each in (found.support.images[0], found.predict(clear)[0].pixels):
        assert (each == (0x10, 0x20, 0x30)).all()

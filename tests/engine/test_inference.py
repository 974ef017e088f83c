"""Both engines give the same answers, and the one asked for is had or its lack is said."""

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import fewshot as fs
from fewshot.core.options import NoOptions
from fewshot.deploy.comparison import comparison
from fewshot.engine import inference as engines
from fewshot.engine.calibration import by_class, fitted
from fewshot.engine.embedding import embed
from fewshot.engine.speed import embedding_speed
from fewshot.parts.heads.linear import ridge
from fewshot.parts.metrics import COMPONENTS

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

SIZE = 8
SIZED = ("emd", "mahalanobis")  # made for embeddings of one length
METRICS = {each.name: each.factory(NoOptions()) for each in COMPONENTS if each.name not in SIZED}
HEADS = {
    "nearest-prototype": fs.nearest_prototype(),
    "lda": fs.lda(),
    "ridge": ridge(),
    "nearest-support": fs.nearest_support(),
}
seeds = st.integers(0, 2**32 - 1)


class Network(nn.Module):
    """Any layers over a convolution."""

    def __init__(self, *layers: nn.Module, times: int = 1) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 2, 3, padding=1), fs.BatchNorm(2), fs.MaxPool2x2()]
        self.layers = fs.Sequential(*first, *layers, fs.Flatten())
        self.embedding_dim, self.times = 2 * (SIZE // 2) ** 2, times

    def __call__(self, images: mx.array) -> mx.array:
        return self.times * self.layers(images)


def enrolled(
    network: nn.Module, head: fs.Head, metric: fs.Metric, seed: int = 0, **options: Any
) -> fs.Classifier:
    rng = np.random.default_rng(seed)
    images = {
        name: rng.integers(0, 256, (k, SIZE, SIZE, 3), np.uint8)
        for name, k in {"cup": 2, "key": 3, "owl": 1}.items()
    }
    return fs.Classifier.of(fs.Embedder(network, **options), images, head, metric)


@settings(max_examples=8)
@given(
    seed=seeds,
    head=st.sampled_from(sorted(HEADS)),
    metric=st.sampled_from(sorted(METRICS)),
    normalize=st.sampled_from(["none", "l2"]),
    crops=st.sampled_from(["one", "five"]),
    mirror=st.booleans(),
    power=st.sampled_from([1.0, 0.5]),
)
def test_both_engines_give_the_same_answers(
    seed: int, head: str, metric: str, normalize: str, crops: str, mirror: bool, power: float
):
    options = {"normalize": normalize, "crops": crops, "mirror": mirror, "power": power}
    ours = enrolled(Network(nn.ReLU()), HEADS[head], METRICS[metric], seed, **options)
    images = np.random.default_rng(seed + 1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    by: dict[str, list[fs.Prediction]] = {}
    for name in ("mlx", "onnx"):
        one = evolve(ours, engine=name)
        by[name] = one.predict(images)
        assert one.engine.used == name
        np.testing.assert_allclose(
            [each.score for each in one.predict(images[:1])], by[name][0].score, rtol=1e-3
        )
    for expected, found in zip(by["mlx"], by["onnx"], strict=True):
        assert (found.best, found.label) == (expected.best, expected.label)
        numbers = [(each.score, each.distance) for each in (found, expected)]
        np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-4)


def test_auto_is_onnx_on_a_cpu_and_one_session_serves_all_that_come_from_a_classifier():
    ours = enrolled(Network(), fs.lda(), fs.euclidean())
    more = ours.enrol({"pen": [np.zeros((SIZE, SIZE, 3), np.uint8)]}).remove("cup")
    made = more.engine.of(more.embedder, more.shape)
    assert more.engine.used == ("onnx" if mx.default_device() == mx.Device(mx.cpu) else "mlx")
    assert ours.engine.of(ours.embedder, ours.shape) is made
    other = evolve(ours, embedder=fs.Embedder(Network().eval()))
    assert other.engine.of(other.embedder, other.shape) is not made


def test_onnx_computes_in_float32_where_half_of_it_is_asked_for():
    whole = enrolled(Network(), fs.lda(), fs.euclidean())
    half = evolve(whole, embedder=evolve(whole.embedder, precision="float16"))
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    exact, found = (
        embed(each.embedder, fs.ArrayDataset(images, [0, 0, 0], ["a"]), engine="onnx")
        for each in (whole, half)
    )
    assert np.array_equal(exact, found)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: Network(nn.GELU()), "layer GELU cannot be exported"),
        (lambda: Network(times=2), "away from the network's"),
    ],
)
def test_what_onnx_cannot_do_mlx_does_with_a_line(network: Any, reason: str):
    ours = enrolled(network(), fs.nearest_prototype(), fs.euclidean(), normalize="none")
    assert reason in ours.ready()
    assert ours.engine.used == "mlx"
    assert "\n" not in ours.ready()
    images = ours.support.images
    assert ours.predict(images) == evolve(ours, engine="mlx").predict(images)
    for ask in (lambda c: c.ready(), lambda c: c.predict(images)):
        with pytest.raises(fs.ConfigError, match=reason):
            ask(evolve(ours, engine="onnx"))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extra_auto_is_silent_and_onnx_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    ours = enrolled(Network(), fs.nearest_prototype(), fs.euclidean())
    assert (ours.ready(), ours.engine.used) == ("", "mlx")
    with pytest.raises(fs.ConfigError, match=r"pip install 'fewshot\[onnx\]'"):
        evolve(ours, engine="onnx").ready()


def test_another_engine_is_refused():
    with pytest.raises(fs.ConfigError, match=r"no engine 'onxx'.*onnx"):
        evolve(enrolled(Network(), fs.lda(), fs.euclidean()), engine="onxx")


def test_auto_makes_a_session_once_there_are_images_enough(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "_WORTH", 12 * SIZE**2)
    ours = enrolled(Network(), fs.lda(), fs.euclidean())  # of six images
    used = [ours.predict(ours.support.images[:2]) and ours.engine.used for _ in range(4)]
    assert used == ["mlx", "mlx", "onnx", "onnx"]
    at_once = enrolled(Network(), fs.lda(), fs.euclidean())
    at_once.predict(ours.support.images)
    assert at_once.engine.used == "onnx"


def test_many_images_are_embedded_by_the_engine_that_is_faster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "_WORTH", 5 * SIZE**2)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    data, embedder = fs.from_arrays(images, np.zeros(5, int)), fs.Embedder(Network(nn.ReLU()))
    due = fs.embed(embedder, data, engine="mlx")
    for asked, used in ((4, "mlx"), (5, "onnx")):
        engine = engines.Engine("auto")
        found = fs.embed(embedder, data, np.arange(asked), batch=2, engine=engine)
        assert engine.used == used
        np.testing.assert_allclose(found[:asked], due[:asked], atol=1e-5)
    with pytest.raises(fs.ConfigError, match="GELU"):
        fs.embed(fs.Embedder(Network(nn.GELU())), data, engine="onnx")


def test_speed_is_that_of_the_engine_in_use(monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []
    plain = engines.in_onnx

    def counted(embedder: fs.Embedder, shape: Any) -> Any:
        run = plain(embedder, shape)
        return lambda images: (asked.append(len(images)), run(images))[1]

    monkeypatch.setattr(engines, "in_onnx", counted)
    embedding_speed(fs.Embedder(Network()), (SIZE, SIZE, 3), batch=4, seconds=0)
    assert {4, 1} <= {*asked}
    asked.clear()
    embedding_speed(fs.Embedder(Network()), (SIZE, SIZE, 3), batch=4, seconds=0, engine="mlx")
    assert not asked


def test_the_engine_leaves_no_trace_in_the_file(trained: Path, tmp_path: Path):
    blank = fs.Classifier.load(trained)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    enrolled = evolve(blank, engine="mlx").enrol({"cup": images[:2], "key": images[2:]})
    for name in ("mlx", "onnx"):
        ours = evolve(enrolled, engine=name)
        ours.predict(images)
        ours.save(tmp_path / name)
    assert (tmp_path / "mlx").read_bytes() == (tmp_path / "onnx").read_bytes()


# ------------------------------------------------------------------- comparison in NumPy


@settings(max_examples=20)
@given(
    seed=seeds,
    head=st.sampled_from(sorted(HEADS)),
    metric=st.sampled_from(sorted(METRICS)),
    d=st.sampled_from([3, 200]),
)
def test_few_comparisons_in_numpy_are_those_of_mlx(seed: int, head: str, metric: str, d: int):
    rng = np.random.default_rng(seed)
    labels = rng.permutation([0, 0, 0, 1, 1, 2])
    support, query = (rng.standard_normal((n, d)).astype(np.float32) for n in (6, 4))
    to = fitted(mx.array(support), mx.array(labels), HEADS[head], METRICS[metric], 3)
    found = comparison(to, support, HEADS[head], METRICS[metric], 3)(query, True)
    asked = mx.array(query)
    expected = by_class(to, asked, HEADS[head], METRICS[metric], 3)
    near = METRICS[metric].table(asked, mx.array(support))
    for mine, theirs in zip(found, (*expected, near), strict=True):
        np.testing.assert_allclose(mine, np.array(theirs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["nearest-prototype", "lda", "ridge"])
def test_built_in_heads_of_distances_are_asked_in_numpy(name: str):
    given: list[type] = []
    plain = METRICS["euclidean"]

    def fn(x: Any, y: Any) -> Any:
        given.append(type(x))
        return plain.fn(x, y)

    ours = enrolled(Network(), HEADS[name], evolve(plain, fn=fn))
    ours.predict(ours.support.images)
    given.clear()
    ours.predict(ours.support.images)
    assert given
    assert set(given) == {np.ndarray}


def test_a_head_that_is_another_in_numpy_is_asked_in_mlx():
    plain = fs.nearest_prototype()

    def scores(state: Any, query: Any, metric: fs.Metric) -> Any:
        return plain.scores(state, query, metric) * (2 if isinstance(query, np.ndarray) else 1)

    rows = np.eye(4, dtype=np.float32)
    found = []
    for head in (plain, evolve(plain, scores=scores)):
        to = fitted(mx.array(rows), mx.array([0, 0, 1, 1]), head, METRICS["cosine"], 2)
        found.append(comparison(to, rows, head, METRICS["cosine"], 2)(rows + 0.5, False))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)

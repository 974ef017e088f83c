"""A classifier answers any thread the same, and leaves no thread behind for each."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fewshot as fs
from fewshot.compute.threads import one_at_a_time

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
HEADS: list[Callable[[], fs.Head]] = [fs.lda, fs.nearest_prototype, fs.nearest_support]


def classifier(head: fs.Head) -> fs.Classifier:
    embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=2), (16, 16, 3)))
    return fs.Classifier.of(embedder, {0: IMAGES[:3], 1: IMAGES[3:]}, head)


def in_a_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize("head", HEADS)
def test_every_thread_gets_the_same_answers(head: Callable[[], fs.Head]) -> None:
    made = classifier(head())
    with ThreadPoolExecutor(4) as pool:  # they ask first: what is cached is made there
        found = list(pool.map(lambda image: made.predict(image)[0], IMAGES))
        more = pool.submit(lambda: made.enrol({2: IMAGES[:1] // 2})).result()
    for answer, image in zip(found, IMAGES, strict=True):
        (alone,) = made.predict(image)
        assert answer.facts() == alone.facts()
    assert [each.best for each in more.predict(IMAGES)] == [
        each.best for each in in_a_thread(lambda: more.predict(IMAGES))
    ]


def test_a_run_folder_opened_in_one_thread_enrols_in_another(trained: Path) -> None:
    blank = in_a_thread(lambda: fs.Classifier.load(trained))
    made = in_a_thread(lambda: blank.enrol({"a": IMAGES[:2], "b": IMAGES[2:4]}))
    assert len(made.predict(IMAGES)) == len(IMAGES)


def test_one_that_was_made_in_a_thread_answers_in_any() -> None:
    made = in_a_thread(lambda: classifier(fs.lda()))
    (one,) = made.predict(IMAGES[0])
    assert one.facts() == in_a_thread(lambda: made.predict(IMAGES[0]))[0].facts()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_threads_that_came_and_went_leave_none_behind() -> None:
    made = classifier(fs.lda())

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    in_a_thread(lambda: made.predict(IMAGES[0]))
    before = count()
    for _ in range(12):
        in_a_thread(lambda: made.predict(IMAGES[0]))
    assert count() <= before + 2


def test_others_than_the_main_thread_share_one_and_errors_come_back() -> None:
    @one_at_a_time
    def where(fail: bool = False) -> str:
        if fail:
            raise KeyError("lost")
        return threading.current_thread().name

    @one_at_a_time
    def nested() -> str:
        return where()

    assert where() == threading.main_thread().name
    with ThreadPoolExecutor(3) as pool:
        assert len({pool.submit(nested).result() for _ in range(6)}) == 1
        with pytest.raises(KeyError, match="lost"):
            pool.submit(where, fail=True).result()

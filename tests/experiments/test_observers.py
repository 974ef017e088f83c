"""Observers are told of a run and cannot touch it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.core.components import Component
from fewshot.core.errors import FewshotError
from fewshot.core.files import read_json, read_lines
from fewshot.core.interfaces import Observer
from fewshot.experiments.config import resolve, to_tree
from fewshot.experiments.run import run


class Told:
    """All that an observer is told, which it then spoils."""

    def __init__(self, *raises: str, error: BaseException | None = None) -> None:
        self.news: list[tuple[str, Any]] = []
        self.raises, self.error = raises, error or ZeroDivisionError("of\nnothing")

    def hears(self, what: str, *news: Any) -> None:
        self.news.append((what, json.loads(json.dumps(news, default=str))))
        for told in news:
            if isinstance(told, dict):
                for value in told.values():
                    if isinstance(value, dict | list):
                        value.clear()
                told.clear()
        if what in self.raises:
            raise self.error

    def __call__(self, *_: Any) -> Observer:
        return Observer(*(lambda *n, w=w: self.hears(w, *n) for w in ("start", "record", "end")))


def of(observers: dict[str, Any], folder: Path) -> tuple[Registry, Any]:
    """A small run on noise that these are told of."""
    registry, _ = build_registry()
    registry.add(
        [Registered("observer", Component(n, made), "test", "1") for n, made in observers.items()]
    )
    labels = np.repeat(np.arange(8), 12)
    images = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 1)).astype(np.uint8)
    folder.mkdir(exist_ok=True)
    np.savez(folder / "data.npz", images=images, labels=labels)
    layer = {
        "dataset": {"name": "arrays", "path": str(folder / "data.npz")},
        "backbone": {"name": "conv4", "width": 2},
        "observers": [*observers],
        "split": {"val_fraction": 0.4, "test_fraction": 0.3},
        "training": {"steps": 4, "validate_every": 2},
        "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 10},
    }
    return registry, resolve(registry, [layer])


def test_they_are_told_the_start_every_record_and_the_end_and_change_nothing(
    tmp_path: Path,
) -> None:
    one, other = Told(), Told()
    registry, config = of({"one": one, "other": other}, tmp_path)
    folder = run(config, registry, tmp_path / "run")
    alone = run(*of({}, tmp_path)[::-1], tmp_path / "alone")
    assert one.news == other.news
    start, *records, end = one.news
    assert start[0] == "start"
    assert start[1][0] == str(folder)
    tree = start[1][1]
    assert tree["backbone"] == to_tree(config)["backbone"]
    assert tree["split"]["test"]
    assert [name for name, _ in records] == ["record"] * 2
    assert [news for _, (news,) in records] == read_lines(folder / "metrics.jsonl")
    assert end == ("end", [read_json(folder / "results.json")])
    weights = [(path / "weights.safetensors").read_bytes() for path in (folder, alone)]
    assert weights[0] == weights[1]


def test_those_that_raise_are_switched_off_with_one_line_each_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    when = {"a": "start", "b": "record", "c": "end", "d": "record"}
    told: dict[str, Told] = {name: Told(what) for name, what in when.items()}
    told["d"].error = SystemExit(3)
    told["sound"] = Told()
    registry, config = of(dict(told), tmp_path)
    lines: list[str] = []
    left: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, status: str, line: str) -> None:
        if stage == "observers":
            lines.append(line)
            left.append((done, total))

    folder = run(config, registry, tmp_path / "run", progress=progress)
    assert read_json(folder / "manifest.json")["status"] == "finished"
    assert left == [(4, 5), (3, 5), (2, 5), (1, 5)]
    for line, name in zip(lines, "abdc", strict=True):
        assert f"{name}' is switched off: its {when[name]} raised" in line
        assert type(told[name].error).__name__ in line
        assert "\n" not in line
        assert [what for what, _ in told[name].news].count(when[name]) == 1
        assert told[name].news[-1][0] == when[name]
    assert [what for what, _ in told["sound"].news] == ["start", "record", "record", "end"]


@pytest.mark.parametrize(
    ("stage", "error"), [("training", KeyboardInterrupt()), ("episodes", RuntimeError("no more"))]
)
def test_a_run_that_ends_early_tells_its_end_once_without_results(
    stage: str, error: BaseException, tmp_path: Path
) -> None:
    told = Told()
    registry, config = of({"told": told}, tmp_path)

    def progress(now: str, done: int, *_: Any) -> None:
        if now == stage and done:
            raise error

    with pytest.raises((FewshotError, type(error))):
        run(config, registry, tmp_path / "run", progress=progress)
    assert [news for name, news in told.news if name == "end"] == [[None]]
    assert told.news[-1][0] == "end"


def test_tensorboard_keeps_every_figure_by_its_step(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    registry, config = of({}, tmp_path)
    layer = {**to_tree(config), "observers": ["tensorboard"]}
    folder = run(resolve(registry, [layer]), registry, tmp_path / "run")
    (file,) = (folder / "tensorboard").glob("events.out.*")
    content, at, found = file.read_bytes(), 0, {}
    while at < len(content):  # TFRecord: length, its checksum, data, its checksum
        size = int.from_bytes(content[at : at + 8], "little")
        event = events.Event.FromString(content[at + 12 : at + 12 + size])
        at += 12 + size + 4
        found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    due = {
        (name, record["step"]): value
        for record in read_lines(folder / "metrics.jsonl")
        for name, value in record.items()
        if name != "step" and value is not None
    }
    assert due
    assert found == pytest.approx(due, rel=1e-6)

"""The laws of an observer, on runs that are told but never happen."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..core.interfaces import Observer
from ..core.options import NoOptions
from .laws import Kind, fail, law, laws_of, touches_global_random_numbers
from .strategies import seeds

Record = Mapping[str, Any]

_CONFIG = {"seed": 0, "backbone": {"name": "conv4", "width": 4}, "augment": [{"name": "flip"}]}
_RESULTS = {"k_shot": [{"n_way": 5, "k_shot": 1, "accuracy": 0.5, "p": None}], "unknown": None}


def check_observer(factory: Callable[[Any], Observer], options: Any = NoOptions()) -> None:
    """Raise LawBroken where `factory(options)` breaks a law of an observer."""
    KIND.check(factory, options)


@st.composite
def told_records(draw: st.DrawFn) -> list[Record]:
    """What a run tells of: figures of which some come, go or are None."""
    rng = np.random.default_rng(draw(seeds))
    step = 0
    found: list[Record] = []
    for _ in range(draw(st.integers(1, 4))):
        step += int(rng.integers(1, 50))
        record: dict[str, Any] = {"step": step, "loss": float(rng.random())}
        for name in ("above_zero", "images_per_second", "score", "auc"):
            if rng.random() < 0.7:
                record[name] = None if rng.random() < 0.4 else float(rng.random())
        found.append(record)
    return found


def tell(
    observer: Observer, folder: Path, records: Sequence[Record], results: Record | None = None
) -> None:
    """A run from its start to its end."""
    observer.start(folder, dict(_CONFIG))
    for record in records:
        observer.record(dict(record))
    observer.end(None if results is None else dict(results))


@law()
def made(observer: Any) -> None:
    """The factory makes an `Observer` of three functions."""
    if not isinstance(observer, Observer):
        fail(f"the factory returned {observer!r}, which is no Observer")
    for name in ("start", "record", "end"):
        if not callable(getattr(observer, name)):
            fail(f"{name} is {getattr(observer, name)!r}, which cannot be called")


@law(records=told_records())
def any_figures(observer: Observer, records: list[Record]) -> None:
    """Figures may come, go and be None."""
    with TemporaryDirectory() as folder:
        tell(observer, Path(folder), records, _RESULTS)


@law()
def ended_early(observer: Observer) -> None:
    """A run may end without results, and without a record."""
    for records in ([], [{"step": 1, "loss": 0.5}]):
        with TemporaryDirectory() as folder:
            tell(observer, Path(folder), records)


@law()
def again(observer: Observer) -> None:
    """It can be told of a second run after the first, in another folder."""
    for _ in range(2):
        with TemporaryDirectory() as folder:
            tell(observer, Path(folder), [{"step": 5, "loss": 0.5}], _RESULTS)


@law()
def the_run_folder(observer: Observer) -> None:
    """Files of the run stay what they are; it may add its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        files = ("config.toml", "metrics.jsonl", "manifest.json", "weights.safetensors")
        for file in files:
            (folder / file).write_text(file)
        tell(observer, folder, [{"step": 5, "loss": 0.5}], _RESULTS)
        for file in files:
            if not (folder / file).is_file() or (folder / file).read_text() != file:
                fail(f"{file} in the run folder is another afterwards")


@law()
def global_random_numbers(observer: Observer) -> None:
    """Python's and NumPy's global random numbers are left alone."""
    with TemporaryDirectory() as folder:
        run = Path(folder), [{"step": 5, "loss": 0.5}], _RESULTS
        if touches_global_random_numbers(lambda: tell(observer, *run)):
            fail("the state of `random` or `np.random` is another")


KIND = Kind("observer", lambda factory, options: factory(options), laws_of(globals()))

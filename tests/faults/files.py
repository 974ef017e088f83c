"""Files damaged and malformed in ways that a seed draws: refused in one line, or what they were.

    python -m tests.faults.files           a few of every kind
    python -m tests.faults.files --full    500 damaged and 500 malformed of every kind, 20 rounds of
                                           six programs at one classifier, 2,000 configurations

prints what came of each kind, and ends with 1 where a figure changed unnoticed or an error was more
than a line. The same seed, the same files.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tomli_w
from attrs import frozen
from PIL import Image

from fewshot.catalogue.loading import build_registry
from fewshot.core.errors import FewshotError
from fewshot.core.files import append_line, read_json
from fewshot.core.reading import read_toml
from fewshot.data.cache import VARIABLE
from fewshot.data.datasets import ArrayDataset, decode
from fewshot.data.folders import ImageFolderOptions, image_folder
from fewshot.data.split import SplitOptions, split_classes
from fewshot.deploy import archive
from fewshot.deploy.classifier import Classifier
from fewshot.experiments.config import read_study, resolve, to_tree
from fewshot.experiments.folder import (
    read_results,
    read_run,
    run_config,
    run_weights,
    to_json,
)
from fewshot.experiments.manifest import MANIFEST, read_manifest, write_manifest
from fewshot.experiments.run import run
from fewshot.experiments.search import recorded
from fewshot.experiments.search_space import parameters
from fewshot.experiments.study import study_configs
from tests.sealing import sealed

REGISTRY, _ = build_registry()

Random = np.random.Generator


@frozen
class Kind:
    """A file, and what comes of using it: equal values, equal figures.

    `ours`: fewshot wrote it, so that a change is refused or changes nothing. Else it is a user's,
    and may mean something else. `text`: of what format; None: of bytes. `seal`: have hashes fit.
    """

    name: str
    path: Path
    use: Callable[[], Any]
    ours: bool = True
    text: Literal["toml", "json"] | None = None
    seal: Callable[[], object] = lambda: None


def kinds(place: Path) -> list[Kind]:
    """A file of every kind that is read, whole, in an empty folder."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    images = rng.integers(0, 160, (48, 16, 16, 3)) + 12 * labels[:, None, None, None]
    np.savez(place / "data.npz", images=images.astype(np.uint8), labels=labels)
    layer = {
        "dataset": {"name": "arrays", "path": str(place / "data.npz")},
        "backbone": {"name": "conv4", "width": 2},
        "split": {"val_fraction": 0.4, "test_fraction": 0.3},
        "training": {"steps": 1},
        "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 20},
    }
    folder = run(resolve(REGISTRY, [layer]), REGISTRY, place / "run")
    blank = Classifier.load(folder, REGISTRY)
    file = place / "mine.fewshot"
    images = images.astype(np.uint8)
    blank.enrol({"cup": images[:3], "key": images[-3:]}).save(file)
    asked = images[::9]
    photos = place / "photos"
    for i, image in enumerate(images[::4]):
        (photos / f"c{i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(photos / f"c{i % 3}" / f"{i}.png")
    kept = place / "cache"
    with _cache(kept):
        decode(image_folder(ImageFolderOptions(path=str(photos), size=8)))
    (cached,) = kept.rglob("*.images")
    (place / "config.toml").write_text(tomli_w.dumps(layer))
    (place / "split.toml").write_text('train = ["0", "1"]\nval = ["2", "3"]\ntest = ["4", "5"]\n')
    (place / "study.toml").write_text(
        tomli_w.dumps({"summary": "two rows", "base": layer, "seeds": 1, "rows": {
            "plain": {}, "wide": {"backbone": {"width": 4}},
        }})
    )  # fmt: skip
    (place / "search.toml").write_text(
        tomli_w.dumps({**layer, "over": {"backbone.width": [2, 4], "training.steps": "1:9"}})
    )
    for number in range(4):
        append_line(place / "trials.jsonl", {"trial": number, "score": number / 7, "values": {}})
    trials = recorded(place)
    dataset = ArrayDataset(images, labels, tuple("012345"))

    def search() -> Any:
        layer = read_toml(place / "search.toml")
        return [str(each) for each in parameters(layer.pop("over", {}))], resolve(REGISTRY, [layer])

    def pixels() -> Any:
        with _cache(kept):
            made = decode(image_folder(ImageFolderOptions(path=str(photos), size=8)))
        return np.array(made.images).tobytes(), made.files_sha256

    def weights() -> Any:
        return {name: np.array(each).tobytes() for name, each in run_weights(folder).items()}

    return [
        Kind("settings of a run", folder / "config.toml",
             lambda: to_tree(resolve(REGISTRY, [run_config(folder)])), True, "toml",
             lambda: sealed(folder)),
        Kind("manifest", folder / "manifest.json",
             lambda: (read_manifest(folder), read_run(folder).manifest), True, "json",
             lambda: write_manifest(folder, read_json(folder / "manifest.json"))),
        Kind("results", folder / "results.json", lambda: to_json(read_results(folder)), True,
             "json", lambda: sealed(folder)),
        Kind("records", folder / "metrics.jsonl", lambda: read_run(folder).records),
        Kind("weights", folder / "weights.safetensors", weights),
        Kind("classifier", file,
             lambda: Classifier.load(file, REGISTRY).scores(asked).tolist()),
        Kind("cache", cached, pixels),
        Kind("trials", place / "trials.jsonl",
             lambda: [each for each in recorded(place) if each not in trials]),
        Kind("configuration", place / "config.toml",
             lambda: to_tree(resolve(REGISTRY, [read_toml(place / "config.toml")])), False, "toml"),
        Kind("class split", place / "split.toml",
             lambda: split_classes(dataset, SplitOptions(file=str(place / "split.toml"))), False,
             "toml"),
        Kind("study", place / "study.toml",
             lambda: study_configs(read_study(place / "study.toml"), REGISTRY), False, "toml"),
        Kind("search", place / "search.toml", search, False, "toml"),
    ]  # fmt: skip


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        yield


# ----------------------------------------------------------------------------- how it is hurt


def damaged(rng: Random, content: bytes) -> bytes:
    """A bit flipped, a part zeroed, lost, doubled, put in or moved, or the end cut off."""
    made = bytearray(content)
    at = int(rng.integers(len(made)))
    end = min(len(made), at + int(rng.integers(1, 65)))
    how = int(rng.integers(7))
    if how == 0:
        made[at] ^= 1 << int(rng.integers(8))
    elif how == 1:
        made[at:end] = bytes(end - at)
    elif how == 2:
        del made[at:end]
    elif how == 3:
        made[at:at] = made[at:end]
    elif how == 4:
        made[at:at] = rng.bytes(end - at)
    elif how == 5:
        part = made[at:end]
        del made[at:end]
        place = int(rng.integers(len(made) + 1))
        made[place:place] = part
    else:
        del made[at:]
    return bytes(made)


_ODD = {
    "toml": [
        "nan", "-inf", "1e999", "9" * 30, "9" * 5000, "[" * 3000, "[" * 99 + "]" * 99, "{}", "[]",
        "[[], {}]", "true", '""', '"\\u0000"', "'~/x'", "1979-05-27", "[1, 'a']", "-1", "0.5",
        "{name = 3}", "{name = 'none', nothing = 1}", '"\\U0010FFFF"', "'../../etc/passwd'",
    ],
    "json": [
        "NaN", "-Infinity", "1e999", "9" * 30, "9" * 5000, "[" * 3000, "[" * 99 + "]" * 99, "{}",
        "[]", "[[], {}]", "true", "null", '""', '"\\u0000"', '"\\ud800"', '[1, "a"]', "-1", "0.5",
        '{"name": 3}', '"~/x"',
    ],
}  # fmt: skip


def malformed(rng: Random, text: str, format: Literal["toml", "json"]) -> bytes:
    """Text of another shape or encoding: odd values, keys lost or put in, what is no text."""
    odd = _ODD[format][int(rng.integers(len(_ODD[format])))]
    how = int(rng.integers(9))
    sign = "=" if format == "toml" else ":"
    values = [*re.finditer(rf"(?<={sign} )[^\n\[{{][^\n]*?(?=,?\n)", text)]
    at = int(rng.integers(len(text)))
    lines = text.splitlines(keepends=True)
    line = int(rng.integers(len(lines)))
    if how <= 3 and values:  # most often: what is read the farthest
        value = values[int(rng.integers(len(values)))]
        text = text[: value.start()] + odd + text[value.end() :]
    elif how == 4:
        text = "".join(lines[:line] + lines[line + 1 :])
    elif how == 5:
        text = "".join([*lines[:line], lines[line].replace("a", "b", 1), *lines[line:]])
    elif how == 6:
        return b"\xef\xbb\xbf" + text.encode() if rng.random() < 0.5 else text.encode("utf-16")
    elif how == 7:
        content = text.encode()
        return content[:at] + b"\xff\xfe\xe9"[: int(rng.integers(1, 4))] + content[at:]
    else:
        text = [odd, "", "\0", f"{odd}\n{text}", f"x {sign} {odd}\n"][int(rng.integers(5))]
    return text.encode()


# ---------------------------------------------------------------------------- what comes of it


def outcome(kind: Kind, expected: Any, ours: bool) -> str:
    """In a word; "CHANGED" and "TRACEBACK" are faults."""
    try:
        found = kind.use()
    except FewshotError as error:
        return "refused" if "\n" not in str(error) and len(str(error)) < 2000 else "TRACEBACK"
    except Exception as error:  # whatever it is, it is what is looked for
        print(f"{kind.name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
        return "TRACEBACK"
    if not ours:
        return "read"
    return "the same" if _digest(found) == _digest(expected) else "CHANGED"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def tried(kind: Kind, how: str, count: int, seed: int = 0) -> Counter[str]:
    """Outcomes of `count` damaged or malformed files of a kind, which is left as it was."""
    whole, manifest = kind.path.read_bytes(), kind.path.with_name(MANIFEST)
    kept = {path: path.read_bytes() for path in (manifest, kind.path) if path.exists()}
    expected, found = kind.use(), Counter[str]()
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        resealed = False
        if how == "malformed":
            assert kind.text is not None
            kind.path.write_bytes(malformed(rng, whole.decode(), kind.text))
            with suppress(FewshotError):  # what cannot be read has no hash that fits
                kind.seal()
                resealed = kind.ours
        else:
            kind.path.write_bytes(damaged(rng, whole))
        found[outcome(kind, expected, kind.ours and not resealed)] += 1
        for path, content in kept.items():
            path.write_bytes(content)
    return found


def malformed_documents(file: Path, count: int, seed: int = 0) -> Counter[str]:
    """Of classifier files whose hash is right and whose document is malformed."""
    document, arrays, _ = archive.read(file)
    whole, found = file.read_bytes(), Counter[str]()
    kind = Kind("classifier's document", file, lambda: Classifier.load(file, REGISTRY), False)
    for i in range(count):
        text = malformed(np.random.default_rng([seed, i]), document, "toml")
        archive.write(file, text.decode(errors="replace"), arrays)
        found[outcome(kind, None, False)] += 1
    file.write_bytes(whole)
    return found


def six_at_once(file: Path, photos: Path, rounds: int) -> int:
    """How many classes are lost where six programs enrol into one file at once."""
    image = next(photos.rglob("*.png")).read_bytes()
    whole, lost = file.read_bytes(), 0
    for _ in range(rounds):
        file.write_bytes(whole)
        writers = []
        for i in range(6):
            new = file.parent / "new" / str(i) / f"n{i}"
            new.mkdir(parents=True, exist_ok=True)
            (new / "1.png").write_bytes(image)
            words = [sys.executable, "-m", "fewshot", "enrol", str(file), str(new.parent)]
            writers.append(subprocess.Popen(words, stdout=subprocess.DEVNULL))
        assert [writer.wait() for writer in writers] == [0] * 6
        classes = Classifier.load(file, REGISTRY).classes
        lost += len({f"n{i}" for i in range(6)} - {*classes})
    return lost


def configurations(count: int) -> None:
    """Random configurations mean the same after they were written; raises where one does not."""
    from hypothesis import settings

    sys.path.insert(0, str(Path(__file__).parents[1]))  # what tests share
    from tests.experiments.test_config import test_the_file_that_a_run_writes_means_the_same_run

    settings(max_examples=count, deadline=None, database=None)(
        test_the_file_that_a_run_writes_means_the_same_run
    )()


def main() -> int:
    """Print the counts; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    count, rounds, configs = (500, 20, 2000) if given.full else (20, 1, 50)
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        every = kinds(place)
        for kind in every:
            for how in ("damaged", "malformed"):
                if how == "malformed" and kind.text is None:
                    continue
                found = tried(kind, how, count, given.seed)
                faults += found["CHANGED"] + found["TRACEBACK"]
                _tell(f"{kind.name}, {how}", found)
        found = malformed_documents(place / "mine.fewshot", count, given.seed)
        faults += found["TRACEBACK"]
        _tell("document of a classifier, malformed", found)
        lost = six_at_once(place / "mine.fewshot", place / "photos", rounds)
        faults += lost
        print(f"six programs at once, {rounds} rounds: {lost} of {6 * rounds} classes lost")
    configurations(configs)
    print(f"configurations written and read: {configs} the same")
    print(f"{faults} faults")
    sys.stdout.flush()
    return int(faults > 0)


def _tell(what: str, found: Counter[str]) -> None:
    print(f"{what}: {found.total()}: {json.dumps(dict(sorted(found.items())))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

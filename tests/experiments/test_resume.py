"""A run that is gone on with comes to what it would have come to; one process at a time."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import tomli_w
from commands import done, error, here
from resumed import copying, layer, outcome, without_pictures

import fewshot as fs
from fewshot.catalogue.loading import build_registry
from fewshot.core.components import Study
from fewshot.core.errors import DataError, InterruptedRunError, OutputError
from fewshot.core.locks import held, owner
from fewshot.engine.checkpoints import CHECKPOINT
from fewshot.engine.weights import WEIGHTS
from fewshot.experiments import run as runs
from fewshot.experiments import search as searches
from fewshot.experiments.config import resolve
from fewshot.experiments.manifest import read_manifest, verify, write_manifest
from fewshot.experiments.run import evaluate_run, run
from fewshot.experiments.search import SearchOptions, recorded, search
from fewshot.experiments.search_space import parameter
from fewshot.experiments.status import LOCK, RunStatus, run_status
from fewshot.experiments.study import run_study

REGISTRY = build_registry()[0]

Copies = list[tuple[str, int, Path]]


@pytest.fixture(autouse=True, scope="module")
def _no_pictures() -> Iterator[None]:
    with without_pictures():
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resumed")


@pytest.fixture(scope="module")
def copies(work: Path) -> Copies:
    """What kills would leave of a run, and last of all the run."""
    found: Copies = []
    folder = work / "whole"
    run(resolve(REGISTRY, [layer(work)]), REGISTRY, folder, progress=copying(folder, work, found))
    return [*found, ("finished", 6, folder)]


@pytest.fixture(scope="module")
def whole(copies: Copies) -> Path:
    return copies[-1][2]


def killed(copies: Copies, stage: str, done: int, to: Path) -> Path:
    """A copy of what a kill there left, after so many were done or more."""
    left = next(path for at, count, path in copies if at == stage and count >= done)
    return copytree(left, to / "run")


def interrupting(stage: str, at: int, where: str = "") -> Any:
    """Progress that ends in Ctrl-C."""

    def progress(now: str, done: int, _: int, status: str, line: str) -> None:
        if (now, done) == (stage, at) and where in status:
            raise KeyboardInterrupt

    return progress


# --------------------------------------------------------------------------- the same run


@pytest.mark.parametrize(
    ("stage", "step", "kept"),
    [
        ("training", 1, 0),
        ("training", 3, 2),
        ("embedding, trained backbone", 1, 6),
        ("episodes", 4, 6),
    ],
)
def test_a_killed_run_comes_to_what_it_would_have_come_to(
    copies: Copies, whole: Path, stage: str, step: int, kept: int, tmp_path: Path
) -> None:
    folder = killed(copies, stage, step, tmp_path)
    status = run_status(folder)
    assert (status.status, status.step, status.steps) == ("killed", kept, 6)
    assert fs.resume(folder, REGISTRY) == folder
    assert outcome(folder) == outcome(whole)
    assert run_status(folder).finished
    assert not (folder / CHECKPOINT).exists()
    assert owner(folder / LOCK) is None
    before = (folder / "manifest.json").read_bytes()
    fs.resume(folder, REGISTRY)  # nothing is left to do
    assert (folder / "manifest.json").read_bytes() == before


def test_so_does_one_that_was_interrupted_twice(whole: Path, work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    way = re.escape(f"`fewshot resume {folder}` goes on")
    with pytest.raises(InterruptedRunError, match=way):
        run(
            resolve(REGISTRY, [layer(work)]), REGISTRY, folder, progress=interrupting("training", 3)
        )
    assert run_status(folder).status == "interrupted"
    with pytest.raises(InterruptedRunError, match=way):
        fs.resume(folder, REGISTRY, progress=interrupting("episodes", 3))
    assert run_status(folder).status == "interrupted"
    fs.resume(folder, REGISTRY)
    assert outcome(folder) == outcome(whole)


OTHERS: dict[str, dict[str, Any]] = {
    "proxies": {
        "sampler": {"name": "proxies", "classes": 3, "per_class": 4}, "loss": "prototypical",
        "embedding": {"centre": "train"},
        "split": {"val_fraction": 0.0, "test_fraction": 0.4}, "augment": ["flip", "warp"],
    },
    "adapted": {
        "sampler": {"name": "episodes", "n_way": 3, "k_shot": 2, "n_query": 2},
        "loss": "prototypical", "optimizer": "sgd", "learner": "maml",
        "adapter": {"name": "finetune", "steps": 1},
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=[*OTHERS])
def other(request: pytest.FixtureRequest, work: Path) -> Copies:
    """The same of runs of other parts, the first without validation classes."""
    folder, found = work / request.param, []
    folder.mkdir()
    config = resolve(REGISTRY, [layer(folder, **OTHERS[request.param])])
    run(config, REGISTRY, folder / "whole", progress=copying(folder / "whole", folder, found))
    return [*found, ("finished", 6, folder / "whole")]


def test_so_do_runs_of_other_parts(other: Copies, tmp_path: Path) -> None:
    folder = killed(other, "training", 5, tmp_path)
    fs.resume(folder, REGISTRY)
    assert outcome(folder) == outcome(other[-1][2])


def test_a_centre_that_is_not_taken_yet_is_not_believed(other: Copies, tmp_path: Path) -> None:
    folder = killed(other, "training", 5, tmp_path)
    config = resolve(REGISTRY, [runs.run_config(folder)])
    if config.embedding.centre == "none":
        return
    assert "centre.mean" not in runs.run_weights(folder)
    for use in (fs.trained, fs.Classifier.load):
        with pytest.raises(OutputError, match=r"killed at step 4 of 6.*centre"):
            use(folder, REGISTRY)
    evaluate_run(folder, config, REGISTRY)  # takes it
    assert np.abs(np.array(runs.run_weights(other[-1][2])["centre.mean"])).max() > 0


# ------------------------------------------------------------------------- what is refused


def test_a_second_process_is_refused_and_told_of_the_first(
    copies: Copies, work: Path, tmp_path: Path
) -> None:
    folder = killed(copies, "training", 3, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with held(folder / LOCK, "it"):
        assert run_status(folder).status == "training"
        for start in (
            lambda: fs.resume(folder, REGISTRY),
            lambda: run(resolve(REGISTRY, [layer(work)]), REGISTRY, folder),
        ):
            with pytest.raises(OutputError, match=f"process {os.getpid()} on"):
                start()
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {**before, LOCK: b""} == {**after, LOCK: b""}


def test_a_run_that_was_killed_before_it_began_begins_again(
    work: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).write_text("fewshot, process 1 on here")
    with pytest.raises(OutputError, match="before it began"):
        fs.resume(folder, REGISTRY)
    with held(folder / LOCK, "it"), pytest.raises(OutputError, match=f"process {os.getpid()} on"):
        run(resolve(REGISTRY, [layer(work)]), REGISTRY, folder)
    (folder / "config.toml").write_text("half")
    run(resolve(REGISTRY, [layer(work)]), REGISTRY, folder)
    assert outcome(folder) == outcome(whole)


def test_other_images_are_refused_and_other_releases_told(copies: Copies, tmp_path: Path) -> None:
    folder = killed(copies, "training", 3, tmp_path)
    layer(tmp_path)
    arrays = dict(np.load(tmp_path / "data.npz"))
    arrays["images"][0, 0, 0] ^= 1
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError, match="its images are not those"):
        fs.resume(folder, REGISTRY, data=tmp_path / "data.npz")
    layer(tmp_path)
    manifest = read_manifest(folder)
    manifest["versions"]["mlx"] = "0.1"
    write_manifest(folder, manifest)
    told: list[str] = []
    fs.resume(folder, REGISTRY, progress=lambda *a: told.append(a[-1]), data=tmp_path / "data.npz")
    assert [line for line in told if "versions" in line]


def test_a_damaged_checkpoint_is_named_and_without_it_training_begins_again(
    copies: Copies, whole: Path, tmp_path: Path
) -> None:
    folder = killed(copies, "training", 3, tmp_path)
    path = folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(OutputError, match=f"{CHECKPOINT}: damaged.*begins again"):
        fs.resume(folder, REGISTRY)
    path.unlink()
    fs.resume(folder, REGISTRY)
    assert outcome(folder) == outcome(whole)


@pytest.mark.parametrize("place", [*range(8), 8, 100, -1])
def test_a_bit_of_a_checkpoint_is_told_by_verify_and_is_one_line_in_use(
    copies: Copies, place: int, tmp_path: Path
) -> None:
    folder = killed(copies, "training", 3, tmp_path)
    path = folder / CHECKPOINT
    assert {fault for _, fault in verify(folder)} == {None}
    content = bytearray(path.read_bytes())
    content[place] ^= 128
    path.write_bytes(content)
    ((found, fault),) = [(path, fault) for path, fault in verify(folder) if fault]
    assert found == path
    for line in (fault, error(5, "resume", folder)):
        assert str(path) in line
        assert "begins again" in line
        assert "\n" not in line.strip()
    if place in range(9):  # its head cannot be read
        assert "begins again" in error(5, "status", folder)
        assert "begins again" in error(5, "compare", folder, folder)


def test_a_bit_of_the_best_weights_of_a_killed_run_is_told_before_they_have_a_hash(
    copies: Copies, tmp_path: Path
) -> None:
    folder = killed(copies, "training", 5, tmp_path)
    path = folder / WEIGHTS
    assert "weights_sha256" not in read_manifest(folder)
    assert path in [found for found, fault in verify(folder) if fault is None]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ((found, fault),) = [(path, fault) for path, fault in verify(folder) if fault]
    assert found == path
    for line in (fault, error(5, "eval", folder), error(5, "enrol", folder, folder, "-o", "x")):
        assert f"{path}: damaged" in line


def test_changed_settings_are_not_believed_and_hide_no_other_run(
    copies: Copies, tmp_path: Path
) -> None:
    changed, whole = (killed(copies, "training", 3, tmp_path / each) for each in "ab")
    path = changed / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("steps = 6", "steps = 60", 1))
    assert path.read_text() != text
    for folders in ([changed, whole], [whole, changed], [changed]):
        result = here("status", *folders)
        assert result.returncode == 5
        assert f"{path}: damaged" in result.stderr
        assert ("killed at step 2 of 6" in result.stdout) == (whole in folders)
    manifest = read_manifest(changed)
    del manifest["files"]["config.toml"]
    write_manifest(changed, manifest)
    assert run_status(changed).steps == 60  # there is no hash to hold it against


# ---------------------------------------------------------------------------- the commands


def test_commands_that_meet_a_dead_run_say_so(copies: Copies, whole: Path, tmp_path: Path) -> None:
    folder = killed(copies, "training", 5, tmp_path)
    told = f"{folder}: killed at step 4 of 6: `fewshot resume {folder}` goes on"
    for code, words in (
        (5, ("run", "--config", folder / "config.toml", "--out", folder)),
        (5, ("compare", folder, whole)),
        (0, ("eval", folder)),
    ):
        result = here(*words)
        assert (result.returncode, told in result.stderr) == (code, True), result.stderr
    assert "killed at step 4 of 6" in done("status", folder).stdout
    verified = done("verify", folder).stdout.splitlines()
    assert any(line.startswith(told) for line in verified)
    assert "all whole" in verified[-1]
    done("resume", folder)
    assert re.search(rf"{re.escape(str(folder))}\s+finished", done("status", folder, whole).stdout)
    assert outcome(folder) == outcome(whole)
    assert "not a run folder" in error(5, "resume", tmp_path)


def test_status_is_of_all_runs_where_none_is_named(copies: Copies, tmp_path: Path) -> None:
    killed(copies, "episodes", 3, tmp_path / "runs")
    assert "killed at step 6 of 6" in done("status", cwd=tmp_path).stdout


def test_an_untrained_run_is_at_no_step() -> None:
    assert str(RunStatus("killed", 0, 0, None)) == "killed"


def test_sigterm_ends_as_ctrl_c_does(work: Path, whole: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "run"
    (tmp_path / "run.toml").write_text(tomli_w.dumps(layer(work)))

    def terminate() -> None:
        while not (folder / CHECKPOINT).exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    steps = ("--set", "training.steps=100000", "--set", "training.patience=0")
    thread.start()
    try:
        result = here("run", "--config", tmp_path / "run.toml", *steps, "--out", folder)
    finally:
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert result.returncode == 130
    assert f"`fewshot resume {folder}` goes on" in result.stderr.splitlines()[-1]
    assert run_status(folder).status == "interrupted"


# ------------------------------------------------------------------- studies and searches


def test_a_study_goes_on_within_a_run(work: Path, whole: Path, tmp_path: Path) -> None:
    study = Study("small", {"row": {}}, base=layer(work), seeds=1, summary="one")
    with pytest.raises(InterruptedRunError):
        run_study(study, REGISTRY, tmp_path, progress=interrupting("training", 3))
    (folder,) = (tmp_path / "runs").iterdir()
    began = json.loads((folder / "manifest.json").read_text())["started"]
    told: list[tuple[Any, ...]] = []
    run_study(study, REGISTRY, tmp_path, progress=lambda *a: told.append(a))
    seen = [done for stage, done, *_ in told if stage == "training"]
    assert min(seen) == 2  # validation after the checkpoint
    assert json.loads((folder / "manifest.json").read_text())["started"] == began
    assert outcome(folder)["records"] == outcome(whole)["records"]


def test_a_search_goes_on_within_a_fold(work: Path, tmp_path: Path) -> None:
    options = SearchOptions(trials=2, folds=2, held_out=2, k_shot=1)
    space = [parameter("training.learning_rate", "log:0.0001:0.01")]

    def scores(folder: Path, progress: Any) -> Any:
        search([layer(work)], REGISTRY, space, folder, options, progress)
        return [record["folds"] for record in recorded(folder)]

    left_alone = scores(tmp_path / "whole", lambda *_: None)
    for trial, fold, step in ((0, 1, 3), (0, 2, 5), (1, 2, 1)):
        stop = interrupting("training", step, f"trial {trial}, fold {fold} of 2")
        with pytest.raises(InterruptedRunError):
            scores(tmp_path / "parts", stop)
    seen: list[tuple[str, int]] = []
    found = scores(tmp_path / "parts", lambda *a: seen.append((a[3], a[1])))
    assert found == left_alone
    assert not [where for where, _ in seen if where.startswith(("trial 0", "trial 1, fold 1"))]
    assert not [*(tmp_path / "parts" / searches.CLAIMS).glob("*-*")]

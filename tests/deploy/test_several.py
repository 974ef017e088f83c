"""One classifier that several programs change: what each enrols is in it at the end."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from numpy.typing import NDArray

import fewshot as fs
from fewshot.deploy import archive
from fewshot.deploy.serve import Desk, application

RNG = np.random.default_rng(0)


def images(count: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def taught(trained: Path) -> fs.Classifier:
    return fs.Classifier.load(trained).enrol({"cup": images(2), "key": images(2)})


@pytest.fixture
def path(taught: fs.Classifier, tmp_path: Path) -> Path:
    taught.save(tmp_path / "mine.fewshot")
    return tmp_path / "mine.fewshot"


def test_a_stale_classifier_is_not_saved_over_what_another_enrolled(path: Path) -> None:
    one, two = fs.Classifier.load(path), fs.Classifier.load(path)
    one.enrol({"pen": images(1)}).save(path)
    with pytest.raises(fs.OutputError, match=r"mine\.fewshot: another program has changed it"):
        two.enrol({"cap": images(1)}).save(path)
    two = two.update(path, lambda now: now.enrol({"cap": images(1)}))
    assert two.classes == fs.Classifier.load(path).classes == ("cup", "key", "pen", "cap")
    two.enrol({"hat": images(1)}).save(path)  # its own last save is no other program's
    two.save(path.with_name("copy.fewshot"))


def test_what_was_embedded_before_is_joined_to_what_is_there_now(path: Path) -> None:
    before = fs.Classifier.load(path)
    cup, pen = images(2), images(2)
    added = before.enrol({"cup": cup, "pen": pen})
    fs.Classifier.load(path).enrol({"pen": pen[:1], "cap": images(1)}).remove("key").save(path)
    first = len(before.support)
    both = before.update(path, lambda now: now.joined(added, first))
    assert both.counts() == {"cup": 4, "pen": 2, "cap": 1}  # "key" stays removed, no image is twice
    again = fs.Classifier.load(path)
    assert again.counts() == both.counts()
    asked = images(3)
    np.testing.assert_array_equal(again.scores(asked), both.scores(asked))


def test_another_network_is_not_joined(taught: fs.Classifier) -> None:
    assert taught.recipe is not None
    weights = {name: array + 1 for name, array in taught.recipe.weights.items()}
    other = evolve(taught, recipe=evolve(taught.recipe, weights=weights))
    with pytest.raises(fs.OutputError, match="another network"):
        taught.joined(other)


def test_a_step_that_fails_leaves_the_file(path: Path) -> None:
    before, classifier = path.read_bytes(), fs.Classifier.load(path)
    with pytest.raises(fs.DataError, match="no class 'pen'"):
        classifier.update(path, lambda now: now.remove("pen"))
    assert path.read_bytes() == before


def test_a_private_classifier_stays_private(path: Path) -> None:
    path.chmod(0o600)
    classifier = fs.Classifier.load(path)
    classifier.enrol({"pen": images(1)}).save(path)
    classifier.update(path, lambda now: now.remove("cup"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_of_many_read_change_writes_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "counted.fewshot"
    archive.write(path, "0", {})

    def add(_: int) -> None:
        with archive.locked(path):
            archive.write(path, str(int(archive.read(path)[0]) + 1), {})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(60)))
    assert archive.read(path)[0] == "60"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_threshold_is_a_number(taught: fs.Classifier) -> None:
    with pytest.raises(fs.ConfigError, match="nan"):
        evolve(taught, threshold=float("nan"))


# --------------------------------------------------------------------------------- served


@pytest.fixture
def desks(path: Path):
    pytest.importorskip("werkzeug")
    return Desk(path), Desk(path)


def test_two_servers_and_enrol_lose_no_class(desks: tuple[Desk, Desk], path: Path) -> None:
    one, two = desks
    one.change(lambda now: now.enrol({"pen": images(1)}))
    two.change(lambda now: now.enrol({"cap": images(1)}))
    fs.Classifier.load(path).enrol({"hat": images(1)}).save(path)
    one.change(lambda now: now.enrol({"bag": images(1)}))
    assert {*fs.Classifier.load(path).classes} == {*["cup", "key", "pen", "cap", "hat", "bag"]}
    assert two.ask(lambda now: now.classes) == fs.Classifier.load(path).classes


def test_a_stale_page_removes_no_class_it_has_not_shown_in_full(
    desks: tuple[Desk, Desk], path: Path
) -> None:
    from werkzeug.test import Client

    here = {"headers": {"Host": "localhost"}}
    client = Client(application(desks[0]))
    shown = client.get("/api/classes", **here).get_json()
    desks[1].change(lambda now: now.enrol({"cup": images(3)}))
    asked = {"name": "cup", "state": shown["state"]}
    reply = client.post("/api/remove", json=asked, **here)
    assert reply.status_code == 400
    assert "changed since this page showed it" in reply.get_json()["error"]
    assert fs.Classifier.load(path).counts() == {"cup": 5, "key": 2}
    now = client.get("/api/classes", **here).get_json()
    asked["state"] = now["state"]
    assert client.post("/api/remove", json=asked, **here).status_code == 200
    assert fs.Classifier.load(path).counts() == {"key": 2}

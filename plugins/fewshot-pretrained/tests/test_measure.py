"""The preset for one's own photos, and the tables of the page "Which backbone?"."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import fewshot as fs
from fewshot.cli import commands
from fewshot_pretrained import measure


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Six classes of five photos, each class of a colour."""
    folder = tmp_path_factory.mktemp("things")
    rng = np.random.default_rng(0)
    for i, name in enumerate(("cup", "fork", "key", "lamp", "pen", "shoe")):
        (folder / name).mkdir()
        colour = [(200, 60, 60, 120, 60, 200)[i], (60, 200, 60, 120, 200, 60)[i], 40 * i]
        for j in range(5):
            noise = rng.integers(-50, 50, (20, 24, 3)) + np.array(colour)
            pixels = np.clip(noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{j}.jpg")
    return folder


def said(*words):
    done = CliRunner().invoke(
        commands, [str(word) for word in (*words, "--set", "dataset.size=32")]
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_five_photos_of_each_of_six_things_are_enough(things, tmp_path):
    path = tmp_path / "mine.fewshot"
    enrolled = said("enrol", "--preset", "photos", things, "-o", path)
    assert "unknown: beyond" in enrolled
    assert "lda" in enrolled
    answers = fs.Classifier.load(path).predict([things / "key" / "1.jpg"])
    assert answers[0].best == "key"
    run = said("run", "--preset", "photos", "--data", things, "--out", tmp_path / "run")
    assert "nothing was trained" in run
    assert "leave-one-out over 30 images of 6 classes" in run


def test_few_images_of_each_class_are_the_data_sets_own(things):
    whole = measure.opened("things", str(things), 16)
    some = measure.few(whole, 16, 3)
    assert np.bincount(some.labels).tolist() == [3] * 6
    assert len(set(some.rows.tolist())) == 18
    for i in (0, 7, 17):
        np.testing.assert_array_equal(some[i], whole[some.rows[i]])
        assert some.labels[i] == whole.labels[some.rows[i]]
    assert len(measure.few(whole, 16, 9).labels) == 30
    assert measure.few(whole, 40, 3)[0].shape == (40, 40, 3)


def test_images_are_scaled_as_the_network_wants_them_where_they_are_files(things):
    linear, cubic = (
        measure.opened("things", str(things), 100, by)[0] for by in ("bilinear", "bicubic")
    )
    assert not np.array_equal(linear, cubic)
    drawn = measure.opened("asl-synthetic", "", 64, "bilinear")  # scales nothing
    assert drawn[0].shape[:2] == (64, 64)


def test_every_question_is_drawn_from_all_classes(things):
    data = measure.few(measure.opened("things", str(things), 16), 16, None)
    asked = (fs.EvaluationOptions((1, 2), repeats=3), fs.EvaluationOptions((2,), (3,), 2, 20))
    found = measure.drawn(data, asked)
    assert list(found) == ["K = 1", "K = 2", "3-way 2-shot"]
    due = {"K = 1": (3, 6, 24), "K = 2": (3, 12, 18), "3-way 2-shot": (20, 6, 6)}
    for title, blocks in found.items():
        episodes = sum(len(block.query) for block in blocks)
        assert (episodes, blocks[0].support.shape[1], blocks[0].query.shape[1]) == due[title]


def test_tables_are_written_below_what_stands_by_hand(things, tmp_path, monkeypatch, capsys):
    asked = fs.EvaluationOptions((1,), (0, 5), n_query=1, episodes=2, repeats=2)
    monkeypatch.setattr(measure, "questions", lambda: [asked])
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{measure.MARK}\nold\n")
    words = [f"things={things}", f"same={things}", "--most", "things=2", "--write", str(page)]
    assert measure.main([*words, "--backbone", "efficientnet-lite0"]) == 0
    text = page.read_text()
    assert text.startswith(f"# By hand\n\n{measure.MARK}")
    assert "old" not in text
    assert "12 images of 6 classes" in text
    assert text.count("`efficientnet-lite0`") == 2 + 2 * len(measure.heads())
    assert "| backbone | things | same |" in text
    (cells,) = re.findall(r"`efficientnet-lite0` \| `lda` \| ([0-9.]+) ± .*", text)[:1]
    assert f"| `efficientnet-lite0` | {cells} | " in text.partition("All together")[2]
    assert capsys.readouterr().out in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["things=none"], "Error: none: no such file or folder"),
        (["things=none", "--most", "things=few"], "things=few"),
        (["things=none", "--write", "none.md"], "none.md"),
        (["things={things}"], "class 0 has 5 images"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words, says, things, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.format(things=things) for word in words]
    try:
        code = measure.main([*words, "--backbone", "efficientnet-lite0"])
    except SystemExit as end:
        code = end.code
    assert code != 0
    assert says in capsys.readouterr().err.splitlines()[-1]

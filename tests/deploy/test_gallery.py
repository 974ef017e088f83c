"""The page of answers: what was right, where the truth is known."""

import re
from pathlib import Path

import numpy as np
from attrs import evolve
from pages import faults
from PIL import Image

import fewshot as fs
from fewshot.deploy.gallery import gallery


def test_the_page_says_what_was_right(tmp_path: Path):
    rng = np.random.default_rng(0)
    cup, pot = rng.integers(0, 256, (2, 1, 16, 16, 3), dtype=np.uint8)
    embedder = fs.Embedder(fs.conv4(fs.Conv4Options(width=2), (16, 16, 3)))
    classifier = fs.Classifier.of(
        embedder, {"cup": cup, "pot": pot}, fs.nearest_prototype(), fs.euclidean()
    )
    image = tmp_path / "cup" / "0.png"
    image.parent.mkdir()
    Image.fromarray(cup[0]).save(image)
    (answer,) = classifier.predict([image])
    unknown = evolve(answer, label=None)
    with gallery(tmp_path / "page.html", classifier, "mine", [str(tmp_path)]) as page:
        page.add(str(image), answer, "cup")
        page.add(str(image), answer, "<key>")
        page.add(str(image), unknown, "cup")
        page.add(str(image), unknown, "<key>")
        page.add(str(image), unknown)
        page.add(str(image), fs.DataError(f"{image}: not an image"))
    text = (tmp_path / "page.html").read_text()
    assert faults(text) == []
    states = [found.split() for found in re.findall(r'<li class="([^"]*)"', text)]
    # A class that is not enrolled is rightly unknown, cup is not.
    judged = ["right", "wrong", "wrong", "right"]
    assert [state[1] for state in states[:4]] == judged
    assert states[4:] == [["unknown"], ["bad"]]
    assert ">cup/0.png: not an image</li>" in text
    assert ">cup/0.png</div>" in text
    assert f"6 images: {judged.count('right')} of 4 right" in text
    assert "✗ it is &lt;key&gt;" in text
    assert f"unknown, nearest {answer.best}" in text
    # It is not sure of what it does not name.
    assert len(re.findall("<li [^>]*data-sure", text)) in (0, 2)

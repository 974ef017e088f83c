"""The data set `omniglot`: characters are classes, drawers are groups, alphabets stay together."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fewshot import ClassSplit, DataError, Ints, at_least, option

from .files import Files, drawing, file_sets, omniglot_path

_FILE = re.compile(r"(?:.*/)?([^/]+/character\d+)/\d+_(\d+)\.png")
_TURNS: tuple[str, ...] = ("", "/rot90", "/rot180", "/rot270")


@frozen
class OmniglotOptions:
    """Options of Omniglot."""

    path: str = option(
        "", "a folder or zip file; else FEWSHOT_OMNIGLOT_DATA, else what was fetched"
    )
    size: int = option(28, "drawings are scaled from 105x105 to size x size pixels", at_least(8))
    invert: bool = option(
        True, "ink 1 on paper 0, as in the literature; false: 0 on 1, as in the files"
    )
    frame: bool = option(
        False,
        "each drawing is moved and stretched until its ink fills the image, less a margin; one of "
        "its sides by no more than twice the other",
    )
    rotations: bool = option(False, "characters turned by 90, 180, 270 degrees are classes as well")
    mirrored: bool = option(False, "mirror images of all these are classes as well")
    held_out: tuple[str, ...] = option(
        (),
        "alphabets for the test, besides those of the evaluation set; all others are then for "
        "training, none for validation; none: see the class split",
    )


@frozen
class _Drawing:
    files: Files
    name: str
    character: str  # "Greek/character07"
    drawer: int


@frozen
class Omniglot:
    """Drawings as (size, size, 1) uint8; all of them, then all of them turned by 90 degrees, …

    Where there are mirror images, these come after all of that, in the same order.
    """

    options: OmniglotOptions
    drawings: tuple[_Drawing, ...]
    classes: tuple[str, ...]
    labels: Ints
    groups: Ints
    names: tuple[str, ...]
    split: ClassSplit

    @property
    def parents(self) -> tuple[str, ...]:
        """Of each character its alphabet, turned as it is."""
        of = (name.split("/") for name in self.classes)
        return tuple("/".join([alphabet, *turn]) for alphabet, _, *turn in of)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Image `index`; DataError, naming the file, where it cannot be read."""
        turn, i = divmod(index, len(self.drawings))
        mirrored, quarter = divmod(turn, 4 if self.options.rotations else 1)
        found, of = self.drawings[i], self.options
        upright = drawing(found.files, found.name, of.size, of.invert, of.frame)
        return np.rot90(upright[:, ::-1] if mirrored else upright, quarter)


def omniglot(options: OmniglotOptions) -> Omniglot:
    """The background and evaluation sets found at `path`, each drawing once (some sets overlap).

    Classes are "Alphabet/characterNN"; with `rotations` also "Alphabet/characterNN/rot90" and so on
    (Santoro et al. 2016), with `mirrored` of each of these one that ends in "/mirrored". Groups are
    the 20 drawers' numbers. Raises DataError: nothing there, or an alphabet to hold out is not.
    """
    path = omniglot_path(options.path)
    drawings, evaluation = _find(path)
    if not drawings:
        raise DataError(
            f"{path} has no drawings like Greek/character01/0394_01.png, "
            "nor a zip file images_background.zip of such"
        )
    characters = sorted({drawing.character for drawing in drawings})
    number = {character: i for i, character in enumerate(characters)}
    alphabets = sorted({_alphabet(character) for character in characters})
    for name in options.held_out:
        if name not in alphabets:
            raise DataError(
                f"dataset.held_out: {path} has no alphabet '{name}', it has: {', '.join(alphabets)}"
            )
    turns = _TURNS if options.rotations else _TURNS[:1]
    if options.mirrored:
        turns += tuple(f"{turn}/mirrored" for turn in turns)
    labels = np.array([number[drawing.character] for drawing in drawings], np.int64)
    return Omniglot(
        options,
        drawings,
        classes=tuple(character + turn for turn in turns for character in characters),
        labels=np.concatenate([labels + i * len(characters) for i in range(len(turns))]),
        groups=np.tile(np.array([drawing.drawer for drawing in drawings], np.int64), len(turns)),
        names=tuple(
            f"{drawing.character}{turn}/{drawing.drawer:02}"
            for turn in turns
            for drawing in drawings
        ),
        split=_split(characters, evaluation, turns, options.held_out),
    )


def _find(path: Path) -> tuple[tuple[_Drawing, ...], set[str]]:
    """Drawings in order of character and drawer, and the evaluation set's alphabets."""
    found: dict[tuple[str, int], _Drawing] = {}
    evaluation = set()
    for files in file_sets(path):
        for name in files.names:
            if match := _FILE.fullmatch(name):
                character, drawer = match[1], int(match[2])
                found.setdefault((character, drawer), _Drawing(files, name, character, drawer))
                if "images_evaluation" in f"{files.path}/{name}":
                    evaluation.add(_alphabet(character))
    return tuple(found[key] for key in sorted(found)), evaluation


def _alphabet(character: str) -> str:
    return character.partition("/")[0]


def _split(
    characters: list[str], evaluation: set[str], turns: tuple[str, ...], held_out: tuple[str, ...]
) -> ClassSplit:
    """Whole alphabets: of the background's by name the fifth, tenth … are for validation.

    The test is the evaluation set, or else the third, eighth … of the background alphabets. With
    `held_out` it is these and the evaluation set, and all others are for training.
    """
    background = sorted({_alphabet(character) for character in characters} - evaluation)
    test = evaluation if background and evaluation else set(background[2::5])
    val = set(background[4::5])
    if held_out:
        test, val = evaluation | {*held_out}, set()

    def classes(wanted: Callable[[str], bool]) -> tuple[str, ...]:
        return tuple(c + turn for turn in turns for c in characters if wanted(_alphabet(c)))

    return ClassSplit(
        train=classes(lambda alphabet: alphabet not in test | val),
        val=classes(lambda alphabet: alphabet in val),
        test=classes(lambda alphabet: alphabet in test),
    )

"""Answers as one HTML page with pictures, written as they come."""

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO

from attrs import Factory, define

from ..core.errors import DataError, OutputError
from ..core.files import replacing
from ..core.wording import counted
from ..data.images import Reading, thumbnail
from ..reports.page import data_url
from .classifier import Classifier
from .labelled import is_right
from .support import Prediction

_SIDE = 320  # pixels of a picture
_NEAR = 112  # and of a support image


@define(eq=False)
class Gallery:
    """A page in the making."""

    _file: IO[str]
    _classifier: Classifier
    _roots: tuple[str, ...]
    _seen: set[int] = Factory(set)  # support images that are in it
    _states: Counter[str] = Factory(Counter)
    _best: Counter[str] = Factory(Counter)

    def add(self, name: str, answer: Prediction | DataError, truth: str | None = None) -> None:
        """Put an answer on the page; `truth`: the class it should have been, where it is known."""
        self._states["all"] += 1
        if isinstance(answer, DataError):
            self._states["bad"] += 1
            said = str(answer).replace(name, self._relative(name), 1)
            self._file.write(f'<li class="bad">{html.escape(said)}</li>')
            return
        states = ["known" if answer.label is not None else "unknown"]
        if truth is not None:
            right = is_right(truth, answer, self._classifier.classes)
            states.append("right" if right else "wrong")
        self._states.update(states)
        self._best[answer.best] += 1
        best, sure = html.escape(answer.best, quote=True), ""
        data = f'class="{" ".join(states)}" data-best="{best}"'
        if truth is not None:
            data += f' data-truth="{html.escape(truth, quote=True)}"'
        if answer.confidence is not None and answer.label is not None:
            data += f' data-sure="{100 * answer.confidence:.0f}"'
            sure = f"{answer.confidence:.0%} sure, "
        what = best if answer.label is not None else f"unknown, nearest {best}"
        self._file.write(
            f"<li {data}>{_picture(answer, name, self._classifier.reading)}"
            f'<div class="answer">{what}</div>{_judged(states, truth)}'
            f'<div class="quiet">{sure}distance {answer.distance:.3g}</div>'
            f'<div class="near">{self._near(answer)}</div>'
            f'<div class="quiet" title="{html.escape(name, quote=True)}">'
            f"{html.escape(self._relative(name))}</div></li>"
        )

    def _near(self, answer: Prediction) -> str:
        near = []
        for each in answer.nearest:
            if each.row not in self._seen:
                self._seen.add(each.row)
                url = data_url(self._classifier.support.images[each.row], _NEAR)
                self._file.write(f"<style>.s{each.row}{{background-image:url({url})}}</style>")
            text = f"{each.label}/{Path(each.name).name}: {each.distance:.3g}"
            text = html.escape(text, quote=True)
            near.append(
                f'<i class="s{each.row}" role="img" aria-label="{text}" title="{text}"></i>'
            )
        return "".join(near)

    def _relative(self, name: str) -> str:
        """The name below the folder that was asked about."""
        for root in self._roots:
            if Path(name).is_relative_to(root):
                return str(Path(name).relative_to(root))
        return name

    def summary(self) -> str:
        """What all of it came to, and the choices of a filter, as HTML."""
        many, judged = self._states, self._states["right"] + self._states["wrong"]
        said = [f"{many['right']} of {judged} right"] if judged else [f"{many['known']} named"]
        said.append(f"{many['unknown']} unknown")
        if many["bad"]:
            said.append(f"{many['bad']} could not be used")
        doubts = {
            "all": "all",
            "unsure": "unknown, or less than 80 % sure",
            "unknown": f"unknown ({many['unknown']})",
            **({"wrong": f"wrong ({many['wrong']})"} if judged else {}),
            **({"bad": f"could not be used ({many['bad']})"} if many["bad"] else {}),
        }
        classes = {"": "all", **{n: f"{n} ({k})" for n, k in sorted(self._best.items())}}
        return (
            f'<section id="summary"><p>{counted(many["all"], "image")}: {", ".join(said)}.</p>'
            f'<div id="filters" hidden><label>Class {_choice("of", classes)}</label>'
            f"<label>Answers {_choice('doubt', doubts)}</label>"
            '<span id="count" class="quiet" role="status"></span></div></section>'
        )


def _choice(name: str, options: dict[str, str]) -> str:
    drawn = "".join(
        f'<option value="{html.escape(value, quote=True)}">{html.escape(text)}</option>'
        for value, text in options.items()
    )
    return f'<select id="{name}">{drawn}</select>'


def _judged(states: Sequence[str], truth: str | None) -> str:
    if truth is None:
        return ""
    said = "✓ right" if "right" in states else f"✗ it is {html.escape(truth)}"
    return f'<div class="truth">{said}</div>'


def _picture(answer: Prediction, name: str, reading: Reading) -> str:
    """The file itself, where it is one, else what the network saw."""
    try:
        image = thumbnail(Path(answer.image), _SIDE, reading)
    except DataError:
        image = answer.pixels  # it was an array, or is gone
    small = ' class="small"' if max(image.shape[:2]) < 64 else ""
    return f'<img{small} src="{data_url(image, _SIDE)}" alt="{html.escape(name, quote=True)}">'


def _web(name: str) -> str:
    return files("fewshot.deploy").joinpath("web", name).read_text("utf-8")


@contextmanager
def gallery(
    path: Path, classifier: Classifier, title: str, roots: Sequence[str] = ()
) -> Iterator[Gallery]:
    """A page that answers are added to, and that gets its name at the end.

    One file that needs no other; a support picture is in it once. `roots`: the folders below which
    names are told. Raises OutputError where it cannot be written; an answer that fails leaves no
    page.
    """
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="replace") as file,
        ):
            shown = html.escape(title)
            file.write(
                '<!doctype html><html lang="en"><head><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{shown}</title><style>{_web('answers.css')}</style></head><body>"
                f"<main><h1>{shown}</h1><ul>"
            )
            page = Gallery(file, classifier, tuple(roots))
            yield page
            # It is known only now, and stands above by its style.
            script = f"<script>{_web('answers.js')}</script>"
            file.write(f"</ul>{page.summary()}</main>{script}</body></html>")
            file.flush()
    except BrokenPipeError:
        raise  # the reader's of what is printed meanwhile
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error

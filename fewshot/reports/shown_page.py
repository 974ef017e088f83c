"""What episodes look like: a map of their images, and their worst mistakes, as HTML."""

import html
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..core.interfaces import Dataset
from ..core.shown import Shown
from ..data.episode_files import episode_classes
from .page import data_url, html_figure

_THUMBNAIL, _PICTURE = 64, 144  # pixels of a side
_WIDTH, _HEIGHT, _EDGE = 760, 520, 24
_NAMED = 30  # classes whose names are on the map
_LINE, _LETTER = 18, 8.5  # height of such a name, and width of a letter
_ROWS, _ACROSS = 10, 8  # classes, and queries of each, of an episode
_FAR = 60  # of a name from the middle of its dots, from which on a line leads there
_DOT = 11  # of one's middle, nothing is written so near


def embedding_map(dataset: Dataset, shown: Shown) -> str:
    """Where the images of episodes lie, a thumbnail of each where the pointer is."""
    first = shown.episodes[0]
    names = episode_classes(dataset, first)
    labels: dict[int, int] = dict(
        zip(first.items[first.support], first.support_labels, strict=True)
    )
    answers: dict[int, tuple[int, int]] = {
        int(item): (int(own), int(answer))
        for task, given in zip(shown.episodes, shown.answers, strict=True)
        for item, own, answer in zip(task.items[task.query], task.query_labels, given, strict=True)
    }
    drawn: list[str] = []
    points: list[tuple[str, str | None, str]] = []
    places: dict[int, list[tuple[float, float]]] = {}
    for item, place in zip(shown.mapped.tolist(), shown.places, strict=True):
        x = _EDGE + (place[0] + 1) / 2 * (_WIDTH - 2 * _EDGE)
        y = _EDGE + (place[1] + 1) / 2 * (_HEIGHT - 2 * _EDGE)
        own, answer = answers.get(item, (int(labels.get(item, 0)), -1))
        places.setdefault(own, []).append((x, y))
        fill = f'style="fill:{_colour(list(places).index(own))}"'
        if item in answers:
            at = f'cx="{x:.0f}" cy="{y:.0f}"'
            if answer != own:
                drawn.append(f'<circle class="ring" {at} r="9"/>')
            drawn.append(f'<circle class="p" {at} r="6" {fill}/>')
        else:
            square = f'x="{x - 7:.0f}" y="{y - 7:.0f}" width="14" height="14"'
            drawn.append(f'<rect class="p" {square} {fill}/>')
        said = names[answer] if item in answers else None
        points.append((names[own], said, data_url(dataset[item], _THUMBNAIL)))
    lines = texts = ""
    if len(places) <= _NAMED:
        of_names = _beside([*places.values()], [names[label] for label in places])
        for i, (label, (x, y), (left, top)) in enumerate(of_names):
            if np.hypot(left - x, top - y) > _FAR:
                lines += (
                    f'<line x1="{left:.0f}" y1="{top:.0f}" x2="{x:.0f}" y2="{y:.0f}" '
                    f'style="stroke:{_colour(i)}"/>'
                )
            at = f'x="{left:.0f}" y="{top + 5:.0f}" text-anchor="middle"'
            texts += f"<text {at}>{html.escape(label)}</text>"
    data = json.dumps(points, separators=(",", ":")).replace("<", "\\u003c")
    inside = "".join([lines, *drawn, texts])
    return html_figure(
        f'<div class="scroll" tabindex="0"><svg id="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="Map of {len(points)} images">{inside}</svg></div>'
        '<div id="tip"></div>'
        f'<script type="application/json" id="points">{data}</script>',
        f"{len(points)} images of {_which(shown)}, of the {len(places)} classes asked about, each "
        "in its colour. Squares: images that are only support; dots: queries, ringed in red where "
        "the answer was wrong. Point at one to see it. Neighbours here are neighbours among the "
        "embeddings (t-SNE); how far apart two groups lie says nothing.",
    )


def _beside(
    places: Sequence[Sequence[tuple[float, float]]], names: Sequence[str]
) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Of each class its name, the middle of its dots, and where the name's middle goes.

    As near to its dots as there is room between all dots and the names before it; where there is
    none, over the fewest of them.
    """
    dots = np.array([dot for of in places for dot in of])
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    steps = np.concatenate([around * far for far in range(12, 260, 8)])
    taken: list[NDArray[np.float64]] = []  # middle and half sides of the names so far
    found = []
    for of, name in zip(places, names, strict=True):
        middle = np.median(np.array(of), axis=0)
        half = np.array([_LETTER * len(name) / 2, _LINE / 2])
        inside = np.clip(middle + steps, half + 2, np.array([_WIDTH, _HEIGHT]) - half - 2)
        apart = np.abs(inside[:, None] - dots)
        covered = (apart < half + _DOT).all(axis=2).sum(axis=1)
        for where, size in taken:
            covered += (np.abs(inside - where) < half + size).all(axis=1)
        near = np.maximum(np.abs(inside - middle) - half, 0)
        best = inside[np.lexsort((np.hypot(*near.T), covered))[0]]
        taken.append(np.array([best, half]))
        found.append((name, middle, best))
    return found


def _colour(n: int) -> str:
    """The n-th colour, which differs from those before: the golden angle apart."""
    return f"hsl({n * 137.508 % 360:.0f} {60 + 15 * (n % 2)}% {46 + 8 * (n % 3)}%)"


def mistakes(dataset: Dataset, shown: Shown) -> str:
    """The worst mistakes as pictures; nothing where there are none."""
    if not shown.wrong:
        return ""
    names = episode_classes(dataset, shown.episodes[0])
    cards = ""
    for each in shown.wrong:
        own, answer = names[each.label], names[each.answer]
        cards += (
            '<li class="card">'
            + "".join(
                f"<div>{_picture(dataset, item)}{word}<br><b>{html.escape(name)}</b></div>"
                for item, word, name in (
                    (each.image, "asked: it is", own),
                    (each.own, "nearest of its own", own),
                    (each.taken, "taken for", answer),
                )
                if item is not None or word == "taken for"
            )
            + "</li>"
        )
    failed = [
        given != task.query_labels
        for task, given in zip(shown.episodes, shown.answers, strict=True)
    ]
    count, asked = sum(int(each.sum()) for each in failed), sum(map(len, failed))
    return (
        f'<p class="quiet">{len(shown.wrong)} of {count} wrong answers among '
        f"{asked} queries of {_which(shown)}, the worst of each "
        f"pair of classes first: those much nearer to a "
        f"support image of another class than to any of their own.</p>"
        f'<ul class="cards">{cards}</ul>'
    )


def episode(dataset: Dataset, shown: Shown) -> str:
    """Part of the first episode: a row for each class, an image of its support, then queries."""
    task, answers = shown.episodes[0], shown.answers[0]
    names = episode_classes(dataset, task)
    lines = ""
    for label in np.unique(task.query_labels)[:_ROWS].tolist():
        support = task.items[task.support[task.support_labels == label][:1]]
        drawn = _picture(dataset, int(support[0])) if len(support) else ""
        lines += f"<tr><th>{drawn}{html.escape(names[label])}</th>"
        queries = np.flatnonzero(task.query_labels == label)
        few = min(_ACROSS, len(queries))
        for q in queries[np.linspace(0, len(queries) - 1, few).astype(int)].tolist():
            right = answers[q] == label
            said = "✓" if right else f"✗ {html.escape(names[answers[q]])}"
            image = _picture(dataset, int(task.items[task.query[q]]))
            lines += f'<td class="{"good" if right else "bad"}">{image}{said}</td>'
        lines += "</tr>"
    return html_figure(
        f'<div class="scroll" tabindex="0"><table class="episode">{lines}</table></div>',
        "Of each class first a support image, or its name, then queries with their answers.",
    )


def _which(shown: Shown) -> str:
    return "one episode" if len(shown.episodes) == 1 else "all episodes, which ask each image once"


def _picture(dataset: Dataset, item: int | None) -> str:
    if item is None:
        return ""
    image = dataset[item]
    small = ' class="small"' if max(image.shape[:2]) < 64 else ""
    return f'<img{small} alt="" src="{data_url(image, _PICTURE)}">'
